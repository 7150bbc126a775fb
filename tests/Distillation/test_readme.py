"""The README's examples run as they stand."""

import re
import sys
import types
from contextlib import closing

import torch

from Algorithm.Config import OnlineDistillationConfig
from Algorithm.Policies import open_teacher
from Algorithm.Test_model import evaluate
from Distillation import Utils
from Enviroment.Tasks import find_task
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


def test_it_is_short():
    assert (ROOT / "README.md").stat().st_size <= 12 * 1024


def test_a_task_and_a_teacher_of_ones_own_are_found_and_play(tmp_path):
    (tmp_path / "my_task.py").write_text(block("POLE = Task("))
    (tmp_path / "my_teacher.py").write_text(block("def balance"))
    task = find_task(f"{tmp_path / 'my_task.py'}:POLE")
    teacher = open_teacher(f"{tmp_path / 'my_teacher.py'}:balance", task)
    with closing(make_world(task, 2, 1)) as world:
        assert world.spaces["Frame"].shape == (64, 64)
        assert evaluate(teacher, world, task, range(1900, 1902)).lengths.tolist() == [200, 200]
