import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test files run at once; before PyTorch is loaded

import numpy as np
import pytest
import torch

from Enviroment.Tasks import TASKS
from Models.Model_Pusher import StateStatistics, Teacher
from tests import warm


def pytest_configure(config):
    """Start the server of forks, once for all workers."""
    if not hasattr(config, "workerinput"):
        config.add_cleanup(warm.start())


@pytest.fixture
def task():
    return TASKS["Pusher"]


@pytest.fixture
def teacher():
    """A small random teacher of Pusher's shape, whose actions differ from state to state."""
    torch.manual_seed(0)
    return (
        Teacher(
            mean=np.linspace(-1, 1, 23).tolist(),
            variance=np.linspace(0.1, 2, 23).tolist(),
            epsilon=1e-8,
            clip=10.0,
            hidden=[32, 32],
            action_low=[-2.0] * 7,
            action_high=[2.0] * 7,
        )
        .eval()
        .requires_grad_(False)
    )


@pytest.fixture
def statistics():
    return StateStatistics(np.zeros(23), np.ones(23))
