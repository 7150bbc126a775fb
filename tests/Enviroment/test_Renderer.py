"""Frames show what the state says."""

import gymnasium as gym
import numpy as np
import pytest

from Enviroment.Renderer import FrameRenderer
from Enviroment.Utils import make_env


def object_and_goal_pixels(task, state):
    """Where the camera, straight above, sees object and goal: (row, column) in the frame, from the camera's geometry."""
    camera, points = task.camera, []
    for x, y, z in (state[17:20] + np.array([0, 0, 0.05]), state[20:23]):  # the object's upper face
        depth = camera.distance - z
        focal = camera.view / 2 / np.tan(np.deg2rad(45 / 2))
        # Seen with azimuth 270: the picture's right is the world's -x, its down the world's +y.
        row = camera.view / 2 + focal * (y - camera.lookat[1]) / depth
        column = camera.view / 2 - focal * (x - camera.lookat[0]) / depth
        row = (row - camera.rows[0]) * task.frame_size[0] / (camera.rows[1] - camera.rows[0])
        column = (column - camera.columns[0]) * task.frame_size[1] / (camera.columns[1] - camera.columns[0])
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
    fast = FrameRenderer(task.camera, task.frame_size, "fast")
    full = FrameRenderer(task.camera, task.frame_size, "full")
    for _ in range(2):  # one after the other, on two contexts
        one, other = fast.frame(env.model, env.data), full.frame(env.model, env.data)
        centres = [np.argwhere(frame > 250).mean(0) for frame in (one, other)]
        np.testing.assert_allclose(*centres, atol=1)
        assert np.abs(one.astype(int) - other).mean() < 12
    assert not np.array_equal(one, other)
    fast.close(), full.close()


def test_the_crop_is_the_cameras_crop(task):
    """The frustum's frame equals the 480 x 480 view, cut and scaled down."""
    import dataclasses

    import cv2

    env = gym.make("Pusher-v5").unwrapped
    env.reset(seed=1902)
    whole = dataclasses.replace(task.camera, rows=(0, 480), columns=(0, 480))
    view = FrameRenderer(whole, (480, 480), "full")
    crop = FrameRenderer(task.camera, task.frame_size, "full")
    cut = view.frame(env.model, env.data)[slice(*task.camera.rows), slice(*task.camera.columns)]
    expected = cv2.resize(cut, task.frame_size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(crop.frame(env.model, env.data).astype(int) - expected).mean() < 2
    view.close(), crop.close()
