import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
import torch

from Algorithm.Test_model import ZeroPolicy, evaluate
from Enviroment.Renderer import FrameRenderer
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_env, make_vector_env
from Enviroment.Workers import WorkerError
from Models.Model_Pusher import StateStatistics, make_student
from Models.Utils import FrameStacker


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_states_and_rewards_are_gymnasiums_bit_for_bit(task, workers):
    """105 steps: over the time limit and into episodes that restarted by themselves."""
    random = np.random.default_rng(0)
    plain = [gym.make("Pusher-v5") for _ in range(3)]
    env = make_vector_env(task, 3, workers, seed=7, frames=False)
    try:
        obs, _ = env.reset()
        for n, single in enumerate(plain):
            state, _ = single.reset(seed=7 + n)
            np.testing.assert_array_equal(obs["State"][n], state.astype(np.float32))
        for _ in range(105):
            actions = random.uniform(-2, 2, (3, 7)).astype(np.float32)
            obs, rewards, terminated, truncated, info = env.step(actions)
            for n, single in enumerate(plain):
                state, reward, ended, cut, _ = single.step(actions[n])
                assert (rewards[n], terminated[n], truncated[n]) == (reward, ended, cut)
                if cut:
                    np.testing.assert_array_equal(info["final_obs"]["State"][n], state.astype(np.float32))
                    assert info["_final_obs"][n]
                    state, _ = single.reset()
                np.testing.assert_array_equal(obs["State"][n], state.astype(np.float32))
                np.testing.assert_array_equal(obs["PartialState"][n], state[:17].astype(np.float32))
    finally:
        env.close()


def test_frames_do_not_depend_on_workers_and_equal_the_single_environments(task):
    pictures = []
    for workers in (1, 2):
        env = make_vector_env(task, 2, workers, seed=3)
        obs, _ = env.reset()
        obs, *_ = env.step(np.ones((2, 7), np.float32))
        pictures.append(obs["Frame"])
        env.close()
    np.testing.assert_array_equal(*pictures)
    single = make_env(task)
    single.reset(seed=4)
    obs, *_ = single.step(np.ones(7, np.float32))
    np.testing.assert_array_equal(obs["Frame"], pictures[0][1])
    assert single.observation_space.contains(obs)
    single.close()


def test_without_rendering_all_but_the_frames_is_the_same(task):
    env = make_vector_env(task, 2, 1)
    try:
        seen = [env.reset(seed=3)[0], env.step(np.ones((2, 7), np.float32))[0]]
        env.reset(seed=5)
        with env.world.rendering(False):
            unseen = [env.reset(seed=3)[0], env.step(np.ones((2, 7), np.float32))[0]]
        for a, b in zip(seen, unseen):
            np.testing.assert_array_equal(a["State"], b["State"])
            assert (a["Frame"] != b["Frame"]).any()
        np.testing.assert_array_equal(env.reset(seed=3)[0]["Frame"], seen[0]["Frame"])
    finally:
        env.close()


