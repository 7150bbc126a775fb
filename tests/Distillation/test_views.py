"""Runs, datasets and students under views."""

import json

import pytest
import torch

from Distillation.Pusher import main, parse
from Distillation.Utils import task_of
from Enviroment.Views import VIEWS
from tests.helpers import ONLINE, SMALL, flags, metrics, outcome, pusher, pusher_cut_at, run_folder

MINE = 'base = "small"\nmass = 0.1\ndelayed_frames = 2\ndelayed_actions = 1\ndropped_frames = 0.3\n'


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.toml").write_text(MINE)
    return tmp_path / "mine.toml"


def test_ppd_under_small_views_says_so_everywhere_and_a_cut_run_resumes_exactly(tmp_path):
    settings = ONLINE | {"views": "small", "results_dir": tmp_path / "whole"}
    run = pusher(*flags("PPD", settings))
    assert run.returncode == 0, run.stderr
    folder = run_folder(tmp_path / "whole")
    assert folder.name == "lambda5_ImpaalaSmall_run0_small"
    config = json.loads((folder / "config.json").read_text())
    assert (config["views"], config["view_ranges"]) == ("small", VIEWS["small"].table())
    assert "views small" in config["label"]
    card = torch.load(folder / "checkpoints" / "best_ID.pt", weights_only=True)["card"]
    assert card["view_ranges"] == VIEWS["small"].table()
    again = flags("PPD", settings, results_dir=tmp_path / "again")
    pusher_cut_at(tmp_path, 2, *again)
    status, errors = outcome(main, [*again, "--resume", "--views", "large", "--run_name", folder.name])
    assert (status, errors.count("\n")) == (2, 1)
    assert 'views is "small", not "large"' in errors
    resumed = pusher(*again, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(run_folder(tmp_path / "again")) == metrics(folder)

    words = ["--seeds", 1900, "--device", "cpu", "--num_workers", 1, "--json", "--views", "small"]
    played = json.loads(pusher(folder, *words, script="Distillation/Play.py").stdout)
    summary = json.loads((folder / "summary.json").read_text())
    assert played["policy"]["return"] == pytest.approx(summary["OD"]["student"]["return"], rel=1e-3)
    assert played["view_ranges"] == VIEWS["small"].table()


def test_cloning_then_dagger_under_views_of_a_file_both_cut_and_resumed(mine, tmp_path):
    """With shifts of physics, delays and drops, which a checkpoint has to hold."""
    results = tmp_path / "results"
    cloning = SMALL | {"dataset": "5k", "views": mine, "results_dir": results}
    run = pusher(*flags("BC_phase", cloning), "--collect")
    assert run.returncode == 0, run.stderr
    meta = json.loads((results / "Pusher" / "Teacher" / "dataset_5k_mine" / "meta.json").read_text())
    assert meta["view_ranges"]["delayed_frames"] == 2
    phases = results / "Pusher" / "OurAlgorithm1_NLL"
    parent = phases / "Phase_One" / "5k_alpha0_NLL_ImpaalaSmall_run0_mine"
    mine.write_text(MINE.replace("0.3", "0.2"))
    for change, hint in (({"views": "none"}, "no dataset_5k in"), ({"run_name": "other"}, '"dropped_frames": 0.2')):
        status, errors = outcome(main, flags("BC_phase", cloning, **change))
        assert (status, errors.count("\n")) == (2, 1)
        assert hint in errors
    settings = {name: value for name, value in SMALL.items() if name != "mode"}
    settings |= {"num_envs": 2, "rollout_samples": 200, "rollout_updates": 2, "results_dir": results}
    settings |= {"folder_Dagger": parent}
    status, errors = outcome(main, flags("Dagger_phase", settings))
    assert (status, errors.count("\n")) == (2, 1)
    assert "view_ranges" in errors
    mine.write_text(MINE)
    run = pusher(*flags("Dagger_phase", settings))
    assert run.returncode == 0, run.stderr
    folder = phases / "Phase_Two" / f"{parent.name}_alpha0_classic"
    config = json.loads((folder / "config.json").read_text())
    assert (config["views"], config["view_ranges"]["mass"]) == (str(mine), 0.1)
    assert ", views mine," in config["label"]
    again = flags("Dagger_phase", settings, run_name="again")
    pusher_cut_at(tmp_path, 2, *again)
    resumed = pusher(*again, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(folder.with_name("again")) == metrics(folder)


def test_a_student_of_states_is_for_views_that_change_states(mine, tmp_path):
    settings = ONLINE | {"mode": "State", "results_dir": tmp_path / "results"}
    status, errors = outcome(main, flags("PPD", settings, views="small"))
    assert (status, errors.count("\n")) == (2, 1)
    assert "views small changes only frames" in errors
    job, _ = parse(flags("PPD", settings, views=mine))
    assert job.name == "lambda5_State_run0_mine"
    assert task_of(job).views.mass == 0.1


def test_runs_from_before_there_were_views_and_backends_are_resumed_and_continued(results, tmp_path):
    settings = SMALL | {"mode": "State", "dataset": "5k", "results_dir": results, "run_name": "parent"}
    pusher_cut_at(tmp_path, 4, *flags("BC_phase", settings))
    folder = run_folder(results)
    config = json.loads((folder / "config.json").read_text())
    assert "view_ranges" not in config
    del config["views"], config["backend"], config["episode_steps"]
    (folder / "config.json").write_text(json.dumps(config))
    last = folder / "checkpoints" / "last.pt"
    content = torch.load(last, weights_only=True)
    del content["settings"]["views"], content["settings"]["backend"], content["settings"]["episode_steps"]
    torch.save(content, last)
    resumed = pusher(*flags("BC_phase", settings), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    (folder / "config.json").write_text(json.dumps(config))
    dagger = {name: value for name, value in SMALL.items() if name != "mode"}
    dagger |= {"num_envs": 2, "rollout_samples": 200, "results_dir": results, "folder_Dagger": folder}
    run = pusher(*flags("Dagger_phase", dagger))
    assert run.returncode == 0, run.stderr
