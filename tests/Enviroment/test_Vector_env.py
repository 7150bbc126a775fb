"""The vector environment is Gymnasium's environments side by side; workers that die, fail or hang are named."""

import multiprocessing as mp
import os
import signal
import sys
import time

import gymnasium as gym
import numpy as np
import pytest

import Enviroment.Workers as module
from Common.Errors import NonFinite
from Enviroment.Utils import make_env, make_vector_env
from Enviroment.Workers import WorkerError
from tests import warm


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


def test_actions_and_states_that_are_not_finite_are_named(task, monkeypatch):
    env = make_vector_env(task, 3, 1, seed=0, frames=False)
    env.reset()
    actions = np.zeros((3, 7), np.float32)
    actions[1, 2] = np.nan
    with pytest.raises(NonFinite, match="action of environment 1"):
        env.step(actions)
    step = env.world.workers.step

    def spoilt():
        step()
        env.world.arrays["State"][2, 5] = np.inf

    monkeypatch.setattr(env.world.workers, "step", spoilt)
    with pytest.raises(NonFinite, match="State of environment 2"):
        env.step(np.zeros((3, 7), np.float32))
    env.close()


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
    result = warm.run([sys.executable, script])
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert set(os.listdir("/dev/shm")) <= before


def test_a_worker_that_hangs_is_named_and_given_up(task, monkeypatch, capfd):
    monkeypatch.setattr(module, "SLOW_S", 0.2)
    monkeypatch.setattr(module, "HUNG_S", 0.6)
    env = make_vector_env(task, 2, 2, frames=False)
    env.reset(seed=0)
    os.kill(env.world.workers.processes[1].pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(WorkerError, match="worker 1 hangs"):
        env.step(np.zeros((2, 7), np.float32))
    assert time.monotonic() - started < 20
    assert "worker 1 has not answered for 0.2 s" in capfd.readouterr().err
    assert not any(worker.is_alive() for worker in env.world.workers.processes)