def test_a_snapshot_goes_on_bit_for_bit(task):
    random = np.random.default_rng(1)
    actions = random.uniform(-2, 2, (130, 2, 7)).astype(np.float32)
    env = make_vector_env(task, 2, 1, seed=5, frames=False)
    env.reset()
    for t in range(60):
        env.step(actions[t])
    snapshots = env.world.state()
    straight = [env.step(actions[t]) for t in range(60, 130)]
    other = make_vector_env(task, 2, 2, frames=False)
    other.world.restore(snapshots)
    for t in range(60, 130):
        obs, reward, _, truncated, _ = other.step(actions[t])
        np.testing.assert_array_equal(obs["State"], straight[t - 60][0]["State"])
        np.testing.assert_array_equal(reward, straight[t - 60][1])
        np.testing.assert_array_equal(truncated, straight[t - 60][3])
    env.close(), other.close()


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
    fast = FrameRenderer(env.model, task.camera, task.frame_size, "fast")
    full = FrameRenderer(env.model, task.camera, task.frame_size, "full")
    for _ in range(2):  # one after the other, on two contexts
        one, other = fast.frame(env.data), full.frame(env.data)
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
    view = FrameRenderer(env.model, whole, (480, 480), "full")
    crop = FrameRenderer(env.model, task.camera, task.frame_size, "full")
    cut = view.frame(env.data)[slice(*task.camera.rows), slice(*task.camera.columns)]
    expected = cv2.resize(cut, task.frame_size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(crop.frame(env.data).astype(int) - expected).mean() < 2
    view.close(), crop.close()


def test_a_dead_worker_is_an_error_that_names_it(task):
    env = make_vector_env(task, 2, 2, frames=False)
    env.reset(seed=0)
    os.kill(env.world.workers.processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="worker 1 died"):
        env.step(np.zeros((2, 7), np.float32))
    assert not mp.active_children()


def test_an_exception_in_a_worker_arrives(task):
    env = make_vector_env(task, 1, 1, frames=False)
    with pytest.raises(WorkerError, match="worker 0 failed") as error:
        env.step(np.zeros((1, 7), np.float32))
    assert "ResetNeeded" in error.value.details
    assert not mp.active_children()


def test_a_worker_that_dies_while_it_starts_is_named_and_closing_at_once_leaves_none(task):
    env = make_vector_env(task, 2, 2)
    os.kill(env.world.workers.processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="worker 1 died"):
        env.reset(seed=0)
    starting = make_vector_env(task, 2, 2)
    starting.close()
    assert not any(worker.is_alive() for worker in env.world.workers.processes + starting.world.workers.processes)


@pytest.mark.parametrize("ending", ["raise RuntimeError", "os.kill(os.getpid(), 2)", "os.kill(os.getpid(), 9)", "pass"])
def test_nothing_is_left_behind_however_the_program_ends(ending, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import os\n"
        "from Enviroment.Tasks import TASKS\n"
        "from Enviroment.Utils import make_vector_env\n"
        "if __name__ == '__main__':\n"
        "    env = make_vector_env(TASKS['Pusher'], 2, 2)\n"
        "    env.reset(seed=0)\n"
        "    print(*(worker.pid for worker in env.world.workers.processes), flush=True)\n"
        f"    {ending}\n"
    )
    before = set(os.listdir("/dev/shm"))
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert set(os.listdir("/dev/shm")) <= before


def test_bad_arguments_are_refused(task):
    with pytest.raises(ValueError, match="num_envs"):
        make_vector_env(task, 0, frames=False)
    env = make_vector_env(task, 2, 1, frames=False)
    with pytest.raises(ValueError, match="seeds"):
        env.reset(seed=[1])
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros((1, 7), np.float32))
    env.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.reset()


def test_without_a_gl_backend_one_line_says_what_to_install():
    code = "from Enviroment.GL import choose_gl_backend as c\ntry: c()\nexcept ValueError as e: print(e)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "MUJOCO_GL": "glfw", "DISPLAY": ""},
    )
    assert "libegl1" in result.stdout
    assert result.stdout.count("\n") == 1


def test_a_second_task_is_one_more_task():
    """Reacher through environment, frames, a student's forward pass, and evaluation."""
    reacher = TASKS["Reacher"]
    env = make_vector_env(reacher, 2, 1, seed=0)
    obs, _ = env.reset()
    assert obs["Frame"].shape == (2, 64, 128)
    assert obs["Frame"].std() > 5
    statistics = StateStatistics(np.zeros(10), np.ones(10))
    torch.manual_seed(0)
    student = make_student(
        "ImpaalaSmall", env.single_observation_space, env.single_action_space, reacher.proprioception, statistics, 4
    )
    stacker = FrameStacker(reacher.stack, reacher.stack_stride)
    actions = student.act({**obs, "Frame": stacker.reset(obs["Frame"])})
    assert actions.shape == (2, 2)
    result = evaluate(student, env, reacher, range(3), teacher=ZeroPolicy(env.single_action_space))
    assert result.returns.shape == (3,)
    assert (result.returns < 0).all()
    env.close()
