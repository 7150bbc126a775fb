"""Students that runs begin with: of any origin, of the same sight, and to the end."""

import json

import pytest

from Common.Errors import BadFile, BadInput
from Common.Files import RESULTS, load_tensors, save_tensors
from Distillation.Datasets import describe
from Distillation.Export import export
from Distillation.Fine_tuning import check_source, find_source
from Distillation.Pusher import parse
from Distillation.Reports.Labels import label
from Distillation.Utils import task_of
from Models.Model_Pusher import SHIPPED_TEACHER, load_student
from tests.helpers import ONLINE, flags, metrics, pusher, pusher_cut_at, run_folder

STUDENTS = RESULTS / "Pusher" / "Students"


def check(path, *words, family="squashed"):
    """Compare a student's file with the run that a command line asks for."""
    job, _ = parse(["--PPD", *words])
    task = task_of(job)
    description = describe(job, task)
    description["render"] |= {"stack": job.student.stack}
    check_source(path, load_student(path), load_tensors(path, "student")["card"], description, family)


@pytest.mark.parametrize("name", [path.stem for path in sorted(STUDENTS.glob("*.pt"))])
def test_every_shipped_student_can_be_trained_further(name):
    path, origin = find_source(str(STUDENTS / f"{name}.pt"))
    assert label(origin["parent"]) != ""
    assert "scores" not in origin["parent"]
    check(path, "--mode", "ImpaalaMid")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--mode", "State"], "--mode ImpaalaMid would fit"),
        (["--mode", "ImpaalaMid", "--stack", "3", "--grid", "2", "2"], "--stack 4 --grid 4 8 would fit"),
        (["--mode", "ImpaalaMid", "--views", "small"], "--background on would fit"),
        (["--mode", "ImpaalaMid", "--proprioception", "none"], "--proprioception full would fit"),
        (["--mode", "ImpaalaMid", "--task", "Reacher", "--teacher", str(SHIPPED_TEACHER)], "--task Pusher would fit"),
    ],
)
def test_a_student_of_another_sight_is_refused_with_the_flags_that_fit(words, hint):
    with pytest.raises(BadInput, match=hint):
        check(STUDENTS / "DAgger.pt", *words)


def test_a_student_of_another_family_and_a_damaged_card_are_refused(tmp_path):
    with pytest.raises(BadInput, match="clipped"):
        check(STUDENTS / "DAgger.pt", "--mode", "ImpaalaMid", family="clipped")
    content = load_tensors(STUDENTS / "DAgger.pt", "student")
    for card in ({}, content["card"] | {"method": []}, content["card"] | {"render": 1}):
        save_tensors(tmp_path / "student.pt", "student", content | {"card": card})
        with pytest.raises(BadFile, match=r"student\.pt: its card"):
            find_source(str(tmp_path / "student.pt"))


def test_a_run_trained_further_by_a_schedule_and_a_critic_of_the_state_is_cut_and_resumed_exactly(finished, tmp_path):
    source = run_folder(finished[0])
    settings = ONLINE | {"start_from": source, "critic": "state", "critic_warmup": 3, "optimization_steps": 6}
    settings |= {"test_every": 6, "PPD_parameter": "5:0.1:adaptive@1000", "entropy_coefficient": "0.1:0:linear"}
    whole = flags("PPD", settings, results_dir=tmp_path / "whole")
    run = pusher(*whole)
    assert run.returncode == 0, run.stderr
    folder = run_folder(tmp_path / "whole")
    assert folder.name == "lambda5-0.1-adaptiveat1000_ImpaalaSmall_run0_from_lambda5_ImpaalaSmall_run0"
    rows = metrics(folder)
    numbers = [float(row["training/PPD_parameter"]) for row in rows[1:]]
    assert numbers[0] == 5 > numbers[-1]
    assert "training/entropy_coefficient" in rows[-1]
    returns = [row["test/ID/return"] for row in (metrics(source)[-1], rows[0], rows[-1])]
    assert returns[0] == returns[1] != returns[2]  # it begins as the finished run ended
    config = json.loads((folder / "config.json").read_text())
    assert config["parent"]["optimization_steps"] == 4
    assert "from PPD ImpaalaSmall updates 4" in config["label"]
    again = flags("PPD", settings, results_dir=tmp_path / "again")
    pusher_cut_at(tmp_path, 2, *again)
    resumed = pusher(*again, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(run_folder(tmp_path / "again")) == rows
    export(folder, tmp_path / "student.pt", None)
    exported = load_student(tmp_path / "student.pt")
    assert exported.training_inputs == ("PartialState", "Frame")
    assert not [name for name in exported.state_dict() if "critic" in name]
    best = load_student(folder / "checkpoints" / "best_ID.pt")
    assert best.critic_inputs == ("State",)
