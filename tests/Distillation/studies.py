"""A tiny study, started, finished, and what it released."""

import csv
import json
import subprocess
import sys
import time

from tests import warm
from tests.helpers import PICTURES, ROOT

SCRIPT = ROOT / "Distillation" / "Study.py"
TINY = """
[pictures]
cloning = ["B*"]

[common]
mode = "State"
run_index = [0, 1]
device = "cpu"
optimization_steps = 200
test_every = 100
episodes = 1
final_episodes = 1
robustness_episodes = 0
loss_type = "KL"
num_workers = 1

[[runs]]
name = "BC"
method = "BC_phase"
dataset = "5k"

[[runs]]
name = "DAgger"
method = "Dagger_phase"
parent = "BC"
run_index = [0]
rollout_samples = 100
rollout_updates = 100
num_envs = 1
"""


def start(results):
    command = [sys.executable, SCRIPT, results / "study.toml", "--results_dir", results]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Pictures of runs are left out, not those of the study.
    return warm.Popen(command, cwd=results, text=True, without=PICTURES, steps=None, **pipes)


def finish(results):
    with start(results) as runner:
        out, err = runner.communicate(timeout=250)
    return runner.returncode, out, err


def wait_for(path, runner):
    while not path.exists():
        assert runner.poll() is None, runner.communicate()
        time.sleep(0.05)


def released(results):
    """What a study released, without how long it took."""
    found = {}
    for config in (results / "Studies" / "study").glob("*/run?/config.json"):
        with config.with_name("metrics.csv").open() as file:
            rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
        summary = json.loads(config.with_name("summary.json").read_text()) | {"training_seconds": 0}
        settings = json.loads(config.read_text()) | {"start_sha256": ""}  # the student's file holds times too
        settings.get("before", {}).pop("time/elapsed_s", None)
        found[config.parent.relative_to(results)] = (rows, summary, settings)
    return found
