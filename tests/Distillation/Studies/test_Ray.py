"""A study on Ray."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from Distillation import Study
from tests.Distillation.studies import SCRIPT, TINY, released, wait_for


def descendants(pid):
    """The processes below one, whichever of its threads has started them."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has just ended
            for child in map(int, path.read_text().split()):
                yield child
                yield from descendants(child)


def ray_worker(name, runner):
    """The process, below the runner, that a task of Ray runs in: there may be other clusters on this machine."""
    for pid in descendants(runner.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                return pid
    return None


def test_a_study_on_ray_survives_a_worker_that_is_killed(uncut, tmp_path):
    (tmp_path / "study.toml").write_text(TINY)
    runs = tmp_path / "Studies" / "study" / "runs"
    teacher = Path("Studies", "study", "runs", "Pusher", "Teacher")
    shutil.copytree(uncut[0] / teacher, tmp_path / teacher)  # collecting on Ray is the next test's
    checkpoint = runs / "Pusher" / "OurAlgorithm1_KL" / "Phase_One" / "BC_run1" / "checkpoints" / "last.pt"
    command = [sys.executable, SCRIPT, tmp_path / "study.toml", "--results_dir", tmp_path, "--ray"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as runner:
        wait_for(checkpoint, runner)
        os.kill(ray_worker("BC_run1", runner), signal.SIGKILL)
        out, err = runner.communicate(timeout=280)
    assert runner.returncode == 0, out + err
    assert "dashboard" in out
    log = (runs / "BC_run1.log").read_text()
    assert log.count("BC_phase   ") == 2  # its heading
    assert "(resumed)" in log
    found = released(tmp_path)
    assert len(found) == 3
    assert found == released(uncut[0])


def test_a_study_on_ray_that_is_told_to_stop_leaves_nothing_running(tmp_path):
    (tmp_path / "study.toml").write_text(TINY.replace("= 200", "= 1000000"))
    command = [sys.executable, SCRIPT, tmp_path / "study.toml", "--results_dir", tmp_path, "--ray", "--cpus", "2"]
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]  # as in the background of a script
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as runner:
        phase = tmp_path / "Studies" / "study" / "runs" / "Pusher" / "OurAlgorithm1_KL" / "Phase_One"
        wait_for(phase / "BC_run0" / "checkpoints" / "last.pt", runner)
        runner.terminate()
        _, err = runner.communicate(timeout=100)
    assert (runner.returncode, err) == (143, "stopping; the same command continues the study\n")
    assert "stopped and saved at update" in (phase.parents[2] / "BC_run0.log").read_text()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: "),
        (["--ray", "--cpus", "1000"], "--cpus 1000 --gpus 0: no machine has them"),
        (["--ray", "--cpus", "0"], "--cpus of 1 or more"),
        (["--ray", "--gpus", "nan"], "as --gpus a whole number"),
        (["--ray", "--gpus", "1.5"], "as --gpus a whole number"),
        (["--ray", "--jobs", "2"], "--jobs is for this machine"),
        (["--gpus", "1"], "are for --ray"),
        (["--jobs", "-1"], "--jobs -1: 0 or more"),
    ],
)
def test_what_ray_cannot_do_is_one_line(words, hint, tmp_path):
    (tmp_path / "study.toml").write_text(TINY)
    command = [sys.executable, SCRIPT, tmp_path / "study.toml", "--results_dir", tmp_path, *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert hint in run.stderr


def test_without_ray_a_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "study.toml").write_text(TINY)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as end:
        Study.main([str(tmp_path / "study.toml"), "--results_dir", str(tmp_path), "--ray"])
    assert end.value.code == 2
    assert "pip install 'ray[default]'" in capsys.readouterr().err
