"""A task in a file of one's own, from its teacher's training to a study."""

import json

import pytest
import torch

from tests.Distillation import studies
from tests.helpers import ONLINE, flags, metrics, pusher

TASKS = """
from dataclasses import replace

import numpy as np

from Enviroment.Tasks import TASKS

REACHER = replace(
    TASKS["Reacher"],
    name="MyReacher",
    success=lambda state: np.linalg.norm(state[..., 8:10], axis=-1) < 0.02,
    reference="",
)
"""
TEACHER = "--total-timesteps 300 --learning-starts 100 --num-envs 2 --gradient-steps 1 --hidden 16 --batch-size 16"
TEACHER += " --buffer-size 1000 --device cpu --wandb-mode disabled"
STUDY = """
[common]
task = "{task}"
teacher = "{teacher}"
mode = "State"
device = "cpu"
optimization_steps = 4
episodes = 1
final_episodes = 1
robustness_episodes = 0
num_envs = 2
rollout_steps = 8
minibatch_size = 8

[[runs]]
name = "PPD"
method = "PPD"
"""


def test_a_task_in_a_file_of_ones_own_is_trained_taken_over_distilled_played_and_studied(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tasks.py").write_text(TASKS)
    task, whole = "mine/tasks.py:REACHER", f"{tmp_path}/mine/tasks.py:REACHER"
    teacher, results = tmp_path / "teacher.pt", tmp_path / "results"

    def done(script, *words):
        run = pusher(*words, script=script, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        return run.stdout

    where = ["--task", task, "--results-dir", tmp_path / "runs"]
    done("Train_Teacher_Pusher/Mujoco_main.py", *where, *TEACHER.split())
    assert json.loads((tmp_path / "runs" / "sac" / "config.json").read_text())["task"] == whole
    best = tmp_path / "runs" / "sac" / "best.zip"
    done("Train_Teacher_Pusher/SaveWeights.py", best, "--task", task, "--output", teacher)
    assert torch.load(teacher, weights_only=True)["task"] == whole

    done("Distillation/Pusher.py", *flags("PPD", ONLINE, task=task, teacher=teacher, results_dir=results))
    folder = results / "MyReacher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    config = json.loads((folder / "config.json").read_text())
    assert (config["task"], config["label"].split(",")[0]) == (whole, "REACHER PPD ImpaalaSmall")
    summary = json.loads((folder / "summary.json").read_text())["OD"]
    assert metrics(folder)[-1]["x_axis/optimization_steps"] == "4"

    scored = ["--seeds", "1900", "--teacher", teacher, "--device", "cpu", "--num_workers", 1, "--json"]
    figures = json.loads(done("Distillation/Play.py", folder, *scored))  # the run says which task it is of
    assert figures["policy"]["return"] == pytest.approx(summary["student"]["return"], rel=1e-3)
    assert figures["teacher"]["return"] == pytest.approx(summary["teacher"]["return"], rel=1e-3)
    of_teacher = json.loads(done("Distillation/Play.py", teacher, *scored))
    assert of_teacher["policy"]["return"] == figures["teacher"]["return"]

    (tmp_path / "study.toml").write_text(STUDY.format(task=whole, teacher=teacher))
    status, out, err = studies.finish(tmp_path)
    assert (status, err) == (0, ""), out + err
    released = tmp_path / "Studies" / "study" / "PPD" / "run0"
    assert json.loads((released / "config.json").read_text())["task"] == whole
    assert "REACHER PPD State" in (tmp_path / "Studies" / "study" / "table.md").read_text()
