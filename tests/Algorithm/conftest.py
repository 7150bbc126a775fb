import pytest

from Algorithm.CollectDataset import collect_dataset
from Algorithm.Dataset import open_dataset
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_vector_env
from tests.Algorithm.trainers import META


@pytest.fixture
def env(task):
    """Two environments, new for each test."""
    env = make_vector_env(task, 2, 1, seed=0)
    yield env
    env.close()


@pytest.fixture(scope="module")
def envs():
    """Three environments."""
    envs = make_vector_env(TASKS["Pusher"], 3, 1)
    yield envs
    envs.close()


@pytest.fixture
def dataset(envs, teacher, tmp_path):
    """Five episodes."""
    collect_dataset(tmp_path / "dataset_500", envs, teacher, 500, 1.0, 0.5, META)
    return open_dataset(tmp_path / "dataset_500")
