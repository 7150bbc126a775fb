import shutil
from contextlib import closing

import pytest

from Algorithm.CollectDataset import collect_dataset
from Algorithm.Dataset import open_dataset
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from tests.Algorithm.trainers import META, NOISE
from tests.helpers import small_teacher


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


@pytest.fixture(scope="session")
def five_episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected") / "dataset_500"
    with closing(make_world(TASKS["Pusher"], 3, 1)) as envs:
        collect_dataset(folder, envs, small_teacher(), 500, NOISE, META)
    return folder


@pytest.fixture
def dataset(five_episodes, tmp_path):
    """Five episodes, each test's own."""
    return open_dataset(shutil.copytree(five_episodes, tmp_path / "dataset_500"))
