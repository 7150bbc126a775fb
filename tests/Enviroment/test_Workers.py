import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import Enviroment.Workers as module
from Enviroment.Workers import SharedArrays, WorkerError, Workers


class Counter:
    """What the workers hold here."""

    def __init__(self, number, shared=None):
        if number < 0:
            raise ValueError(f"number {number}")
        self.number = number
        self.arrays = shared.arrays() if shared else {}

    def step(self):
        self.arrays["count"][self.number] += 1

    def add(self, a, b):
        return self.number + a + b

    def fail(self):
        raise KeyError("on purpose")

    def modules(self):
        return sorted(sys.modules)

    def close(self):
        pass


@pytest.fixture(scope="module")
def shared():
    return SharedArrays({"count": ((2, 3), np.int64)})


@pytest.fixture(scope="module")
def workers(shared):
    workers = Workers(Counter, [(0, shared), (1, shared)])
    yield workers
    workers.close()


def test_every_worker_answers_in_order(workers):
    assert len(workers) == 2
    assert workers.call("add", 10, 20) == [30, 31]


def test_arrays_are_shared(workers, shared):
    count = shared.arrays()["count"]
    count[:] = [[1, 2, 3], [4, 5, 6]]
    workers.step()
    workers.step()
    assert count.tolist() == [[3, 4, 5], [6, 7, 8]]


def test_a_worker_knows_no_environment():
    """In a process of its own: here, workers are forked from one that knows those of other tests."""
    program = (
        "import numpy as np\nfrom tests.Enviroment.test_Workers import Counter, SharedArrays, Workers\n"
        "workers = Workers(Counter, [(0, SharedArrays({'count': ((2, 3), np.int64)}))])\n"
        "print({'gymnasium', 'mujoco', 'torch'} & set(workers.call('modules')[0]))\nworkers.close()"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120
    )
    assert found.stdout == "set()\n", found.stderr


def test_workers_ignore_signals_to_the_whole_job(workers):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(workers.processes[0].pid, number)
    assert workers.call("add", 0, 0) == [0, 1]


def test_an_exception_arrives_with_its_traceback_and_closes_all():
    workers = Workers(Counter, [(0,), (1,)], "counter")
    with pytest.raises(WorkerError, match="counter 0 failed") as error:
        workers.call("fail")
    assert "KeyError: 'on purpose'" in error.value.details
    assert workers.closed
    assert not any(process.is_alive() for process in workers.processes)
    with pytest.raises(WorkerError, match="the counters are closed"):
        workers.step()
    workers.close()


def test_a_factory_that_raises_is_an_error_of_the_first_call():
    workers = Workers(Counter, [(0,), (-1,)])
    with pytest.raises(WorkerError, match="worker 1 failed") as error:
        workers.call("add", 0, 0)
    assert "ValueError: number -1" in error.value.details


def test_a_dead_worker_is_named():
    workers = Workers(Counter, [(0,), (1,)])
    workers.call("add", 0, 0)
    os.kill(workers.processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"worker 1 died \(exit code -9\)"):
        workers.call("add", 0, 0)
    assert not any(process.is_alive() for process in workers.processes)


def test_a_worker_that_hangs_is_named_and_given_up(monkeypatch, capfd):
    workers = Workers(Counter, [(0,)])
    workers.call("add", 0, 0)
    monkeypatch.setattr(module, "SLOW_S", 0.1)
    monkeypatch.setattr(module, "HUNG_S", 0.3)
    os.kill(workers.processes[0].pid, signal.SIGSTOP)
    with pytest.raises(WorkerError, match=r"worker 0 hangs: no answer for 0\.3 s"):
        workers.call("add", 0, 0)
    assert "worker 0 has not answered for 0.1 s" in capfd.readouterr().err
    assert not workers.processes[0].is_alive()


def test_workers_end_with_the_last_reference():
    workers = Workers(Counter, [(0,)])
    process = workers.processes[0]
    del workers
    gc.collect()
    deadline = time.monotonic() + 10
    while process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not process.is_alive()


ELSEWHERE = """
import ctypes.util, multiprocessing, select, sys  # ctypes.util takes another platform's part, which Debian leaves out

del select.poll  # as on Windows
platform, sys.platform = sys.platform, "darwin"
import Enviroment.Workers as module
sys.platform = platform

class Adder:
    def add(self, a, b):
        return a + b

    def close(self):
        pass

if __name__ == "__main__":
    module.SLOW_START_S, module.START_TIMEOUT_S = 0.001, 60.0
    workers = module.Workers(Adder, [(), ()])
    print(workers.call("add", 1, 2), multiprocessing.active_children()[0].__class__.__name__)
    workers.processes[1].kill()
    try:
        workers.call("add", 1, 2)
    except module.WorkerError as error:
        print(error)
"""


def test_workers_need_neither_fork_nor_poll(tmp_path):
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, tmp_path / "elsewhere.py"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == ["[3, 3] SpawnProcess", "worker 1 died (exit code -9)"], run.stderr
    assert "has not answered" in run.stderr
