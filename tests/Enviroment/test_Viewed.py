"""Environments whose episodes have views of their own."""

import dataclasses
from contextlib import closing

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch

from Enviroment.Renderer import FrameRenderer
from Enviroment.Snapshot import simulation
from Enviroment.Tasks import TASKS, Camera
from Enviroment.Utils import make_env, make_world, resumes_exactly
from Enviroment.Viewed import Viewed
from Enviroment.Views import STRENGTHS, VIEWS, View, Views
from tests.Enviroment.test_Views import WILD

PUSHER = dataclasses.replace(TASKS["Pusher"], max_episode_steps=6)
ACTIONS = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, (20, 3, 7)).astype(np.float32))


def of(views, **changes):
    return dataclasses.replace(PUSHER, views=views, **changes)


def course(world, actions):
    """Everything that a world yields."""
    found = []
    for action in actions:
        step = world.step(action)
        found += [*step.obs.values(), step.reward, *(value[step.done] for value in step.last_obs.values())]
        found = [value.clone() for value in found]
    return found


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right)


def test_seeds_decide_views_whatever_the_workers_and_a_snapshot_continues_them_bit_for_bit():
    """With every kind of shift, over several ends of episodes."""
    with closing(make_world(of(WILD), 3, 1)) as one, closing(make_world(of(WILD), 3, 2)) as other:
        first = [obs.clone() for obs in one.reset([5, 6, 7]).values()]
        assert_same(first, other.reset([5, 6, 7]).values())
        assert not torch.equal(first[-1][0], first[-1][1])
        assert_same(course(one, ACTIONS[:9]), course(other, ACTIONS[:9]))
        saved = one.state()
        straight = course(one, ACTIONS[9:])
        other.reset([1, 2, 3])
        other.restore(saved)
        assert_same(straight, course(other, ACTIONS[9:]))
    assert resumes_exactly(of(WILD))


def test_views_of_pictures_leave_states_rewards_and_later_episodes_as_they_are():
    visible = dataclasses.replace(WILD, mass=0, friction=0, damping=0, delayed_actions=0)
    assert not visible.physical
    with closing(make_world(of(visible), 3, 2)) as seen:
        seen.reset([5, 6, 7])
        plain = [PUSHER.make() for _ in range(3)]
        for env, seed in zip(plain, (5, 6, 7)):
            env.reset(seed=seed)
        for actions in ACTIONS[:14]:
            step = seen.step(actions)
            for i, env in enumerate(plain):
                state, reward, _, truncated, _ = env.step(actions[i].numpy())
                state = env.reset()[0] if truncated else state
                np.testing.assert_array_equal(step.obs["State"][i], state.astype(np.float32))
                assert step.reward[i] == reward


@pytest.fixture(scope="module")
def plain_frame():
    env = make_env(PUSHER)
    frame = env.reset(seed=8)[0]["Frame"].astype(int)
    env.close()
    return frame


VISIBLE = ("camera_position", "camera_angle", "camera_distance", "light", "light_direction", "light_colour", "colour")
PIXELS = (*VISIBLE, "texture", "brightness", "contrast", "noise")


@pytest.mark.parametrize("name", PIXELS)
def test_each_range_of_pictures_changes_the_frame_and_nothing_without_it(name, plain_frame):
    env = make_env(of(Views(**{name: STRENGTHS[name][2]}), edge=True))
    frames = [env.reset(seed=seed)[0]["Frame"].astype(int) for seed in (8, 8, 9)]
    env.close()
    np.testing.assert_array_equal(frames[0], frames[1])
    differ = np.abs(frames[0] - plain_frame)
    assert differ.mean() > (0.1 if name.startswith("camera") else 1)
    if name == "brightness":
        assert set(np.unique(differ[(plain_frame > 20) & (plain_frame < 235)])) == {20}
    if name == "noise":
        assert 13 < (frames[0] - plain_frame)[(plain_frame > 60) & (plain_frame < 195)].std() < 17
    if name == "texture":  # the object and the goal have them as well
        assert len(np.unique(differ)) > 20


def test_a_shift_multiplies_what_the_environment_sets_and_is_gone_before_its_next_reset():
    class Painting(gym.Wrapper):
        def reset(self, **options):
            model = self.unwrapped.model
            self.before = model.geom_rgba.copy(), model.body_mass.copy(), model.light_diffuse.copy()
            result = self.env.reset(**options)
            model.geom_rgba[3, :3] = 0.25
            return result

    inner = Painting(PUSHER.make())
    model = inner.unwrapped.model
    own = model.geom_rgba.copy(), model.body_mass.copy(), model.light_diffuse.copy()
    env = Viewed(inner, Views(colour=0.2, mass=0.3, light=0.3), edge=True)
    env.reset(seed=1)
    assert set(model.geom_rgba[3, :3].round(4).astype(float).round(4)) <= {0.2, 0.3}
    assert set((model.body_mass[1:] / own[1][1:]).round(4)) == {0.7, 1.3}
    first = model.dof_M0.copy()
    env.reset(seed=2)
    own[0][3, :3] = 0.25
    for now, before in zip(inner.before, own):
        np.testing.assert_array_equal(now, before)
    assert not np.array_equal(model.dof_M0, first)
    np.testing.assert_array_equal(inner.unwrapped.model.geom_rgba[:, 3], own[0][:, 3])


