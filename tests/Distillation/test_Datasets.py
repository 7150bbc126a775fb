"""Datasets of the command line."""

import json
import shutil

from tests.helpers import SMALL, flags, pusher


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
