"""A task as strange as they come, through every method: its episodes end early, its teacher is a function."""

import csv
import json

import numpy as np
import pytest

from Algorithm.Dataset import open_dataset
from Common.Files import read_json
from Distillation.Preparation import parents_teacher
from Distillation.Pusher import parse
from tests.helpers import ONLINE, SMALL, flags, pusher, run_folder

# A ball on a rail with a goal: dictionary observations, float64 and scalars, actions in [0, 1], no limit of its own, an end that
# depends on the seed, success in `info`, colours that change at reset, and a camera of the model.
TASK = """
import gymnasium as gym
import mujoco
import numpy as np

from Enviroment.Tasks import Camera, Measure, Task

XML = '''
<mujoco>
  <option timestep="0.02"/>
  <worldbody>
    <light pos="0 -1 3"/>
    <camera name="side" pos="0 -2 0.5" xyaxes="1 0 0 0 0.2 1"/>
    <body name="ball"><joint name="x" type="slide" axis="1 0 0"/><geom size="0.2" mass="1"/></body>
  </worldbody>
  <actuator><motor joint="x" ctrlrange="0 1" gear="5"/></actuator>
</mujoco>
'''


class Rail(gym.Env):
    observation_space = gym.spaces.Dict(
        {"speed": gym.spaces.Box(-9, 9, (), np.float64), "place": gym.spaces.Box(-9, 9, (1,), np.float64)}
    )
    action_space = gym.spaces.Box(0, 1, (1,), np.float32)

    def __init__(self):
        self.model = mujoco.MjModel.from_xml_string(XML)
        self.data = mujoco.MjData(self.model)

    def _observe(self):
        return {"speed": self.data.qvel[0].copy(), "place": self.data.qpos.copy()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.goal = self.np_random.uniform(0.05, 0.4)
        self.model.geom_rgba[0, :3] = self.np_random.uniform(0.3, 1)
        mujoco.mj_forward(self.model, self.data)
        return self._observe(), {}

    def step(self, action):
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data)
        there = bool(self.data.qpos[0] > self.goal)
        return self._observe(), float(there) - 0.1, there, False, {"is_success": there}


gym.register("TestRail-v0", lambda **keywords: Rail(**keywords))
RAIL = Task(
    name="Rail",
    env_id="TestRail-v0",
    proprioception=(1,),
    cameras={"Frame": Camera(name="side", size=(32, 64))},
    success="is_success",
    measures={"place": Measure(lambda state: state[..., 0], "m")},
    stack=2,
    max_episode_steps=30,
)


def push(states):
    return np.clip(0.8 - 0.1 * states[:, 1:], 0, 1)
"""
METHODS = ("PPD", "Sdistillation", "Tdistillation")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rail")
    (folder / "rail.py").write_text(TASK)
    return folder


def run(place, *words, script="Distillation/Pusher.py"):
    done = pusher(*words, script=script, cwd=place)
    assert done.returncode == 0, done.stderr
    return done


def where(place, results):
    return {"task": "rail.py:RAIL", "teacher": "rail.py:push", "results_dir": place / results}


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_step_environments_learn_from_episodes_that_end_early(method, place):
    said = run(place, *flags(method, ONLINE, **where(place, method)))
    assert "if cut off      --resume continues it exactly" in said.stdout
    assert "warning: Rail was never checked with this camera and teacher" in said.stderr
    assert read_json(run_folder(place / method) / "config.json")["stack"] == 2, "the task's"
    summary = read_json(run_folder(place / method) / "summary.json")
    student, teacher, zero = (summary["OD"][who] for who in ("student", "teacher", "zero"))
    assert teacher["success"] == 1.0
    assert teacher["length"] < 30 == zero["length"]
    assert zero["final_place"] == 0.0
    assert np.isfinite(list(student.values())).all()


def test_collection_cloning_dagger_play_and_minari(place, monkeypatch):
    places = where(place, "imitation")
    few = {"num_data": 100, "num_envs": 4, "num_workers": 1, "device": "cpu"}
    run(place, *flags("C_data", few, export_minari=place / "minari", **places))
    folder = place / "imitation" / "Rail" / "Teacher" / "dataset_100"
    fields = open_dataset(folder).fields
    ends = np.append(fields["episode_start"][1:], True)
    np.testing.assert_array_equal(fields["terminated"], ends)
    lengths = np.diff(np.append(np.flatnonzero(fields["episode_start"]), len(ends)))
    assert 100 <= len(ends) < 130
    assert len(set(lengths)) > 1

    import minari

    episodes = list(minari.MinariDataset(place / "minari").iterate_episodes())
    assert [len(episode.rewards) for episode in episodes] == lengths.tolist()
    assert all(episode.terminations[-1] and not episode.truncations[-1] for episode in episodes)

    run(place, *flags("C_data", few, **places | {"num_data": 5000}))
    run(place, *flags("BC_phase", SMALL, dataset="5k", run_name="bc", **places))
    parent = next((place / "imitation").rglob("bc/config.json")).parent
    inherited = {key: value for key, value in SMALL.items() if key != "mode"}
    places.pop("teacher")  # the parent's is taken
    more = {"folder_Dagger": parent, "num_envs": 3, "rollout_samples": 40, "rollout_updates": 2, "run_name": "dagger"}
    monkeypatch.chdir(place)
    for task in ({}, {"task": places["task"]}):  # a teacher's function is not asked about another task's states
        job, _ = parse(flags("Dagger_phase", inherited, **more | task))
        assert (parents_teacher(job) is not None) == bool(task)
    run(place, *flags("Dagger_phase", inherited, **more, **places))
    dagger = next((place / "imitation").rglob("dagger/config.json")).parent
    with (dagger / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert 80 <= int(float(last["x_axis/samples_collected"])) - 5000 < 200

    film = place / "film.mp4"
    played = ["--seeds", "1900-1904", "--device", "cpu", "--num_workers", 1]
    figures = json.loads(run(place, dagger, *played, "--json", "--video", film, script="Distillation/Play.py").stdout)
    assert film.stat().st_size > 1000
    assert len(figures["episodes"]) == 5
    assert {"success", "final_place", "length"} <= figures["episodes"][0].keys()
