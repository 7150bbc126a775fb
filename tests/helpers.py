"""What tests of several rooms need: commands, their folders, students, bad input."""

import base64
import contextlib
import csv
import io
import json
import os
import pickletools
import shutil
import signal
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck
from hypothesis import strategies as st

from Algorithm.Checkpoint import Checkpoint
from Common.Errors import STOPS
from Distillation import Experiment
from Distillation.Utils import JOBS
from Enviroment.World import Step
from Models.Distributions import SquashedGaussian
from Models.Model_Pusher import Teacher, make_student
from tests import warm


def skip_without_package(task):
    """Skip a test where the package that a task's environment comes from is not installed."""
    pytest.importorskip({"Deep": "dm_control", "Robo": "gymnasium_robotics"}.get(task.env_id[11:15], "gymnasium"))


def student_for(world, task, statistics, mode="ImpaalaSmall", **options):
    """An untrained student of a world's shapes, the same each time."""
    torch.manual_seed(0)
    shapes = world.spaces, world.action_space, task.proprioception
    return make_student(mode, *shapes, statistics, task.stack, **options)


SCALE, SHIFT = torch.full((7,), 2.0), torch.zeros(7)


def gaussian(seed, batch=5, low=-2.5, high=-0.5):
    """A policy of seven joints, the same for each seed."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(batch, 7, generator=generator)
    return SquashedGaussian(mean, low + (high - low) * torch.rand(batch, 7, generator=generator), SCALE, SHIFT)


class OnDevice(torch.Tensor):
    """A tensor that NumPy cannot read before `cpu()`, like one on a GPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError("can't convert a tensor on a device to numpy")
        result = super().__torch_function__(function, types, args, kwargs or {})
        return result.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else result


class DeviceWorld:
    """A world of worker processes whose tensors lie on a device, which "cpu" plays by `OnDevice`."""

    def __init__(self, world, device="cpu"):
        self._world, self.device = world, torch.zeros(0, device=device).device  # with its number

    def __getattr__(self, name):
        return getattr(self._world, name)

    def _moved(self, tensors):
        moved = {key: value.to(self.device, copy=True) for key, value in tensors.items()}
        return {key: value if value.is_cuda else value.as_subclass(OnDevice) for key, value in moved.items()}

    def reset(self, seeds):
        return self._moved(self._world.reset(seeds))

    def start(self, seeds):
        return self._moved(self._world.start(seeds))

    def step(self, actions):
        assert actions.device == self.device
        step = self._world.step(actions.cpu())
        outcome = {key: getattr(step, key) for key in ("reward", "terminated", "truncated")}
        dictionaries = {key: self._moved(getattr(step, key)) for key in ("obs", "last_obs", "info")}
        return Step(**self._moved(outcome), **dictionaries)


def small_teacher():
    """A small random teacher of Pusher's shape, whose actions differ from state to state."""
    torch.manual_seed(0)
    return (
        Teacher(
            mean=np.linspace(-1, 1, 23).tolist(),
            variance=np.linspace(0.1, 2, 23).tolist(),
            epsilon=1e-8,
            clip=10.0,
            hidden=[32, 32],
            action_low=[-2.0] * 7,
            action_high=[2.0] * 7,
        )
        .eval()
        .requires_grad_(False)
    )


ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SMALL = {
    "mode": "ImpaalaSmall",
    "optimization_steps": 4,
    "test_every": 2,
    "episodes": 1,
    "final_episodes": 1,
    "robustness_episodes": 0,
    "num_workers": 1,
    "minibatch_size": 8,
    "device": "cpu",
    "wandb_mode": "disabled",
}
ONLINE = {**SMALL, "num_envs": 2, "rollout_steps": 8, "epochs": 1}


def flags(method, settings, **changes):
    words = [f"--{method}"]
    for name, value in (settings | changes).items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
    return words


TINY = flags("PPD", ONLINE)


PICTURES = [(Experiment, name) for name in ("write_video", "draw", "write_page")]  # more than half of a tiny run


