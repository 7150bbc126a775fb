"""Environments of every kind through the workers."""

from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch

from Algorithm.Episodes import run_episodes
from Algorithm.Test_model import Baseline, evaluate, figures, table
from Common.Errors import BadInput, NonFinite
from Enviroment.Snapshot import simulation
from Enviroment.Tasks import TASKS, Camera, Measure, Task
from Enviroment.Utils import make_env, make_world, resumes_exactly

VIEW = TASKS["Reacher"].cameras
XML = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="side" pos="0 -2 0.5" xyaxes="1 0 0 0 0.2 1"/>
    <body name="cart"><joint name="x" type="slide" axis="1 0 0"/><geom name="box" size="0.2" mass="1" rgba="1 0 0 1"/></body>
  </worldbody>
  <actuator><motor joint="x" ctrlrange="0 1"/></actuator>
</mujoco>
"""


class Cart(gym.Env):
    """A cart on a rail, by MuJoCo alone."""

    action_space = gym.spaces.Box(0, 1, (1,), np.float32)
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, goal="array", paints=False, explodes_at=None, size=0.2, hides=False):
        self.model = mujoco.MjModel.from_xml_string(XML.replace("0.2", str(size)))
        self.data = mujoco.MjData(self.model)
        self._kind, self._paints, self._explodes_at, self._hides = goal, paints, explodes_at, hides
        self._goal = np.zeros(1)

    def _observe(self):
        return np.concatenate([self.data.qpos, self.data.qvel])

    def _goal_value(self):
        return self._goal["x"] if self._kind == "dictionary" else float(self._goal[0])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        drawn = self.np_random.uniform(-1, 1)
        self._goal = {"x": drawn} if self._kind == "dictionary" else np.array([drawn])
        if self._paints:
            self.model.geom_rgba[0, :3] = drawn > 0
        mujoco.mj_forward(self.model, self.data)
        return self._observe(), {}

    def step(self, action):
        self.data.ctrl[:] = action
        if self._explodes_at is not None and self.data.time > self._explodes_at:
            self.data.qvel[:] = 1e30
        mujoco.mj_step(self.model, self.data)
        return (
            self._observe(),
            self._goal_value() * float(action[0]),
            False,
            False,
            {"near": abs(self._goal_value()) < 0.5},
        )


class Dictionary(Cart):
    observation_space = gym.spaces.Dict(
        {"z_speed": gym.spaces.Box(-np.inf, np.inf, (), np.float64), "a_place": gym.spaces.Box(-9, 9, (1,), np.float64)}
    )

    def _observe(self):
        return {"z_speed": np.float64(self.data.qvel[0]), "a_place": self.data.qpos.copy()}


def task(entry, name="Cart", **keywords):
    identity = f"Test{name}-v0"
    if identity not in gym.registry:
        gym.register(identity, entry)
    fields = {key: keywords.pop(key) for key in list(keywords) if key in Task.__dataclass_fields__}
    limit = {"max_episode_steps": 20} | fields
    return Task(name, identity, (0,), keywords=keywords, **{"cameras": {"Frame": Camera(name="side")}} | limit)


def drive(world, steps, value=0.5):
    action = torch.full((world.num_envs, *world.action_space.shape), value)
    for _ in range(steps):
        yield world.step(action)


def test_the_task_gives_the_time_limit_that_the_registration_lacks():
    with pytest.raises(BadInput, match="has no time limit; give the task max_episode_steps"):
        make_env(task(Cart, max_episode_steps=None), frames=False)
    world = make_world(task(Cart), 2, 1)
    obs = world.reset([0, 1])
    assert obs["Frame"].float().std() > 5
    assert [bool(step.done.all()) for step in drive(world, 20)] == [False] * 19 + [True]
    world.close()


def test_dictionaries_and_scalars_are_flattened_in_the_order_of_their_names():
    world = make_world(task(Dictionary, "Dictionary"), 1, 1, frames=False)
    world.reset([0])
    *_, step = drive(world, 3, 1.0)
    place, speed = step.obs["State"][0].tolist()
    assert world.spaces["State"].dtype == np.float32
    assert 0 < place < speed
    world.close()


def test_a_lambda_makes_environments_in_the_workers():
    made = task(lambda **keywords: Cart(**keywords), "Lambda", success="near")
    world = make_world(made, 2, 2, frames=False)
    result = evaluate(Baseline(world.action_space, random=True), world, made, range(6))
    assert set(result.success) == {0.0, 1.0}
    world.close()


def test_each_environment_is_drawn_with_its_own_colours_and_its_own_model():
    world = make_world(task(Cart, paints=True), 8, 1)
    frames = world.reset(range(8))["Frame"].flatten(1).float()
    drawn = [np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).uniform(-1, 1) for seed in range(8)]
    white = np.array(drawn) > 0
    assert 0 < white.sum() < 8
    assert frames.amax(1)[white].min() > frames.amax(1)[~white].max() + 30
    world.close()
    env = make_env(task(Cart), frames=True)
    small, _ = env.reset(seed=0)
    unwrapped = env.unwrapped
    unwrapped.model = mujoco.MjModel.from_xml_string(XML.replace("0.2", "0.5"))
    unwrapped.data = mujoco.MjData(unwrapped.model)
    large, _ = env.reset(seed=0)
    assert (large["Frame"] > 60).sum() > 2 * (small["Frame"] > 60).sum()
    env.close()


def test_a_followed_walker_stays_in_the_picture():
    camera = {"Frame": Camera(4.0, (0, 0, 1.0), 90, 0, follow="torso")}
    env = make_env(Task("Hop", "Hopper-v5", (0,), camera, keywords={"terminate_when_unhealthy": False}))
    first, _ = env.reset(seed=0)
    unwrapped = env.unwrapped
    unwrapped.set_state(unwrapped.init_qpos + np.eye(6)[0] * 50, unwrapped.init_qvel)
    _, data = simulation(env)
    later = env.get_wrapper_attr("observation")({})["Frame"]
    assert data.body("torso").xpos[0] == 50
    assert np.abs(first["Frame"].astype(int) - later).mean() < 20
    assert later[50:].std() > 20, "the floor ends"
    env.close()
    for camera, message in (
        (Camera(name="nothing"), "has no camera 'nothing'; its model has track"),
        (Camera(follow="head"), "has no body 'head'; its model has world, torso"),
    ):
        with pytest.raises(BadInput, match=message):
            make_world(Task("Hop", "Hopper-v5", (0,), {"Frame": camera}), 1)


def test_physics_that_mujoco_resets_in_mid_episode_end_the_run():
    world = make_world(task(Cart, explodes_at=0.03), 2, 1, frames=False)
    world.reset([0, 1])
    with pytest.raises(NonFinite, match="the physics of environment 0 became unstable, and MuJoCo reset them"):
        list(drive(world, 20))
    world.close()


def test_a_check_tells_whether_resuming_is_exact():
    assert resumes_exactly(task(Cart))
    assert resumes_exactly(task(Cart, paints=True))
    assert not resumes_exactly(task(Cart, goal="dictionary"))
    assert all(resumes_exactly(TASKS[name]) for name in ("Pusher", "Reacher"))
    with pytest.raises(
        BadInput, match="task Broken: its environment fails in its first steps: TypeError: unsupported operand"
    ):
        resumes_exactly(task(Broken, "Broken"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"success": "is_there"}, "success or a measure is 'is_there' of info, and a step's info has near"),
        ({"success": lambda state: state[7] < 1}, "success or a measure fails for states .*: IndexError"),
        ({"success": lambda state: bool((state < 1).all())}, r"success of states \[2, S\] has shape \[\], not \[2\]"),
    ],
)
def test_success_and_measures_are_tried_before_anything_starts(changes, message):
    with pytest.raises(BadInput, match=message):
        resumes_exactly(task(Cart, **changes))


class Broken(Cart):
    def step(self, action):
        return None + 1


def test_a_queue_of_seeds_steps_only_what_runs():
    """Hoppers that fall at different times: every episode is that of its seed, whatever the number of environments."""
    hopper = Task(
        "Hop", "Hopper-v5", (0,), {"Frame": Camera(name="track")}, measures={"place": Measure("x_position", "m")}
    )
    world = make_world(hopper, 5, 2, frames=False)
    policy = Baseline(world.action_space)
    many = evaluate(policy, world, hopper, range(12))
    steps = list(run_episodes(world, [0, 1], lambda obs, first: torch.zeros(5, 3)))
    world.close()
    one = make_world(hopper, 1, 1, frames=False)
    single = evaluate(policy, one, hopper, range(12))
    one.close()
    for name in ("returns", "lengths"):
        np.testing.assert_array_equal(getattr(many, name), getattr(single, name))
    np.testing.assert_array_equal(many.measures["place"], single.measures["place"])
    assert len(set(many.lengths)) > 3
    assert len(steps) == many.lengths[:2].max()
    assert all(len(step.running) <= 2 for step in steps)
    found = figures(many, single, single)
    assert "success" not in found
    assert "final_place" in found
    words = table({"policy": found, "zero": found}, hopper)
    assert "place" in words.splitlines()[0]
    assert "success" not in words


def test_colours_of_a_mid_episode_are_restored():
    painted = task(Cart, paints=True)
    world = make_world(painted, 2, 1)
    world.reset([3, 4])
    list(drive(world, 2))
    saved = world.state()
    after = [step.obs["Frame"].clone() for step in drive(world, 2)]
    world.reset([5, 6])
    world.restore(saved)
    again = [step.obs["Frame"].clone() for step in drive(world, 2)]
    world.close()
    assert all(torch.equal(a, b) for a, b in zip(after, again))


def test_keywords_and_an_xml_of_ones_own(tmp_path):
    from gymnasium.envs.mujoco import hopper_v5

    source = Path(hopper_v5.__file__).with_name("assets") / "hopper.xml"
    xml = tmp_path / "light.xml"
    xml.write_text(source.read_text().replace('name="torso_geom"', 'name="torso_geom" mass="0.5"'))
    hopper = Task(
        "Own", "Hopper-v5", (0,), {"Frame": Camera(name="track")}, keywords={"xml_file": str(xml), "frame_skip": 2}
    )
    env = hopper.make()
    assert env.unwrapped.frame_skip == 2
    assert env.unwrapped.model.body("torso").mass == 0.5
    env.close()
