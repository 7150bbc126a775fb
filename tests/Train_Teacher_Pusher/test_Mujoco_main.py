"""The teacher's training from its command line, and what becomes of it."""

import csv
import signal
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

import Train_Teacher_Pusher.Mujoco_main as mujoco_main
from tests import warm
from tests.helpers import ROOT, TRIES, VALUES, byte_code, check, outcome, pusher
from Train_Teacher_Pusher.callbacks import finish_checkpoint


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
    ]
    tiny += ["--eval-freq", "100", "--checkpoint-freq", "100", "--device", "cpu", "--wandb_mode", "disabled"]
    train, output = "Train_Teacher_Pusher/Mujoco_main.py", ["--results-dir", tmp_path]
    run = pusher("--total-timesteps", 200, *tiny, *output, script=train)
    assert run.returncode == 0, run.stderr
    refused = pusher("--total-timesteps", 200, *tiny, *output, script=train)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    run = pusher("--total-timesteps", 400, *tiny, *output, "--resume", script=train)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "sac"
    assert byte_code(folder / "last.zip") == byte_code(folder / "best.zip") == []
    with (folder / "metrics.csv").open() as file:
        steps = [int(row["timesteps"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400
    command = [sys.executable, ROOT / train, "--total-timesteps", "100000", *tiny, *map(str, output), "--resume"]
    endless = warm.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while "timesteps 500" not in endless.stdout.readline():
        assert endless.poll() is None
    endless.send_signal(signal.SIGTERM)
    said, _ = endless.communicate(timeout=60)
    assert endless.returncode == 143, said
    assert "stopped and saved at update" in said
    taken = pusher(folder / "best.zip", "--output", tmp_path / "t.pt", script="Train_Teacher_Pusher/SaveWeights.py")
    assert taken.returncode == 0, taken.stderr
    options = ["--seeds", "1900", "--video", tmp_path / "t.mp4"]
    tested = pusher(tmp_path / "t.pt", *options, script="Train_Teacher_Pusher/Test_Model.py")
    assert tested.returncode == 0, tested.stderr
    assert "success" in tested.stdout
    assert (tmp_path / "t.mp4").stat().st_size > 10_000
    missing = pusher(tmp_path / "none.zip", script="Train_Teacher_Pusher/SaveWeights.py")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    # Killed while a checkpoint was replaced: its files are of one moment all the same. Damaged: one line.
    for name in ("last.zip", "last_replay.pkl"):
        (folder / name).rename(folder / f"writing_{name}")
    whole = (folder / "last_vecnormalize.pkl").read_bytes(), (folder / "writing_last.zip").read_bytes()
    finish_checkpoint(folder, "last")
    assert not list(folder.glob("writing_*"))
    assert ((folder / "last_vecnormalize.pkl").read_bytes(), (folder / "last.zip").read_bytes()) == whole
    for name in ("writing_last_vecnormalize.pkl", "writing_last.zip"):  # killed before: of no account
        (folder / name).write_bytes(b"half")
    finish_checkpoint(folder, "last")
    assert (folder / "last.zip").read_bytes() == whole[1]
    for name in ("last_replay.pkl", "last_vecnormalize.pkl", "last.zip"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        resumed = pusher("--total-timesteps", 900, *tiny, *output, "--resume", script=train)
        assert resumed.returncode == 2, resumed.stderr
        lines = resumed.stderr.splitlines()
        assert [line for line in lines if not line.startswith("warning: ")] == lines[-1:]
        (folder / name).write_bytes(content)


TEACHER_FLAGS = [f"--{name.replace('_', '-')}" for name in mujoco_main.TeacherRun.settings()]
TEACHER_FLAGS += ["--wandb_mode", "--lr"]


def test_any_command_line_of_the_teacher_is_understood_or_refused_in_one_line():
    bad = set()

    @settings(max_examples=150, **TRIES)
    @given(st.lists(st.tuples(st.sampled_from(TEACHER_FLAGS), VALUES), min_size=1, max_size=3))
    def tries(given):
        words = [word for pair in given for word in pair]
        status, errors = outcome(mujoco_main.parse, words)
        check(status, errors)
        if status == 2:
            bad.add(tuple(words))

    tries()
    assert len(bad) >= 75
