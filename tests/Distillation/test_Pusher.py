"""Whole runs from the command line, and bad input."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from Algorithm.Teacher_source import whole_reference
from Distillation.Pusher import main, parse
from Distillation.Utils import JOBS
from Models.Model_Pusher import SHIPPED_TEACHER, load_student
from tests.helpers import (
    FIELDS,
    ONLINE,
    PICTURES,
    ROOT,
    TINY,
    TRIES,
    VALUES,
    Accepted,
    check,
    flags,
    metrics,
    outcome,
    pusher,
    pusher_cut_at,
    run_folder,
)


def test_a_tiny_run_leaves_the_promised_folder(finished):
    results, run = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    config = json.loads((folder / "config.json").read_text())
    assert config["optimization_steps"] == 4
    assert config["precision"] in ("fp32", "bf16")
    assert config["render"]["quality"] == "fast"
    assert len(config["teacher_sha256"]) == 64
    assert config["versions"]["torch"].startswith("2.")
    if (ROOT / ".git").is_dir():
        git = ["git", "rev-parse", "HEAD"]
        head = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert head.startswith(config["versions"]["commit"].removesuffix("-dirty"))
        assert len(config["versions"]["commit"]) >= 12
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
    for picture in ("videos/final_OD.mp4", "curve.png", "curve.svg", "page.html"):
        assert (folder / picture).stat().st_size > 10_000
    for picture in ("videos/final_OD.mp4", "curve.png", "page.html"):
        assert str(folder / picture) in run.stdout
    lines = run.stdout.splitlines()
    assert " ".join(lines[0].split()) == "PPD proximal policy distillation of teacher.pt into ImpaalaSmall, Pusher"
    assert str(folder) in lines[3]
    title = next(i for i, line in enumerate(lines) if line.split()[:4] == ["updates", "samples", "ID", "return"])
    assert max(map(len, lines[title : title + 5])) < 80
    assert lines[title + 1].split()[:3] == ["teacher", f"{float(rows[0]['test/ID/teacher_return']):.2f}", "1.000"]
    tests = [line.split()[:3] for line in lines[title + 2 : title + 5]]
    columns = ("x_axis/optimization_steps", "x_axis/samples_collected")
    assert tests == [[*(row[name] for name in columns), f"{float(row['test/ID/return']):.2f}"] for row in rows]
    assert [line.split()[0] for line in lines[title + 10 : title + 13]] == ["student", "teacher", "zero"]
    assert not run.stderr


def test_same_seed_same_metrics_and_a_cut_run_resumes_exactly(finished, tmp_path):
    results, _ = finished
    expected = metrics(results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0")
    again = [*TINY, "--results_dir", tmp_path, "--num_workers", 2]
    pusher_cut_at(tmp_path, 2, *again)
    resumed = pusher(*again, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(tmp_path / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0") == expected


def truncated_teacher(folder):
    path = folder / "truncated.pt"
    path.write_bytes(SHIPPED_TEACHER.read_bytes()[:9999])
    return path


def foreign_teacher(folder):
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pt")
    return folder / "foreign.pt"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_a_gpu_comes_to_its_end(tmp_path):
    run = pusher(*flags("PPD", ONLINE, device="auto", results_dir=tmp_path))
    assert run.returncode == 0, run.stderr
    (summary,) = tmp_path.rglob("summary.json")
    assert json.loads((summary.parent / "config.json").read_text())["device"] == "cuda:0"


SCRIPT = ROOT / "Distillation" / "Pusher.py"
BAD = {
    "no method": (["--mode", "State"], "required"),
    "two methods": (["--PPD", "--BC_phase"], "not allowed with"),
    "unknown mode": (["--PPD", "--mode", "Huge"], "ImpaalaMid"),
    "run_index": (["--PPD", "--run_index", "6"], "run_index"),
    "device": (["--PPD", "--device", "cuda:99"], "cpu"),
    "nonsense device": (["--PPD", "--device", "toaster"], "cpu"),
    "a flag of another method": (["--PPD", "--alpha", "0.6"], "BC_phase"),
    "negative alpha": (["--BC_phase", "--alpha", "-1"], "at least 0"),
    "alpha twice": (["--BC_phase", "--alpha", "0.5", "--mode_alpha", "linear"], "constant"),
    "a schedule that needs new samples": (["--BC_phase", "--mode_alpha", "dynamic_max"], "linear"),
    "a window of nothing": (["--PPD", "--window", "8"], "--memory gru"),
    "windows that do not fit": (["--PPD", "--memory", "gru", "--rollout_steps", "10"], "a multiple of window 16"),
    "priorities of sequences": (["--BC_phase", "--memory", "gru", "--alpha", "0.5"], "0 is needed"),
    "unknown dataset": (["--BC_phase", "--dataset", "20k"], "50k"),
    "no dataset": (["--BC_phase", "--dataset", "5k"], "--C_data --num_data 5000 collects"),
    "no such dataset": (
        ["--BC_phase", "--dataset", "5k", "--teacher_noise", "1"],
        "--num_data 5000 --teacher_noise 1 ",
    ),
    "no samples": (["--C_data", "--num_data", "0"], "at least 1"),
    "no parent": (["--Dagger_phase"], "--folder_Dagger"),
    "a parent that is not there": (["--Dagger_phase", "--folder_Dagger", "nowhere"], "nowhere"),
    "a parent's setting": (["--Dagger_phase", "--mode", "State"], "PPD"),
    "half of an odd batch": (
        ["--Dagger_phase", "--folder_Dagger", "x", "--sampling", "balanced", "--minibatch_size", "5"],
        "even",
    ),
    "eyes for the blind": (["--BC_phase", "--augment", "shift=2"], "students that see"),
    "a collection resumed": (["--C_data", "--num_data", "200", "--resume"], "continues"),
    "unknown flag": (["--PPD", "--lamda", "5"], "--lamda"),
    "abbreviated flag": (["--PPD", "--optim", "5"], "--optim"),
    "missing teacher": (["--PPD", "--teacher", "nowhere.pt"], "nowhere.pt"),
    "truncated teacher": (["--PPD", "--teacher", truncated_teacher], "truncated.pt"),
    "not a teacher": (["--PPD", "--teacher", foreign_teacher], "foreign.pt"),
    "no updates": (["--PPD", "--optimization_steps", "0"], "at least 1"),
    "infinite lambda": (["--PPD", "--PPD_parameter", "inf"], "finite"),
    "a path as a name": (["--PPD", "--run_name", "../elsewhere"], "run_name"),
    "no schedule": (["--PPD", "--PPD_parameter", "5:0.1"], "5:0.1:linear"),
    "a critic of the state for the state": (["--PPD", "--critic", "state"], "students that see"),
    "nothing but a warm-up": (["--PPD", "--optimization_steps", "9", "--critic_warmup", "9"], "fewer than"),
    "no student to begin with": (["--PPD", "--start_from", "nowhere.pt"], "nowhere.pt"),
    "a teacher to begin with": (["--PPD", "--start_from", SHIPPED_TEACHER], "a teacher; a student"),
    "a lone sample": (["--PPD", "--minibatch_size", "287"], "minibatch_size"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_status_2_and_nothing_written(case, tmp_path):
    arguments, hint = BAD[case]
    arguments = [argument(tmp_path) if callable(argument) else argument for argument in arguments]
    results = tmp_path / "results"
    status, errors = outcome(main, [*map(str, arguments), "--results_dir", str(results)])
    assert status == 2
    assert errors.count("\n") == 1, errors
    assert hint in errors
    assert not results.exists()


@pytest.mark.parametrize("what", ["--C_data", "--PPD"])
def test_a_folder_that_cannot_be_is_one_line(what):
    run = pusher(what, "--results_dir", SHIPPED_TEACHER)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert "Not a directory" in run.stderr


@pytest.mark.parametrize(("backend", "hint"), [("glfw", "OpenGL context"), ("foo", "egl")])
def test_no_gl_backend_is_one_line(tmp_path, backend, hint):
    environment = {"MUJOCO_GL": backend, "DISPLAY": ""}
    words = [sys.executable, SCRIPT, "--PPD", "--mode", "ImpaalaSmall", "--results_dir", tmp_path / "results"]
    run = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1, run.stderr
    assert hint in run.stderr
    assert not (tmp_path / "results").exists()


def test_without_a_renderer_a_student_of_the_state_lacks_only_its_video(tmp_path):
    settings = ONLINE | {"mode": "State", "results_dir": tmp_path}
    run = pusher(*flags("PPD", settings), env=os.environ | {"MUJOCO_GL": "disable"}, without=PICTURES[1:])
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert "the video final_OD.mp4 failed, and the run goes on without: MUJOCO_GL=disable cannot render" in run.stderr
    folder = run_folder(tmp_path)
    assert (folder / "summary.json").is_file()
    assert not list(folder.glob("videos/*"))
    assert "video" not in run.stdout
    played = pusher(folder, "--seeds", "1900", script="Distillation/Play.py", env=os.environ | {"MUJOCO_GL": "disable"})
    assert (played.returncode, played.stderr) == (0, "")


def test_a_run_is_neither_overwritten_nor_continued_as_another(finished):
    results, _ = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    before = (folder / "metrics.csv").read_bytes()
    for extra, hint in (
        ([], "--overwrite"),
        (["--resume", "--clip", "0.2"], "clip is 0.3, not 0.2"),
        (["--resume", "--overwrite"], "give one"),
    ):
        run = pusher(*TINY, "--results_dir", results, *extra)
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1, run.stderr
        assert hint in run.stderr
        assert ("--start_from" in run.stderr) == ("--overwrite" not in extra)  # how a finished run is trained further
    assert (folder / "metrics.csv").read_bytes() == before


def test_resuming_begins_where_nothing_is_and_refuses_what_is_no_run(tmp_path, monkeypatch):
    def accept(*_, **__):
        raise Accepted

    monkeypatch.setattr("Distillation.Preparation.load", accept)
    words = [*flags("PPD", ONLINE, mode="State", run_name="x", results_dir=tmp_path), "--resume"]
    folder = tmp_path / "Pusher" / "PPD" / "x"
    for _ in range(2):
        assert outcome(main, words) == (None, "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json.tmp").touch()  # of a run that was killed as it began
    (folder / "thesis.txt").touch()
    status, errors = outcome(main, words)
    assert (status, errors.count("\n")) == (2, 1)
    assert "something else than a run" in errors


def test_a_finished_run_resumed_says_so_and_keeps_its_figures(finished):
    results, _ = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    before = (folder / "metrics.csv").read_bytes()
    run = pusher(*TINY, "--results_dir", results, "--resume")
    assert run.returncode == 0
    assert f"finished; --PPD --start_from {folder} trains" in run.stdout
    assert (folder / "metrics.csv").read_bytes() == before


@st.composite
def command_lines(draw):
    method = draw(st.sampled_from(sorted(JOBS)))
    names = sorted({name for fields in FIELDS.values() for name in fields} | {"resume", "lamda"})
    own = sorted(FIELDS[method])
    given = draw(st.lists(st.tuples(st.sampled_from(own) | st.sampled_from(names), VALUES), min_size=1, max_size=3))
    return [f"--{method}", *(word for name, value in given for word in (f"--{name}", value))]


def test_any_command_line_is_understood_or_refused_in_one_line():
    bad = set()

    @settings(max_examples=600, **TRIES)
    @given(command_lines())
    def tries(words):
        status, errors = outcome(parse, words)
        check(status, errors)
        if status == 2:
            bad.add(tuple(words))
            return
        job, _ = parse(words)
        given = job.flat()
        for name, value in zip(words[1::2], words[2::2]):
            if words[1::2].count(name) == 1 and isinstance(given[name[2:]], str):
                expected = whole_reference(value) if name == "--teacher" else value
                assert given[name[2:]] == expected  # nothing is accepted and ignored

    tries()
    assert len(bad) >= 200
