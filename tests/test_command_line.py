import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from Models.Model_Pusher import SHIPPED_TEACHER, load_student

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    "--PPD",
    "--mode",
    "ImpaalaSmall",
    "--optimization_steps",
    "4",
    "--test_every",
    "2",
    "--episodes",
    "1",
    "--num_envs",
    "2",
    "--num_workers",
    "1",
    "--rollout_steps",
    "8",
    "--minibatch_size",
    "8",
    "--epochs",
    "1",
    "--device",
    "cpu",
    "--wandb_mode",
    "disabled",
]


def pusher(*arguments, cwd=ROOT, env=None, script="Distillation/Pusher.py"):
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=280,
    )


def metrics(folder):
    """The rows without what no two runs share: how long things took."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    run = pusher(*TINY, "--results_dir", results, cwd=results)  # from a folder that is not the repository's
    assert run.returncode == 0, run.stderr
    return results, run


def test_a_tiny_run_leaves_the_promised_folder(finished):
    results, run = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    config = json.loads((folder / "config.json").read_text())
    assert config["optimization_steps"] == 4
    assert config["precision"] in ("fp32", "bf16")
    assert config["render"]["quality"] == "fast"
    assert len(config["teacher_sha256"]) == 64
    assert config["versions"]["torch"].startswith("2.")
    rows = metrics(folder)
    assert [row["x_axis/optimization_steps"] for row in rows] == ["0", "2", "4"]
    assert [row["x_axis/samples_collected"] for row in rows] == ["0", "16", "32"]
    for part in ("ID", "OD"):
        for name in ("return", "normalized_return", "success", "action_accuracy", "entropy", "teacher_return"):
            assert math.isfinite(float(rows[-1][f"test/{part}/{name}"]))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["OD"]["student"]["return"] == float(rows[-1]["test/OD/return"])
    assert summary["OD"]["zero"]["normalized_return"] == 0
    assert summary["OD"]["teacher"]["normalized_return"] == 1
    assert load_student(folder / "checkpoints" / "best_ID.pt").inputs == ("PartialState", "Frame")
    torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    for picture in ("videos/final_OD.mp4", "curve.png"):
        assert (folder / picture).stat().st_size > 10_000
        assert str(folder / picture) in run.stdout
    for word in ("student", "teacher", "zero", "normalized", "success"):
        assert word in run.stdout


def test_same_seed_same_metrics_and_a_cut_run_resumes_exactly(finished, tmp_path):
    results, _ = finished
    expected = metrics(results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0")
    shorter = [*TINY, "--results_dir", tmp_path, "--optimization_steps", 2]
    assert pusher(*shorter).returncode == 0
    resumed = pusher(*TINY, "--results_dir", tmp_path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(tmp_path / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0") == expected


def test_play_scores_students_checkpoints_and_teachers(finished, tmp_path):
    folder = finished[0] / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    summary = json.loads((folder / "summary.json").read_text())
    video = tmp_path / "video.mp4"
    for file in ("last.pt", "best_ID.pt"):
        options = ["--seeds", "1900", "--json", "--device", "cpu", "--num_workers", 1, "--video", video]
        play = pusher(folder / "checkpoints" / file, *options, script="Distillation/Play.py")
        assert play.returncode == 0, play.stderr
        report = json.loads(play.stdout)
        assert report["teacher"]["return"] == pytest.approx(summary["OD"]["teacher"]["return"], rel=1e-4)
        if file == "last.pt":
            assert report["policy"]["return"] == pytest.approx(summary["OD"]["student"]["return"], rel=1e-3)
    assert video.stat().st_size > 10_000
    play = pusher(SHIPPED_TEACHER, "--seeds", "1900-1903", "--device", "cpu", script="Distillation/Play.py")
    assert play.returncode == 0
    assert "4 episodes" in play.stdout


def truncated_teacher(folder):
    path = folder / "truncated.pt"
    path.write_bytes(SHIPPED_TEACHER.read_bytes()[:9999])
    return path


def foreign_teacher(folder):
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pt")
    return folder / "foreign.pt"


BAD = {
    "no method": (["--mode", "State"], "required"),
    "two methods": (["--PPD", "--BC_phase"], "not allowed with"),
    "unknown mode": (["--PPD", "--mode", "Huge"], "ImpaalaMid"),
    "run_index": (["--PPD", "--run_index", "6"], "run_index"),
    "device": (["--PPD", "--device", "cuda:99"], "cpu"),
    "nonsense device": (["--PPD", "--device", "toaster"], "cpu"),
    "unknown flag": (["--PPD", "--lamda", "5"], "--lamda"),
    "abbreviated flag": (["--PPD", "--optim", "5"], "--optim"),
    "missing teacher": (["--PPD", "--teacher", "nowhere.pt"], "nowhere.pt"),
    "truncated teacher": (["--PPD", "--teacher", truncated_teacher], "truncated.pt"),
    "not a teacher": (["--PPD", "--teacher", foreign_teacher], "foreign.pt"),
    "nothing to resume": (["--PPD", "--resume"], "nothing to resume"),
    "no updates": (["--PPD", "--optimization_steps", "0"], "at least 1"),
    "infinite lambda": (["--PPD", "--PPD_parameter", "inf"], "finite"),
    "a path as a name": (["--PPD", "--run_name", "../elsewhere"], "run_name"),
    "a lone sample": (["--PPD", "--minibatch_size", "1151"], "minibatch_size"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_status_2_and_nothing_written(case, tmp_path):
    arguments, hint = BAD[case]
    arguments = [argument(tmp_path) if callable(argument) else argument for argument in arguments]
    results = tmp_path / "results"
    run = pusher(*arguments, "--results_dir", results)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1, run.stderr
    assert hint in run.stderr
    assert not results.exists()


@pytest.mark.parametrize(("backend", "mode", "hint"), [("glfw", "ImpaalaSmall", "libegl1"), ("foo", "State", "egl")])
def test_no_gl_backend_is_one_line(tmp_path, backend, mode, hint):
    environment = {"MUJOCO_GL": backend, "DISPLAY": ""}
    run = pusher("--PPD", "--mode", mode, "--results_dir", tmp_path / "results", env=environment)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1, run.stderr
    assert hint in run.stderr
    assert not (tmp_path / "results").exists()


def test_a_run_is_neither_overwritten_nor_continued_as_another(finished):
    results, _ = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    before = (folder / "metrics.csv").read_bytes()
    for extra, hint in (
        ([], "--overwrite"),
        (["--resume", "--clip", "0.2"], "clip was 0.3"),
        (["--resume", "--overwrite"], "give one"),
    ):
        run = pusher(*TINY, "--results_dir", results, *extra)
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1, run.stderr
        assert hint in run.stderr
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_finished_run_resumed_says_so_and_keeps_its_figures(finished):
    results, _ = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    before = (folder / "metrics.csv").read_bytes()
    run = pusher(*TINY, "--results_dir", results, "--resume")
    assert run.returncode == 0
    assert "finished" in run.stdout
    assert (folder / "metrics.csv").read_bytes() == before


def test_the_plain_scripts_run_from_their_own_folder(tmp_path):
    run = subprocess.run(
        [sys.executable, "Mujoco_main.py", "--help"],
        cwd=ROOT / "Train_Teacher_Pusher",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0
    assert "--total-timesteps" in run.stdout


def test_a_tiny_teacher_trains_resumes_is_taken_over_and_tested(tmp_path):
    tiny = [
        "--num-envs",
        "2",
        "--gradient-steps",
        "1",
        "--hidden",
        "16",
        "--batch-size",
        "16",
        "--learning-starts",
        "40",
        "--buffer-size",
        "1000",
        "--eval-freq",
        "100",
        "--checkpoint-freq",
        "100",
        "--device",
        "cpu",
        "--wandb_mode",
        "disabled",
    ]
    train, output = "Train_Teacher_Pusher/Mujoco_main.py", ["--results-dir", tmp_path]
    run = pusher("--total-timesteps", 200, *tiny, *output, script=train)
    assert run.returncode == 0, run.stderr
    refused = pusher("--total-timesteps", 200, *tiny, *output, script=train)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    run = pusher("--total-timesteps", 400, *tiny, *output, "--resume", script=train)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "sac"
    with (folder / "metrics.csv").open() as file:
        steps = [int(row["timesteps"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400
    taken = pusher(folder / "best.zip", "--output", tmp_path / "t.pt", script="Train_Teacher_Pusher/SaveWeights.py")
    assert taken.returncode == 0, taken.stderr
    options = ["--seeds", "1900-1901", "--video", tmp_path / "t.mp4"]
    tested = pusher(tmp_path / "t.pt", *options, script="Train_Teacher_Pusher/Test_Model.py")
    assert tested.returncode == 0, tested.stderr
    assert "success" in tested.stdout
    assert (tmp_path / "t.mp4").stat().st_size > 10_000
    missing = pusher(tmp_path / "none.zip", script="Train_Teacher_Pusher/SaveWeights.py")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
