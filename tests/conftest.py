import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test files run at once; before PyTorch is loaded

import numpy as np
import pytest

from Algorithm.Test_model import Recording, evaluate
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from Models.Model_Pusher import StateStatistics
from tests import warm
from tests.helpers import small_teacher, student_for

LONG = ("tests/benchmarks/", "tests/Distillation/Studies/test_Ray.py", "tests/Train_Teacher_Pusher/test_Mujoco_main.py")


def pytest_configure(config):
    """Start the server of forks, once for all workers."""
    if not hasattr(config, "workerinput"):
        config.add_cleanup(warm.start())


def pytest_collection_modifyitems(items):
    """Begin with what takes long, so that no process has to wait for it at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture
def task():
    return TASKS["Pusher"]


@pytest.fixture
def teacher():
    return small_teacher()


@pytest.fixture
def statistics():
    return StateStatistics(np.zeros(23), np.ones(23))


@pytest.fixture(scope="session")
def env_and_recording():
    """The task, and the start of two episodes of a student that sees, evaluated and recorded."""
    task = TASKS["Pusher"]
    env = make_world(task, 2, 1)
    student = student_for(env, task, StateStatistics(np.zeros(23), np.ones(23)))
    recording = Recording()
    result = evaluate(student, env, task, [1900, 1901], recording=recording)
    env.close()
    recording.actions, recording.stacks = recording.actions[:8], recording.stacks[:8]
    return task, result, recording
