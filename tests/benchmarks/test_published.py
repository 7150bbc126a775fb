"""The table beside what others publish: what is counted, and what is refused."""

import json

import pytest

from benchmarks import published
from Common.Errors import BadInput


def write_run(folder, task, student, **config):
    """Write the files of a finished run of DAgger."""
    folder.mkdir(parents=True)
    settings = {
        "method": "Dagger_phase",
        "task": task,
        "proprioception": "none",
        "before": {"time/elapsed_s": 60.0},
    } | config
    (folder / "config.json").write_text(json.dumps(settings))
    scores = {"student": {"return": student}, "teacher": {"return": 900.0}}
    summary = {"OD": scores, "samples_collected": 50_000, "training_seconds": 240.0}
    (folder / "summary.json").write_text(json.dumps(summary))


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
    row = published.table(study).splitlines()[2]
    assert row == (
        "| walker-walk | 900 | 1.000 | 900 | 100,000 | 5 | 800,000 | 17 | 900,000 | 22 | 767 | 970 |"
    )  # each sample two of the simulator's steps; the clone that DAgger continued took a minute


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no finished runs of DAgger"):
        published.table(tmp_path)
