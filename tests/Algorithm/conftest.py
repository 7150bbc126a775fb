import shutil
from contextlib import closing

import pytest

from Algorithm.CollectDataset import collect_dataset
from Algorithm.Utils import open_dataset
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_vector_env
from tests.Algorithm.trainers import META
from tests.helpers import small_teacher


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


@pytest.fixture(scope="session")
def five_episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected") / "dataset_500"
    with closing(make_vector_env(TASKS["Pusher"], 3, 1)) as envs:
        collect_dataset(folder, envs, small_teacher(), 500, 1.0, 0.5, META)
    return folder


@pytest.fixture
def dataset(five_episodes, tmp_path):
    """Five episodes, each test's own."""
    return open_dataset(shutil.copytree(five_episodes, tmp_path / "dataset_500"))
