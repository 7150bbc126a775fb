"""The teachers and students that come with the repository."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest

from Algorithm.Policies import open_policy, proof_error
from Algorithm.Test_model import evaluate
from Common.Files import RESULTS
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from tests.helpers import skip_without_package

TEACHERS, STUDENTS = (sorted(RESULTS.glob(f"*/{files}")) for files in ("Teacher/teacher.pt", "Students/*.pt"))
PLACE = "{0.parent.parent.name}-{0.stem}".format


@pytest.mark.parametrize("path", [*TEACHERS, *STUDENTS], ids=PLACE)
def test_it_plays_its_task(path):
    skip_without_package(TASKS[path.parent.parent.name])
    policy, _, task = open_policy(path)
    assert task.name == path.parent.parent.name
    task = dataclasses.replace(task, max_episode_steps=3)
    with closing(make_world(task, 1, num_workers=1, frames=bool(policy.images))) as world:
        episodes = evaluate(policy, world, task, [1900])
    assert np.isfinite(episodes.returns).all()
    assert list(episodes.lengths) == [3]


@pytest.mark.parametrize("path", TEACHERS, ids=PLACE)
def test_a_teacher_acts_as_what_it_was_made_of(path):
    assert proof_error(path) in (None, pytest.approx(0, abs=1e-5))
    assert path.stat().st_size < 300_000
