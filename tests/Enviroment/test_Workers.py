"""Workers that die, fail or hang are named, and none is left behind."""

import multiprocessing as mp
import os
import signal
import sys
import time

import numpy as np
import pytest

import Enviroment.Vector_env as vector_env
from Enviroment.Utils import make_vector_env
from Enviroment.Vector_env import WorkerError
from tests import warm


def test_a_dead_worker_is_an_error_that_names_it(task):
    env = make_vector_env(task, 2, 2, frames=False)
    env.reset(seed=0)
    os.kill(env._workers[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="worker 1 died"):
        env.step(np.zeros((2, 7), np.float32))
    assert not mp.active_children()


def test_an_exception_in_a_worker_arrives(task):
    env = make_vector_env(task, 1, 1, frames=False)
    with pytest.raises(WorkerError, match="ResetNeeded"):
        env.step(np.zeros((1, 7), np.float32))
    assert not mp.active_children()


def test_a_worker_that_dies_while_it_starts_is_named_and_closing_at_once_leaves_none(task):
    env = make_vector_env(task, 2, 2)
    os.kill(env._workers[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="worker 1 died"):
        env.reset(seed=0)
    starting = make_vector_env(task, 2, 2)
    starting.close()
    assert not any(worker.is_alive() for worker in env._workers + starting._workers)


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
        "    print(*(worker.pid for worker in env._workers), flush=True)\n"
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
    monkeypatch.setattr(vector_env, "SLOW_S", 0.2)
    monkeypatch.setattr(vector_env, "HUNG_S", 0.6)
    env = make_vector_env(task, 2, 2, frames=False)
    env.reset(seed=0)
    os.kill(env._workers[1].pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(WorkerError, match="worker 1 hangs"):
        env.step(np.zeros((2, 7), np.float32))
    assert time.monotonic() - started < 20
    assert "worker 1 has not answered for 0.2 s" in capfd.readouterr().err
    assert not any(worker.is_alive() for worker in env._workers)
