"""The table beside what others publish: what is counted, and what is refused."""

import json

import pytest

from benchmarks import published
from Common.Errors import BadInput


def write_run(folder, task, student, **config):
    """Write the files of a finished run of DAgger."""
    folder.mkdir(parents=True)
    settings = {"method": "Dagger_phase", "mode": "ImpaalaSmall", "task": task, "proprioception": "none"}
    settings |= {"before": {"time/elapsed_s": 60.0}} | config
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "metrics.csv").write_text(
        "x_axis/samples_collected,time/elapsed_s,test/OD/return\n10000,0,1\n50000,240,2\n"
    )
    scores = {"student": {"return": student, "episodes": 1}, "teacher": {"return": 900.0}, "zero": {}}
    (folder / "summary.json").write_text(json.dumps({"OD": scores, "ID": scores}))


def test_frames_and_minutes_are_those_of_the_whole_training(tmp_path, monkeypatch):
    teacher = tmp_path / "walker-walk" / "Teacher"
    teacher.mkdir(parents=True)
    (teacher / "training.csv").write_text("timesteps,minutes\n25000,1.5\n400000,17.0\n")
    monkeypatch.setattr(published, "RESULTS", tmp_path)
    study = tmp_path / "study"
    write_run(study / "DAgger" / "run0", "walker-walk", 880.0)
    write_run(study / "DAgger" / "run1", "walker-walk", 920.0)
    write_run(study / "BC" / "run0", "walker-walk", 1.0, method="BC_phase")
    write_run(study / "DAgger-own" / "run0", "Reacher", -4.0, proprioception="full")
    write_run(study / "PPD" / "run0", "Reacher", -4.0, method="PPD")
    row = published.table(study).splitlines()[2]
    assert row == (
        "| walker-walk | 900 | 1.000 | 900 | 100,000 | 5 | 800,000 | 17 | 900,000 | 22 | 767 | 970 |"
    )  # each sample two of the simulator's steps; the clone that DAgger continued took a minute


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no finished runs of DAgger"):
        published.table(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        published.table(tmp_path / "nothing")