def pusher(*arguments, cwd=ROOT, script="Distillation/Pusher.py", without=PICTURES, **settings):
    """Run a script to its end; a run leaves no pictures unless it is `without` nothing."""
    return warm.run([sys.executable, ROOT / script, *arguments], cwd=cwd, without=without, **settings)


def shared(tmp_path_factory, name, make):
    """Return a folder that `make` has filled, once for all processes of pytest, and what that returned, a plain value."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    place = tmp_path_factory.getbasetemp() if alone else tmp_path_factory.getbasetemp().parent
    folder, done = place / name, place / f"{name}.json"
    with FileLock(place / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            done.write_text(json.dumps(make(folder)))
    return folder, json.loads(done.read_text())


KILL = """
import os, sys

if __name__ == "__main__":  # environment workers import this file too
    import Algorithm.Training as training
    import Distillation.Pusher as pusher

    class Cut(training.Checkpoint):
        def save(self, path):
            super().save(path)
            if self.updates == {at}:
                os._exit(9)

    training.Checkpoint, training.CHECKPOINTS_SHARE = Cut, float("inf")  # whatever they cost
    pusher.main(sys.argv[1:])
"""


def pusher_cut_at(place, update, *arguments, **settings):
    """Run, and die right after the checkpoint of an update."""
    script = place / "kill.py"
    script.write_text(KILL.format(at=update))
    run = pusher(*arguments, "--checkpoint_every", 0, script=script, **settings)
    assert run.returncode == 9, run.stderr


class Accepted(Exception):
    """Everything was checked, and training, which other tests do, would begin."""


def outcome(call, *arguments):
    """What a program says: its status, None if it got as far as training, and stderr."""
    errors = io.StringIO()
    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            call(*arguments)
        status = 0
    except Accepted:
        status = None
    except SystemExit as end:
        status = end.code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status, errors.getvalue()


def metrics(folder):
    """The rows without what no two runs share: how long things took."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def run_folder(results):
    (config,) = results.rglob("config.json")
    return config.parent


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def weights(folder):
    return Checkpoint.load(folder / "checkpoints" / "last.pt").trainer["student"]


# The same examples each time.
TRIES = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}


def check(status, errors):
    if status in (0, None):
        assert "Traceback" not in errors
    else:
        assert status == 2, errors
        assert errors.count("\n") == 1, errors


FIELDS = {name: job.settings() for name, job in JOBS.items()}
NUMBERS = ("0", "-1", "1", "2.5", "1e-3", "nan", "inf", "-inf", "1e999", "0x10", "1_000", "१", "99999999999999999999")
WORDS = (
    "",
    " ",
    "State",
    "ImpaalaMid",
    "NLL",
    "auto",
    "10k",
    "--PPD",
    "../..",
    "a\nb",
    "ä",
    "\x00",
    "None",
    "True",
    "-",
)
VALUES = st.one_of(st.sampled_from(NUMBERS + WORDS), st.text(max_size=6), st.integers(-3, 10**6).map(str))


def spoil(value, random):
    """Replace something somewhere in a JSON value by something of another kind."""
    inner = [k for k in (value if isinstance(value, dict) else range(len(value))) if value[k] not in ({}, [])]
    key = inner[int(random.integers(len(inner)))]
    if isinstance(value[key], dict | list) and random.random() < 0.7:
        value[key] = spoil(value[key], random)
    else:
        value[key] = [None, -1, "x", [], {}, 1e999, True, [1, "a"]][int(random.integers(8))]
    return value


def byte_code(path):
    """The attributes in a zip of Stable-Baselines3 that are pickled with byte code of a Python, or build functions."""
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    pickles = {
        name: base64.b64decode(value[":serialized:"]) for name, value in data.items() if ":serialized:" in str(value)
    }
    words = {"CodeType", "_builtin_type", "_make_function", "_make_skeleton_class", "_make_cell", "code"}
    return [
        name for name, content in pickles.items() if words & {str(arg) for _, arg, _ in pickletools.genops(content)}
    ]
