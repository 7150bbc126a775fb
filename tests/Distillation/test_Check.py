"""A look before the leap finds a planted fault of each kind, and a sound task without any."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from Algorithm import Probe
from Common.Files import load_tensors, read_json, save_tensors
from Distillation import Check, Inspection
from Distillation.Inspection import Report, inspect_camera, inspect_original, inspect_returns, inspect_statistics
from Enviroment.Tasks import TASKS, Camera
from Enviroment.Utils import make_world
from Models.Memory import FrameStack
from Models.Model_Pusher import SHIPPED_TEACHER, Teacher, get_Teacher_model

REACHER, PUSHER = TASKS["Reacher"], TASKS["Pusher"]
STACK = FrameStack(2, 1)


@pytest.fixture(scope="module")
def pusher_world():
    world = make_world(PUSHER, 8, 1)
    yield world
    world.close()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(Inspection, "EPISODES", range(2000, 2002))
    monkeypatch.setattr(Inspection, "NUM_ENVS", 8)
    monkeypatch.setattr(Inspection, "STEPS", 40)
    monkeypatch.setattr(Probe, "UPDATES", 5)
    monkeypatch.setattr(Inspection, "MODE", "ImpaalaSmall")
    monkeypatch.setattr(Inspection, "SECONDS", 0.1)


def changed(arguments, **changes):
    torch.manual_seed(0)
    teacher = Teacher(**arguments | changes)
    return teacher.eval().requires_grad_(False)


def proven(path):
    """A teacher of Tanh layers, and the record of what its original did."""
    shipped = get_Teacher_model()
    teacher = changed(shipped.arguments, activation="Tanh")
    states = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (64, 23)).astype(np.float32))
    proof = {"states": states, "actions": torch.from_numpy(teacher.act({"State": states})), "algorithm": "SAC"}
    teacher.save(path, "Pusher", proof=proof | {"original_return": -50.0, "original_return_std": 5.0})
    return teacher


def test_tanh_read_as_relu_is_found(tmp_path):
    path = tmp_path / "teacher.pt"
    proven(path)
    report = Report({"returns": {"teacher": {"return": -50.0, "return_std": 5.0}}})
    inspect_original(report, path)
    assert report.problems == []
    content = load_tensors(path, "teacher")
    content["arguments"]["activation"] = "ReLU"
    save_tensors(path, "teacher", content)
    inspect_original(report, path)
    (problem,) = report.problems
    assert "its file has another activation, normalization or weights; convert it anew by SaveWeights.py" in problem
    report.facts["returns"]["teacher"]["return"] = -90.0
    report.problems.clear()
    proven(path)
    inspect_original(report, path)
    assert "the teacher's return is -90.0, and its original's was -50.0" in report.problems[0]


def test_another_teachers_statistics_are_found(pusher_world):
    teacher = get_Teacher_model()
    watched = Probe.watch(pusher_world, teacher, 30, 2000)
    report = Report()
    inspect_statistics(report, teacher, watched)
    assert report.problems == []
    wrong = teacher.arguments | {"mean": [m + 50 for m in teacher.arguments["mean"]]}
    inspect_statistics(report, changed(wrong), watched)
    (problem,) = report.problems
    assert "the teacher's statistics do not fit the states it visits" in problem
    assert "--statistics" in problem


def test_a_teacher_that_is_no_better_than_none_is_found(pusher_world, quick):
    report = Report({"environment": {}})
    inspect_returns(report, PUSHER, pusher_world, changed(get_Teacher_model().arguments))
    assert "is no better than" in report.problems[0]
    report.problems.clear()
    inspect_returns(report, PUSHER, pusher_world, get_Teacher_model())
    assert report.problems == []
    assert report.facts["returns"]["teacher"]["return"] > report.facts["returns"]["zero"]["return"]


@pytest.mark.parametrize(
    ("camera", "problem"),
    [
        (Camera(2.5, (0.0, 50.0, 30.0), 270.0, 90.0), "the camera is blind: its picture never changes"),
        (
            Camera(2.5, (0.0, 0.2, 0.0), 270.0, -90.0, rows=(70, 230), columns=(190, 410)),
            "the frames hardly tell state entries 17-18",
        ),
    ],
)
def test_a_camera_that_does_not_show_the_object_is_found(camera, problem, quick, tmp_path):
    task = dataclasses.replace(PUSHER, cameras={"Frame": camera})
    teacher = get_Teacher_model()
    world = make_world(task, 8, 1)
    watched = Probe.watch(world, teacher, 40, 2000)
    world.close()
    unseen = Inspection.draw_sheet(task, teacher, STACK, tmp_path / "sheet.png")
    report = Report()
    inspect_camera(report, task, watched, STACK, unseen)
    assert problem in report.problems[0]
    assert unseen["object"] == 1.0
    assert "hardly" not in problem or "out of the picture or hidden: " in report.problems[0]


def test_a_probe_reads_what_the_frames_show(pusher_world, monkeypatch):
    monkeypatch.setattr(Probe, "UPDATES", 60)
    watched = Probe.watch(pusher_world, get_Teacher_model(), 50, 2000)
    found = Probe.read_states(watched, "Frame", [17, 18, 20], FrameStack(1, 1))
    assert found.keys() == {17, 18}, "the goal does not move"
    assert min(found.values()) > 0.5
    stacks = watched.stacks("Frame", torch.tensor([5]), torch.tensor([3]), FrameStack(3, 2))
    assert torch.equal(stacks[0], watched.frames["Frame"][[1, 3, 5], 3])


def test_the_command_looks_at_a_task_without_a_teacher_and_at_one_with(quick, tmp_path, capsys, monkeypatch):
    Check.main(["--task", "Swimmer", "--output", str(tmp_path / "Swimmer")])
    said = capsys.readouterr().out
    assert "there is no teacher yet: Train_Teacher_Pusher/Mujoco_main.py --task Swimmer trains one" in said
    assert "resuming is exact" in said
    assert (tmp_path / "Swimmer" / "check.png").stat().st_size > 1000
    Check.main(["--output", str(tmp_path / "Pusher"), "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert findings == read_json(tmp_path / "Pusher" / "check.json")
    assert set(findings["time"]["hours"]) == {"PPD", "Sdistillation", "Tdistillation", "BC_phase", "Dagger_phase"}
    assert findings["original"] == {"recorded": False}
    (tmp_path / "file").touch()
    for words in (["--teacher", "nothing.pt"], ["--output", str(tmp_path / "file")]):
        with pytest.raises(SystemExit):
            Check.main(words)
        error = capsys.readouterr().err
        assert words[1] in error
        assert error.count("\n") == 1  # before it says how long it takes


def test_a_task_that_was_never_checked_is_warned_of(tmp_path, monkeypatch):
    assert Check.unchecked(PUSHER, None) == ""
    assert Check.unchecked(PUSHER, str(SHIPPED_TEACHER)) == ""
    moved = dataclasses.replace(PUSHER, cameras={"Frame": dataclasses.replace(PUSHER.cameras["Frame"], distance=3.0)})
    assert "Pusher was never checked with this camera and teacher; in two minutes" in Check.unchecked(moved, None)
    assert "--task Pusher --cameras side --frames rgb tells" in Check.unchecked(PUSHER.seen_by(("side",), "rgb"), None)
