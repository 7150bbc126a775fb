"""A study that is cut, continued and begun again elsewhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from Distillation import Plot, Study
from Distillation.Reports.Runs import find_runs, group_runs
from Distillation.Studies.Engines import _end_with_runner
from tests.Distillation.studies import SCRIPT, TINY, finish, released, start, wait_for


def test_what_is_printed_may_be_cut_short():
    command = [sys.executable, SCRIPT, "main", "--dry_run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as runner:
        runner.stdout.close()  # as `| head` does
        assert (runner.stderr.read(), runner.wait()) == ("", 0)


def test_a_run_does_not_outlive_a_runner_that_was_killed_as_it_started():
    another = os.getppid()
    orphan = subprocess.Popen([sys.executable, "-c", ""], preexec_fn=lambda: _end_with_runner(another))
    assert orphan.wait() == 1


def test_a_study_ends_with_what_is_worth_committing_and_drawing(uncut, tmp_path, capsys, monkeypatch):
    results, out = uncut
    folder = results / "Studies" / "study"
    lines = out.splitlines()
    assert lines[:2] == ["study: 0 of 3 runs finished", "4 left"]  # the dataset is one of them
    assert [line.split()[0] for line in lines[2:6]] == ["dataset_5k", "BC_run0", "DAgger_run0", "BC_run1"]
    assert "2 left, about" in lines[3]
    found = released(results)
    assert {str(name) for name in found} == {f"Studies/study/{name}" for name in ("BC/run0", "BC/run1", "DAgger/run0")}
    for rows, summary, settings in found.values():
        assert [row["test/OD/return"] != "" for row in rows] == [True] * 3
        assert float(rows[-1]["test/OD/return"]) == summary["OD"]["student"]["return"]
        assert str(results) not in json.dumps(settings)
    assert sum(file.stat().st_size for file in folder.glob("*/run?/*")) < 50_000
    Plot.main([str(folder), "--output", str(tmp_path / "again")])  # what it released counts, and only once
    table = (tmp_path / "again.md").read_text()
    assert (folder / "table.md").read_text().endswith(table)
    assert [line.split("|")[1:3] for line in table.splitlines()[2:4]]
    labels = {group.label: len(group.runs) for group in group_runs(find_runs([folder]))}
    assert labels == {"BC State 5k": 2, "DAgger State 5k": 1}
    for picture in ("curve.png", "curve.svg", "cloning.png", "cloning.svg"):
        assert (folder / picture).stat().st_size > 10_000
    (folder / "table.md").unlink()
    monkeypatch.setattr(Study, "draw", lambda *_: 1 / 0)
    with pytest.raises(SystemExit) as end:
        Study.main([str(results / "study.toml"), "--results_dir", str(results), "--jobs", "0"])
    assert end.value.code == 0
    assert (folder / "table.md").is_file()
    assert "warning: the picture curve failed" in capsys.readouterr().err
    # A setting of the parent changes: all that depends on it counts as missing.
    study = tmp_path / "study.toml"
    study.write_text(TINY.replace('"5k"', '"5k"\nweight_decay = 0.1'))
    with pytest.raises(SystemExit) as end:
        Study.main([str(study), "--results_dir", str(results), "--dry_run"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert "DAgger_run0 counts as missing: its parent's weight_decay was 0.0001" in lines
    assert lines.count("study: 0 of 3 runs finished") == 1
    assert sum("--overwrite" in line for line in lines) == 3


def test_a_study_that_is_cut_anywhere_goes_on_to_the_same_end(uncut, tmp_path):
    runs = Path("Studies", "study", "runs")
    teacher = runs / "Pusher" / "Teacher"
    shutil.copytree(uncut[0] / teacher, tmp_path / teacher)
    (tmp_path / "study.toml").write_text(TINY)
    phase = tmp_path / runs / "Pusher" / "OurAlgorithm1_KL" / "Phase_One"
    checkpoints = [phase / f"BC_run{k}" / "checkpoints" / "last.pt" for k in range(2)]
    # The runner is killed, and with it the run; another one is refused before.
    with start(tmp_path) as runner:
        wait_for(checkpoints[0], runner)
        (child,) = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGSTOP)  # so that it has not ended when it is killed
        status, _, err = finish(tmp_path)
        assert (status, err.count("\n")) == (2, 1)
        assert "another process is writing it" in err
        runner.kill()
    # It is told to stop.
    with start(tmp_path) as runner:
        first_line = runner.stdout.readline()
        assert first_line == "study: 0 of 3 runs finished\n"
        assert runner.stdout.readline() == "3 left\n"
        runner.send_signal(signal.SIGUSR1)  # as SLURM does before the time is up
        _, err = runner.communicate()
        assert (runner.returncode, err) == (138, "stopping; the same command continues the study\n")
    # A run is killed: the others go on.
    with start(tmp_path) as runner:
        wait_for(checkpoints[1], runner)
        (child,) = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        out, _ = runner.communicate(timeout=250)
    assert runner.returncode == 1
    assert "BC_run1 failed (-9)" in out
    assert {name.parent.name for name in released(tmp_path)} == {"BC", "DAgger"}
    assert "(resumed)" in (tmp_path / runs / "BC_run0.log").read_text()
    status, out, _ = finish(tmp_path)
    assert status == 0
    assert "2 of 3 runs finished" in out
    assert released(tmp_path) == released(uncut[0])


def test_a_fresh_clone_makes_a_parent_again_where_dagger_needs_it(uncut, tmp_path):
    shutil.copytree(uncut[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "Studies" / "study"
    shutil.rmtree(folder / "DAgger")
    shutil.rmtree(folder / "runs" / "Pusher" / "OurAlgorithm1_KL")
    before = (folder / "BC" / "run0" / "summary.json").stat().st_mtime_ns
    status, out, err = finish(tmp_path)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["BC_run0", "DAgger_run0"]
    assert released(tmp_path) == released(uncut[0])
    assert (folder / "BC" / "run0" / "summary.json").stat().st_mtime_ns == before
