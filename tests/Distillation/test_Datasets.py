"""Datasets of the command line."""

import json
import shutil

import numpy as np

from Algorithm.Dataset import open_dataset
from tests.helpers import ONLINE, SMALL, flags, metrics, pusher


def test_a_dataset_with_other_settings_is_refused(collected, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(collected / "Pusher" / "Teacher", results / "Pusher" / "Teacher")
    settings = SMALL | {"dataset": "5k", "results_dir": results}
    other_render = pusher(*flags("BC_phase", settings), "--render_quality", "full")
    meta = results / "Pusher" / "Teacher" / "dataset_5k" / "meta.json"
    before = meta.read_text()
    meta.write_text(before.replace('teacher_sha256": "', 'teacher_sha256": "00'))
    other_teacher = pusher(*flags("BC_phase", settings))
    meta.write_text(before)
    frames = meta.with_name("frame.npy")
    content = frames.read_bytes()
    frames.write_bytes(content[:-100])
    truncated = pusher(*flags("BC_phase", settings))
    frames.write_bytes(content)
    for run, hint in ((other_render, '"quality": "full"'), (other_teacher, "teacher_sha256"), (truncated, "damaged")):
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert hint in run.stderr
    assert not (results / "Pusher" / "OurAlgorithm1_NLL").exists()
    again = pusher("--C_data", "--num_data", 5000, "--results_dir", results)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "--overwrite" in again.stderr


def test_a_full_disk_leaves_no_dataset(tmp_path):
    """No file may grow beyond 1 MB."""
    collect = ["--C_data", "--num_data", "200", "--num_envs", "2", "--num_workers", "1", "--results_dir", str(tmp_path)]
    run = pusher(*collect, file_size=1000 * 1024)
    assert run.returncode == 2, run.stderr
    assert "File too large" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "Pusher" / "Teacher" / "dataset_200").exists()


def test_a_missing_dataset_is_collected_on_demand(tmp_path):
    run = pusher(
        *flags("BC_phase", SMALL, mode="State", dataset="5k", results_dir=tmp_path), "--collect", "--teacher_noise", 1
    )
    assert run.returncode == 0, run.stderr
    meta = json.loads((tmp_path / "Pusher" / "Teacher" / "dataset_5k_noise1_0" / "meta.json").read_text())
    assert (meta["teacher_noise"], meta["noise_correlation"]) == (1.0, 0.0)


def test_students_learn_from_episodes_that_are_cut_off_and_are_tested_on_whole_ones(tmp_path):
    settings = SMALL | {"mode": "State", "dataset": "5k", "results_dir": tmp_path, "run_name": "parent"}
    cloned = pusher(*flags("BC_phase", settings), "--collect", "--episode_steps", 5)
    assert cloned.returncode == 0, cloned.stderr
    dataset = open_dataset(tmp_path / "Pusher" / "Teacher" / "dataset_5k_5steps")
    assert dataset.meta["episode_steps"] == 5
    assert np.flatnonzero(dataset.fields["episode_start"]).tolist() == list(range(0, 5000, 5))
    parent = tmp_path / "Pusher" / "OurAlgorithm1_NLL" / "Phase_One" / "parent"
    dagger = {name: value for name, value in SMALL.items() if name != "mode"} | {"results_dir": tmp_path}
    dagger |= {"folder_Dagger": parent, "num_envs": 2, "rollout_samples": 50, "rollout_updates": 2}
    run = pusher(*flags("Dagger_phase", dagger, run_name="dagger"))
    assert run.returncode == 0, run.stderr
    last = metrics(next(tmp_path.rglob("dagger/metrics.csv")).parent)[-1]
    assert float(last["x_axis/samples_collected"]) == 5100  # 20 episodes of 5 steps, not 6 of 20
    online = pusher(*flags("PPD", ONLINE, mode="State", rollout_steps=20, results_dir=tmp_path), "--episode_steps", 5)
    assert online.returncode == 0, online.stderr
    for folder in (parent, *tmp_path.rglob("dagger"), tmp_path / "Pusher" / "PPD" / "lambda5_State_run0_5steps"):
        summary, config = (json.loads((folder / name).read_text()) for name in ("summary.json", "config.json"))
        assert config["episode_steps"] == 5
        assert summary["OD"]["student"]["length"] == 20
    other = pusher(*flags("BC_phase", settings, run_name="other"))
    assert "no dataset_5k in" in other.stderr
    longer = pusher(*flags("BC_phase", settings, run_name="other"), "--collect", "--episode_steps", 21)
    assert longer.stderr.endswith("error: --episode_steps 21: Pusher's episodes have at most 20\n")
