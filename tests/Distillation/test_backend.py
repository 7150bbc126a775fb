"""Runs and datasets that MuJoCo Warp simulates, and the backend that `auto` stands for."""

import dataclasses
import json
import shutil

import pytest

from Algorithm.Dataset import open_dataset
from Common.Errors import BadSetting
from Enviroment import Utils
from Enviroment.On_tensors import on_tensors
from Enviroment.Tasks import TASKS
from Enviroment.Utils import find_backend, make_world
from tests.helpers import ONLINE, flags, pusher, pusher_cut_at, run_folder

STEER = "def steer(states):\n    return 3 * states[:, 8:10]\n"


@pytest.fixture
def reacher(tmp_path):
    """Settings of a task whose episodes and steps are short."""
    (tmp_path / "planner.py").write_text(STEER)
    return {"task": "Reacher", "teacher": f"{tmp_path / 'planner.py'}:steer", "results_dir": tmp_path / "results"}


def test_a_run_in_warp_is_resumed_in_warp_and_also_scored_in_gymnasium(reacher, tmp_path):
    arguments = flags("PPD", ONLINE | reacher)
    pusher_cut_at(tmp_path, 2, *arguments, "--backend", "warp")
    run = pusher(*arguments, "--resume", "--backend", "warp")
    assert run.returncode == 0, run.stderr
    folder = run_folder(tmp_path / "results")
    assert folder.name == "lambda5_ImpaalaSmall_run0_warp"
    config = json.loads((folder / "config.json").read_text())
    assert config["backend"] == "warp"
    assert "backend warp" in config["label"]
    assert "mujoco-warp" in config["versions"]
    assert "simulated by MuJoCo Warp" in run.stdout
    assert "the same episodes in Warp: return -" in run.stdout
    summary = json.loads((folder / "summary.json").read_text())
    gymnasium, warp = (summary[part]["teacher"]["return"] for part in ("OD", "OD_warp"))
    assert warp == pytest.approx(gymnasium, rel=0.1)
    assert warp != gymnasium
    refused = pusher(*arguments, "--resume", "--backend", "workers", "--run_name", folder.name)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert 'backend is "warp", not "workers"' in refused.stderr


def test_a_dataset_of_warp_is_another_one(reacher, tmp_path):
    settings = {**reacher, "num_data": 60, "num_envs": 1, "num_workers": 1, "backend": "warp"}
    run = pusher(*flags("C_data", settings))
    assert run.returncode == 0, run.stderr
    dataset = open_dataset(tmp_path / "results" / "Reacher" / "Teacher" / "dataset_60_warp")
    assert len(dataset) == 60
    assert dataset.meta["backend"] == "warp"
    shutil.move(dataset.folder, dataset.folder.with_name("dataset_60"))
    again = pusher(*flags("C_data", settings, backend="workers", export_minari=tmp_path / "minari"))
    assert again.returncode == 2
    assert 'backend is "warp", not "workers"' in again.stderr


def test_auto_is_warp_on_a_gpu_where_it_is_installed_and_can(monkeypatch):
    pusher_task = TASKS["Pusher"]
    assert find_backend("auto", pusher_task, "cpu") == "workers"
    assert find_backend("auto", pusher_task, "cuda:1") == "warp"
    assert find_backend("workers", pusher_task, "cuda") == "workers"
    unfit = dataclasses.replace(pusher_task, env_id="Humanoid-v5")
    assert find_backend("auto", unfit, "cuda") == "workers"
    with pytest.raises(BadSetting, match=r"Humanoid-v5 .*--backend workers"):
        find_backend("warp", unfit, "cpu")
    fetch = dataclasses.replace(TASKS["FetchReach"], on_tensors=on_tensors(pusher_task))
    assert find_backend("auto", fetch, "cuda") == "workers"
    assert find_backend("auto", pusher_task, "cuda", "full") == "workers"
    with pytest.raises(BadSetting, match="shadows"):
        find_backend("warp", pusher_task, "cpu", "full")
    monkeypatch.setattr(Utils, "find_spec", lambda name: None)
    assert find_backend("auto", pusher_task, "cuda") == "workers"
    with pytest.raises(BadSetting, match="not installed"):
        find_backend("warp", pusher_task, "cuda")
    with pytest.raises(ValueError, match="workers or warp"):
        make_world(pusher_task, 1, backend="auto")
