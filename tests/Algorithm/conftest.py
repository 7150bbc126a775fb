import pytest

from Algorithm.CollectDataset import collect_dataset
from Algorithm.Dataset import open_dataset
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from tests.Algorithm.trainers import META, NOISE


@pytest.fixture
def env(task):
    """Two environments, new for each test."""
    env = make_world(task, 2, 1)
    yield env
    env.close()


@pytest.fixture(scope="module")
def envs():
    """Three environments."""
    envs = make_world(TASKS["Pusher"], 3, 1)
    yield envs
    envs.close()


@pytest.fixture
def dataset(envs, teacher, tmp_path):
    """Five episodes."""
    collect_dataset(tmp_path / "dataset_500", envs, teacher, 500, NOISE, META)
    return open_dataset(tmp_path / "dataset_500")
