"""What a run survives, and what it says when it cannot."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from Algorithm.Checkpoint import Checkpoint
from Common.Errors import BadFile, BadInput
from Common.Files import load_tensors, locked, save_tensors
from Distillation import Experiment
from Distillation.Preparation import check_settings
from Distillation.Pusher import main
from Distillation.Utils import AGGREGATED
from Models.Model_Pusher import SHIPPED_TEACHER, load_student
from tests import warm
from tests.helpers import (
    ONLINE,
    PICTURES,
    ROOT,
    Accepted,
    flags,
    metrics,
    outcome,
    pusher,
    pusher_cut_at,
    run_folder,
    shared,
    until,
    weights,
)

STATE = {**ONLINE, "mode": "State", "optimization_steps": 400, "test_every": 400, "num_workers": 2, "video_every": 0}


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    def make(results):
        run = pusher(*flags("PPD", STATE, results_dir=results))
        assert run.returncode == 0, run.stderr

    return run_folder(shared(tmp_path_factory, "unbroken", make)[0])


@pytest.fixture(scope="session")
def cut(tmp_path_factory):
    def make(results):
        pusher_cut_at(results, 200, *flags("PPD", STATE, results_dir=results))

    return run_folder(shared(tmp_path_factory, "cut", make)[0])


def test_a_run_that_is_told_to_stop_saves_and_goes_on_exactly(unbroken, tmp_path):
    """SIGUSR1, then SIGTERM, to the run and its workers, as batch systems send them; then Ctrl-C; then to the end."""
    command = [sys.executable, ROOT / "Distillation/Pusher.py", *flags("PPD", STATE, results_dir=tmp_path)]
    for number, extra in ((signal.SIGUSR1, []), (signal.SIGTERM, ["--resume"]), (signal.SIGINT, ["--resume"])):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        run = warm.Popen([*command, *extra], text=True, start_new_session=True, without=PICTURES, **pipes)
        rows = tmp_path / "Pusher" / "PPD" / "lambda5_State_run0" / "metrics.csv"
        began = len(rows.read_text().splitlines()) if rows.exists() else 1
        until(lambda: rows.exists() and len(rows.read_text().splitlines()) > began + 3)  # noqa: B023
        os.killpg(run.pid, number)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 128 + number, errors
        assert "stopping after this step" in errors.splitlines()[0]
        assert "saved at update" in errors.splitlines()[-1]
        saved = Checkpoint.load(run_folder(tmp_path) / "checkpoints" / "last.pt")
        assert saved.rows == len(rows.read_text().splitlines()) - 1
        assert 0 < saved.updates < 400
    resumed = pusher(*flags("PPD", STATE, results_dir=tmp_path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(run_folder(tmp_path)) == metrics(unbroken)
    ends = [weights(folder) for folder in (run_folder(tmp_path), unbroken)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[1])


@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_what_is_not_finite_stops_the_run_and_leaves_the_last_good_state(rate, tmp_path):
    """In the first rollout after it, or in the very update, whose loss was finite."""
    settings = STATE | {"learning_rate": rate, "checkpoint_every": 0, "minibatch_size": 16}
    run = pusher(*flags("PPD", settings, results_dir=tmp_path), "--quiet")
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1, run.stderr
    assert "not finite in updates" in run.stderr or "is nan in updates" in run.stderr
    last = run_folder(tmp_path) / "checkpoints" / "last.pt"
    assert str(last) in run.stderr
    kept = Checkpoint.load(last)
    assert all(value.isfinite().all() for value in kept.trainer["student"].values())
    load_student(last.with_name("best_ID.pt"))


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(cut, tmp_path):
    folder = shutil.copytree(cut, tmp_path / "Pusher" / "PPD" / cut.name)
    last = folder / "checkpoints" / "last.pt"
    before = last.read_bytes()
    command = flags("PPD", STATE, results_dir=tmp_path, checkpoint_every=0)
    run = pusher(*command, "--resume", file_size=len(before) // 2)
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert "File too large" in run.stderr
    assert last.read_bytes() == before
    assert sorted(path.name for path in last.parent.iterdir()) == ["best_ID.pt", "last.pt"]


def test_one_folder_has_one_writer(cut, tmp_path):
    folder = shutil.copytree(cut, tmp_path / "Pusher" / "PPD" / cut.name)
    before = (folder / "metrics.csv").read_bytes()
    with locked(folder):
        for extra in ("--resume", "--overwrite"):
            run = pusher(*flags("PPD", STATE, results_dir=tmp_path), extra)
            assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
            assert "another process" in run.stderr
        with pytest.raises(BadFile), locked(folder):
            pass
    assert (folder / "metrics.csv").read_bytes() == before
    assert not list(folder.parent.glob(".*"))


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(cut, tmp_path):
    folder = shutil.copytree(cut, tmp_path / "Pusher" / "PPD" / cut.name)
    last = folder / "checkpoints" / "last.pt"
    good = load_tensors(last, "checkpoint")
    command = [*flags("PPD", STATE, results_dir=tmp_path, num_workers=1), "--resume"]
    (rank,) = good["trainer"]["ranks"]

    def arguments(**changes):
        return {**good["student"], "arguments": good["student"]["arguments"] | changes}

    for change, hint in (
        ({"settings": good["settings"] | {"PPD_parameter": 1.0}}, "PPD_parameter is 1.0, not 5"),
        ({"settings": good["settings"] | {"teacher_sha256": "00"}}, "teacher_sha256"),
        ({"student": arguments(hidden=64)}, "hidden is 64, not 128"),
        ({"trainer": good["trainer"] | {"ranks": [rank | {"environments": rank["environments"][:1]}]}}, "snapshots"),
        ({"rows": good["rows"] + 1}, "whole rows"),
        ({"rows_crc32": 1}, "not those of the checkpoint"),
        ({"elapsed_s": "long"}, "elapsed_s"),
        ({"version": 99}, "version 99"),
        ({"format": "student"}, "student file"),
    ):
        content = {key: value for key, value in (good | change).items() if key not in ("format", "version")}
        save_tensors(last, "checkpoint", content)
        if change.keys() & {"format", "version"}:
            torch.save(good | change, last)
        run = pusher(*command)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert hint in run.stderr


def test_a_run_that_was_cut_before_anything_was_saved_or_after_its_figures_is_made_up_for(cut, unbroken, tmp_path):
    begun = shutil.copytree(cut, tmp_path / "Pusher" / "PPD" / cut.name)
    (begun / "checkpoints" / "last.pt").unlink()
    (begun / "metrics.csv").unlink()
    run = pusher(*flags("PPD", STATE, results_dir=tmp_path), "--resume")
    assert run.returncode == 0, run.stderr
    assert metrics(begun) == metrics(unbroken)
    (begun / "page.html").unlink()  # it comes last
    assert not (begun / "curve.png").exists()
    run = pusher(*flags("PPD", STATE, results_dir=tmp_path), "--resume", without=PICTURES[:1])
    assert run.returncode == 0, run.stderr
    assert (begun / "page.html").is_file()
    assert (begun / "curve.png").is_file()
    (begun / AGGREGATED).mkdir()  # a kill after the page leaves it
    assert outcome(main, [*flags("PPD", STATE, results_dir=tmp_path), "--resume"]) == (0, "")
    assert not (begun / AGGREGATED).exists()


def test_a_run_goes_on_where_auto_is_something_else_and_on_another_gpu(cut, tmp_path, monkeypatch):
    def accept(*_, **__):
        raise Accepted

    folder = shutil.copytree(cut, tmp_path / "Pusher" / "PPD" / cut.name)
    checkpoint = Checkpoint.load(folder / "checkpoints" / "last.pt")
    other = {"bf16": "fp32", "fp32": "bf16"}[checkpoint.settings["precision"]]
    words = [*flags("PPD", STATE | {"device": "auto", "num_workers": 1}, results_dir=tmp_path), "--resume"]
    with monkeypatch.context() as machine:
        machine.setattr(Experiment, "resolve_precision", lambda name, _: other if name == "auto" else name)
        machine.setattr(Experiment, "resolve_device", lambda name: torch.device("cuda:0" if name == "auto" else name))
        machine.setattr("Algorithm.Training.stop_requests", accept)
        assert outcome(main, words) == (None, "")
        status, errors = outcome(main, [*words, "--precision", other])
    assert (status, errors.count("\n")) == (2, 1)
    assert "precision is" in errors
    began = replace(checkpoint, settings=checkpoint.settings | {"device": "cuda:1"})
    check_settings(folder, began, checkpoint.settings | {"device": "cuda:0"}, set())
    with pytest.raises(BadInput, match='device is "cuda", not "cpu"'):
        check_settings(folder, began, checkpoint.settings, set())
    replace(checkpoint, settings=checkpoint.settings | {"precision": [1]}).save(folder / "checkpoints" / "last.pt")
    status, errors = outcome(main, [*words, "--device", "cpu"])
    assert (status, errors.count("\n")) == (2, 1)
    assert "last.pt: damaged: its precision" in errors


def test_a_teacher_that_does_not_fit_is_refused(tmp_path):
    teacher = load_tensors(SHIPPED_TEACHER, "teacher")
    reacher = teacher | {"task": "Reacher"}
    torch.save(reacher, tmp_path / "reacher.pt")
    narrow = teacher["arguments"] | {"action_high": [1.0] * 7}
    torch.save(teacher | {"arguments": narrow}, tmp_path / "narrow.pt")
    spoilt = {name: value * float("nan") for name, value in teacher["weights"].items()}
    torch.save(teacher | {"weights": spoilt}, tmp_path / "spoilt.pt")
    for name, hint in (("reacher", "a teacher of Reacher"), ("narrow", "action is"), ("spoilt", "not finite")):
        run = pusher("--PPD", "--teacher", tmp_path / f"{name}.pt", "--results_dir", tmp_path / "results")
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert hint in run.stderr
    run = pusher(tmp_path / "reacher.pt", script="Distillation/Play.py")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert "does not fit Reacher: State is [23], not [10]" in run.stderr
