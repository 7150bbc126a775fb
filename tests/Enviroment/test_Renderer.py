"""Frames show what the state says."""

import dataclasses

import cv2
import gymnasium as gym
import mujoco
import numpy as np
import pytest

from Enviroment.Renderer import FrameRenderer, renderers
from Enviroment.Task import Camera
from Enviroment.Utils import make_env, make_vector_env
from Enviroment.Views import View, Views


def object_and_goal_pixels(task, state):
    """Where the camera, straight above, sees object and goal: (row, column) in the frame, from the camera's geometry."""
    camera, points = task.cameras["Frame"], []
    for x, y, z in (state[17:20] + np.array([0, 0, 0.05]), state[20:23]):  # the object's upper face
        depth = camera.distance - z
        focal = camera.view / 2 / np.tan(np.deg2rad(45 / 2))
        # Seen with azimuth 270: the picture's right is the world's -x, its down the world's +y.
        row = camera.view / 2 + focal * (y - camera.lookat[1]) / depth
        column = camera.view / 2 - focal * (x - camera.lookat[0]) / depth
        row = (row - camera.rows[0]) * camera.size[0] / (camera.rows[1] - camera.rows[0])
        column = (column - camera.columns[0]) * camera.size[1] / (camera.columns[1] - camera.columns[0])
        points.append((row - 0.5, column - 0.5))
    return points


@pytest.mark.parametrize("seed", [1900, 1903, 2004])
def test_the_frame_shows_object_and_goal_where_the_state_says(task, seed):
    env = make_env(task)
    obs, _ = env.reset(seed=seed)
    frame = obs["Frame"].astype(int)
    (object_row, object_column), (goal_row, goal_column) = object_and_goal_pixels(task, obs["State"].astype(float))
    white = np.argwhere(frame > 250)
    np.testing.assert_allclose(white.mean(0), (object_row, object_column), atol=1.5)
    goal = frame[round(goal_row), round(goal_column)]
    disc = np.argwhere(frame == goal)
    near = disc[np.abs(disc - (goal_row, goal_column)).max(1) < 10]
    np.testing.assert_allclose(near.mean(0), (goal_row, goal_column), atol=1.5)
    env.close()


def test_fast_and_full_frames_agree_in_geometry(task):
    env = gym.make("Pusher-v5").unwrapped
    env.reset(seed=1901)
    fast = FrameRenderer(task.cameras["Frame"], "fast")
    full = FrameRenderer(task.cameras["Frame"], "full")
    for _ in range(2):  # one after the other, on two contexts
        one, other = fast.frame(env.model, env.data), full.frame(env.model, env.data)
        centres = [np.argwhere(frame > 250).mean(0) for frame in (one, other)]
        np.testing.assert_allclose(*centres, atol=1)
        assert np.abs(one.astype(int) - other).mean() < 12
    assert not np.array_equal(one, other)
    fast.close(), full.close()


def test_the_crop_is_the_cameras_crop(task):
    """The frustum's frame equals the 480 x 480 view, cut and scaled down."""
    env = gym.make("Pusher-v5").unwrapped
    env.reset(seed=1902)
    camera = task.cameras["Frame"]
    view = FrameRenderer(dataclasses.replace(camera, rows=(0, 480), columns=(0, 480), size=(480, 480)), "full")
    crop = FrameRenderer(camera, "full")
    cut = view.frame(env.model, env.data)[slice(*camera.rows), slice(*camera.columns)]
    expected = cv2.resize(cut, camera.size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(crop.frame(env.model, env.data).astype(int) - expected).mean() < 2
    view.close(), crop.close()


BOXES = """
<mujoco>
  <visual><global fovy="60"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="5 5 .1" rgba=".2 .4 .6 1"/>
    <geom type="box" pos="0 0 .25" size=".3 .3 .25" rgba="1 .5 0 1"/>
    <camera name="top" pos="0 0 2" fovy="60"/>
  </worldbody>
</mujoco>
"""


@pytest.mark.parametrize("camera", [Camera(2.0, name="top"), Camera(2.0)])
@pytest.mark.parametrize("quality", ["fast", "full"])
def test_depth_is_the_distance_along_the_line_of_sight(camera, quality):
    model = mujoco.MjModel.from_xml_string(BOXES)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    shown = dataclasses.replace(camera, size=(60, 60), frames="depth", depth_range=(1.5, 1.9))
    renderer = FrameRenderer(shown, quality)
    metres = renderer.depth(model, data)
    np.testing.assert_allclose(metres[[0, 30, 59], [0, 30, 59]], (2.0, 1.5, 2.0), atol=1e-4)  # flat: not from the eye
    frame = renderer.frame(model, data)
    assert (frame.shape, frame.dtype) == ((60, 60), np.uint8)
    assert frame[30, 30] == 0
    assert frame[0, 0] == 255  # farther than the range
    model.geom_size[1, 2] = 0.05
    model.geom_pos[1, 2] = 0.25
    mujoco.mj_forward(model, data)
    assert renderer.frame(model, data)[30, 30] == round(255 * (1.7 - 1.5) / 0.4)
    renderer.close()


def test_gray_is_the_luma_of_rgb_and_cameras_that_share_a_context_draw_as_alone(task):
    env = gym.make("Pusher-v5").unwrapped
    env.reset(seed=1904)
    cameras = {
        f"{name}_{kind}": dataclasses.replace(camera, frames=kind)
        for name, camera in task.cameras.items()
        for kind in ("gray", "rgb", "depth")
    }
    shared = renderers(cameras)
    frames = {name: renderer.frame(env.model, env.data) for name, renderer in shared.items()}
    for name, camera in task.cameras.items():
        gray, rgb = frames[f"{name}_gray"], frames[f"{name}_rgb"]
        assert rgb.shape == (3, *camera.size)
        luma = np.einsum("c,crk->rk", (0.299, 0.587, 0.114), rgb)
        assert np.abs(gray - luma).max() <= 1
        assert gray.std() > 5
        for kind in ("gray", "rgb", "depth"):
            alone = FrameRenderer(cameras[f"{name}_{kind}"])
            np.testing.assert_array_equal(alone.frame(env.model, env.data), frames[f"{name}_{kind}"])
            alone.close()
    shared["side_rgb"].close(), env.close()


def test_a_frame_from_another_pose_leaves_the_camera_where_it_was(task):
    env = gym.make("Pusher-v5").unwrapped
    env.reset(seed=1905)
    camera = dataclasses.replace(task.cameras["side"], frames="depth")
    renderer = FrameRenderer(camera)
    before = renderer.frame(env.model, env.data).copy()
    nearer = View(Views(camera_distance=0.3), 0, edge=True)
    moved = renderer.frame(env.model, env.data, view=nearer).copy()
    assert (moved[-1] != before[-1]).all()
    np.testing.assert_array_equal(renderer.frame(env.model, env.data), before)
    renderer.close(), env.close()


def test_an_observation_has_a_key_for_each_camera(task):
    seen = dataclasses.replace(
        task, cameras={**task.cameras, "wrist": dataclasses.replace(task.cameras["wrist"], frames="rgb")}
    )
    seen = seen.seen_by(("wrist", "Frame"))
    env, envs = make_env(seen), make_vector_env(seen, 2, 1, seed=7)
    obs, many = env.reset(seed=7)[0], envs.reset()[0]
    assert {key: space.shape for key, space in env.observation_space.items()} == {
        "Frame": (64, 128),
        "PartialState": (17,),
        "State": (23,),
        "wrist": (3, 64, 64),
    }
    for key, value in obs.items():
        np.testing.assert_array_equal(many[key][0], value)
    env.close(), envs.close()
