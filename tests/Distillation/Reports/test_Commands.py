"""The commands of a card are those of its run."""

import shlex

import pytest

from Algorithm.Policies import load_policy
from Common.Files import RESULTS, plain
from Common.Settings import differences
from Distillation.Pusher import parse
from Distillation.Reports.Commands import commands
from Distillation.Reports.Labels import RESOLVED, complete
from Distillation.Utils import OnPolicyExperiment, StudentDistillationExperiment, run_folder
from tests.helpers import ROOT

STUDENTS = sorted(RESULTS.glob("*/Students/*.pt"))


def job_of(command):
    python, script, *words = shlex.split(command)
    assert (python, script) == ("python", "Distillation/Pusher.py")
    job, _ = parse(words)
    return job


def check(card, job):
    left_out = {"device", *job.named("place", "machine")}
    wanted = {key: value for key, value in complete(card).items() if key in job.flags() and key not in left_out}
    assert not differences(job.flat() | {"precision": RESOLVED["precision"]}, wanted)


@pytest.mark.parametrize("path", STUDENTS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_shipped_student_is_trained_by_the_commands_of_its_card(path):
    _, card = load_policy(path)
    if "optimization_steps" not in card:  # an older one
        assert commands(card) == []
        return
    *before, last = (job_of(command) for command in commands(card))
    check(card, last)
    if "parent" in card:
        check(card["parent"], *before)


def test_a_student_that_was_trained_further_names_the_folder_of_its_first_one():
    first = plain(StudentDistillationExperiment.of({"mode": "ImpaalaMid", "run_index": 1, "precision": "bf16"}).flat())
    card = first | {"method": "PPD", "parent": first | {"method": "Sdistillation"}, "optimization_steps": 7}
    before, last = (job_of(command) for command in commands(card))
    assert isinstance(last, OnPolicyExperiment)
    assert last.method.optimization_steps == 7
    assert ROOT / last.start.start_from == run_folder(before)
    check(card["parent"], before)


@pytest.mark.parametrize("card", [{"method": "teacher"}, {"method": "PPD", "mode": "State"}])
def test_there_are_none_where_a_card_does_not_say(card):
    assert commands(card) == []
    assert commands({"method": "PPD", "optimization_steps": 7, "parent": card}) == []