def test_masses_friction_and_damping_are_those_of_the_first_step():
    views = Views(mass=0.4, friction=0.4, damping=0.4)
    env, plain = of(views).make(), PUSHER.make()
    env.reset(seed=3), plain.reset(seed=3)
    model, _ = simulation(env)
    fresh, scratch = simulation(plain)
    for name in ("body_mass", "body_inertia", "geom_friction", "dof_damping"):
        moving = getattr(fresh, name) != 0
        ratios = getattr(model, name)[moving] / getattr(fresh, name)[moving]
        assert (np.abs(ratios - 1) > 1e-4).all()
        assert ratios.min() > 0.6
        assert ratios.max() < 1.4
        getattr(fresh, name)[...] = getattr(model, name)
    spare = mujoco.MjData(fresh)
    mujoco.mj_setConst(fresh, spare)
    for name in ("body_subtreemass", "dof_M0", "dof_invweight0", "body_invweight0"):
        np.testing.assert_array_equal(getattr(model, name), getattr(fresh, name))
    mujoco.mj_forward(fresh, scratch)
    action = ACTIONS[0, 0].numpy()
    np.testing.assert_array_equal(env.step(action)[0], plain.step(action)[0])


def test_actions_come_late_after_zeros():
    env, plain = of(Views(delayed_actions=2), edge=True).make(), PUSHER.make()
    np.testing.assert_array_equal(env.reset(seed=3)[0], plain.reset(seed=3)[0])
    late = [np.zeros(7, np.float32)] * 2 + [action[0].numpy() for action in ACTIONS]
    row = np.empty(7, np.float32)  # the same memory for every action
    for t in range(5):
        row[:] = ACTIONS[t, 0]
        np.testing.assert_array_equal(env.step(row)[0], plain.step(late[t])[0])


@pytest.mark.parametrize("views", [Views(delayed_frames=2), Views(dropped_frames=0.7)])
def test_frames_come_late_or_once_more(views):
    env, plain = make_env(of(views), frames=True), make_env(PUSHER)
    seed = next(n for n in range(99) if (view := View(views, n)).delayed_frames == 2 or view.dropped > 0.5)
    seen, true = [env.reset(seed=seed)[0]["Frame"]], [plain.reset(seed=seed)[0]["Frame"]]
    for action in ACTIONS[:6, 0].numpy():
        seen.append(env.step(action)[0]["Frame"])
        true.append(plain.step(action)[0]["Frame"])
    env.close(), plain.close()
    if views.delayed_frames:
        np.testing.assert_array_equal(seen, [true[max(0, t - 2)] for t in range(7)])
        return
    repeated = [np.array_equal(seen[t], seen[t - 1]) for t in range(1, 7)]
    assert 0 < sum(repeated) < 6
    for t in range(1, 7):
        np.testing.assert_array_equal(seen[t], seen[t - 1] if repeated[t - 1] else true[t])


def test_make_env_shows_what_a_world_shows_last_frames_included():
    env = make_env(of(WILD))
    with closing(make_world(of(WILD), 1, 1)) as world:
        np.testing.assert_array_equal(world.start([5])["Frame"][0], env.reset(seed=5)[0]["Frame"])
        for action in ACTIONS[:6, 0]:
            step = world.step(action[None])
            obs = env.step(action.numpy())[0]
            frames = step.last_obs if step.done else step.obs
            np.testing.assert_array_equal(frames["Frame"][0], obs["Frame"])
    env.close()


def test_colours_and_depth_are_sensed_as_gray_frames_are_but_depth_has_no_brightness():
    env = Viewed(PUSHER.make(), Views(brightness=20, contrast=0.3), edge=True)
    env.reset(seed=1)
    colours = np.full((3, 4, 5), 100, np.uint8)
    env.sense("rgb", colours)
    expected = {round(128 - 28 * contrast) + shift for contrast in (0.7, 1.3) for shift in (20, -20)}
    assert len(set(colours.ravel())) == 1
    assert colours[0, 0, 0] in expected
    depth = np.full((4, 5), 100, np.uint8)
    env.sense("depth", depth, depth=True)
    assert set(depth.ravel()) == {100}
    noisy = Viewed(PUSHER.make(), Views(noise=5), edge=True)
    noisy.reset(seed=1)
    noisy.sense("depth", depth, depth=True)
    assert 1 < depth.std() < 12


@pytest.mark.parametrize("name", ["camera_position", "camera_angle", "camera_distance"])
def test_the_models_own_cameras_move(name):
    views = Views(**{name: STRENGTHS[name][2]})
    cheetah = dataclasses.replace(TASKS["HalfCheetah"], camera=Camera(name="track"))
    frames = []
    for own in (Views(), views):
        env = make_env(dataclasses.replace(cheetah, views=own, edge=True))
        frames.append(env.reset(seed=1)[0]["Frame"].astype(int))
        env.close()
    assert 0.2 < np.abs(frames[0] - frames[1]).mean() < 60


def test_patterns_leave_a_renderer_as_it_was(plain_frame):
    """Environments with patterns and without share the renderer of a worker."""
    env, patterned = PUSHER.make(), of(Views(texture=0.4)).make()
    env.reset(seed=8), patterned.reset(seed=8)
    renderer = FrameRenderer(PUSHER.camera, PUSHER.frame_size)
    one = renderer.frame(*simulation(patterned), view=patterned.view)
    two = renderer.frame(*simulation(env))
    three = renderer.frame(*simulation(patterned), view=patterned.view)
    renderer.close()
    np.testing.assert_array_equal(two, plain_frame)
    np.testing.assert_array_equal(one, three)
    assert not np.array_equal(one, two)


def test_the_named_views_are_nested():
    small, large = (VIEWS[name].table() for name in ("small", "large"))
    assert small.keys() == large.keys()
    assert all(small[name] < large[name] for name in small)
