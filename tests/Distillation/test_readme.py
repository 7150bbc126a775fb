"""The README's examples run as they stand."""

import re
import sys
import types

import torch

from Algorithm.Config import OnlineDistillationConfig
from Distillation import Utils
from Enviroment.Utils import make_world
from tests.helpers import ROOT, small_teacher, student_for


def blocks():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def block(beginning):
    """The only block that holds a line which begins so."""
    (text,) = [text for text in blocks() if re.search(f"^{re.escape(beginning)}", text, re.MULTILINE)]
    return text


def test_a_method_of_ones_own_trains_and_has_its_experiment(task, statistics, monkeypatch):
    module = types.ModuleType("Algorithm.MSE")
    exec(block("class MSEDistillation"), vars(module))
    monkeypatch.setitem(sys.modules, "Algorithm.MSE", module)
    scope = dict(vars(Utils))
    exec(block("class MSEExperiment"), scope)
    job = scope["MSEExperiment"].of({"mode": "State", "num_envs": 2, "rollout_steps": 8, "minibatch_size": 8})
    job.check()
    assert (job.folder, job.name) == ("MSE", "State_run0")
    assert isinstance(job.method, OnlineDistillationConfig)
    world = make_world(task, 2, 1, frames=False)
    student = student_for(world, task, statistics, "State")
    before = {name: weight.clone() for name, weight in student.named_parameters()}
    trainer = job.trainer(Utils.Parts(student, small_teacher(), lambda envs: world, ROOT))
    assert trainer.unused  # DistributedDataParallel is told so
    trainer.start()
    scalars = trainer.step(4)
    world.close()
    assert scalars["training/squares"] == scalars["training/loss"] > 0
    changed = {name for name, weight in student.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if not name.startswith("critic")}


def test_the_quickstart_is_the_examples_file():
    code = (ROOT / "examples" / "quickstart.py").read_text()
    assert block("def main(mode") in code
