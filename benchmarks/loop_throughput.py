"""Every method's training loop from end to end: its rates, where its time goes, and the same loop written the usual way.

The methods run as `Distillation/Pusher.py` runs them, with their default settings but for these: cloning and DAgger by KL, on a
dataset of 10,000 samples (with 100,000 an update of priorities takes 0.3 ms), DAgger with 300 updates after a rollout;
`--quick`: PPD and cloning alone, on shorter rollouts. PPD stands beside stock PPD (18 environments in a `SyncVectorEnv` that
renders 480x480, float32 stacks, float32 network) and Stable-Baselines3's PPO (our frames in a `DummyVecEnv`, the same network
in float32, the same batches, no teacher); cloning beside a `DataLoader` over stacked float32 tensors, without workers of its own. On
a GPU every method also stands beside itself without CUDA graphs.

Rates and shares include evaluation, logging and checkpoints, measured once and put in relation to 1,000 updates, the
default distance of two tests; ratios compare training alone. A PPO sample counts in each of its 4 passes. On a GPU the time of
a part is the time the CPU spends in it. Prints JSON; run it on an otherwise idle machine.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common  # noqa: F401, isort: skip  # this repository, and how threads wait, before PyTorch is loaded
import torch
from baselines import DefaultStudent, StockPPD, StockWorld, dataloader_cloning, sb3_ppo
from common import Apart, Profile, in_turn, machine, untrained_student

from Algorithm.BehaviouralCloning import BehaviouralCloning, DAgger
from Algorithm.CollectDataset import collect_dataset
from Algorithm.Config import CloningConfig
from Algorithm.Dataset import open_dataset
from Algorithm.Logger import AXES, RunLogger
from Algorithm.PPO import PPO
from Algorithm.Rollout import Rollout
from Algorithm.Test_model import StudentTest
from Algorithm.Training import Loop
from Algorithm.Utils import Priorities, Samples
from Common.Machine import resolve_device
from Distillation.Experiment import seed_sets
from Distillation.Utils import (
    CloningExperiment,
    DAggerExperiment,
    Experiment,
    Parts,
    PPDExperiment,
    StudentDistillationExperiment,
    TeacherDistillationExperiment,
)
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from Enviroment.Vector_env import WorkerWorld
from Enviroment.World import World
from Models.Model_Pusher import get_Teacher_model

MODE = "ImpaalaMid"
ONE_BY_ONE = "kernel by kernel"
# What is timed, and under which name; time within another part counts there alone.
PARTS: list[tuple[Any, str, str]] = [
    (PPO, "collect_rollout", "inference"),
    (PPO, "compute_targets", "targets"),
    (Rollout, "ask", "targets"),
    (PPO, "learn", "update"),
    (DAgger, "aggregate", "inference"),
    (BehaviouralCloning, "update", "update"),
    (WorkerWorld, "step", "environments"),
    (WorkerWorld, "reset", "environments"),
    *[
        (Rollout, name, "gather")
        for name in ("write_observation", "observation", "final_observation", "minibatch", "carry_over")
    ],
    (Samples, "gather", "gather"),
    (Samples, "add", "gather"),
    *[(Priorities, name, "priorities") for name in ("sample", "update", "set_alpha", "statistics")],
]


class Method:
    """A method's trainer, as a run makes it or the stock way.

    Args:
        open_things: closes its environments.
        experiment: the method and its settings.
        data: the folder of the dataset, for cloning and DAgger.
        how: ours, stock, or kernel by kernel: without CUDA graphs.
    """

    def __init__(self, open_things: ExitStack, experiment: Experiment, data: Path, how: str):
        self.experiment, self.task, self.profile = experiment, TASKS["Pusher"], Profile(PARTS)
        self._open_things = open_things
        device = torch.device(experiment.place.device)
        self.teacher = get_Teacher_model(device=device)
        self.folder = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        if how != "ours":
            for module in ("PPO", "Learner"):
                open_things.enter_context(patch(f"Algorithm.{module}.graphed", lambda _, __, function: function))
        if how == "stock":
            assert isinstance(experiment, PPDExperiment)
            config, world = experiment.method, StockWorld(self.task, experiment.method.num_envs)
            open_things.callback(world.close)
            student = DefaultStudent.of(self.task, MODE, device)
            self.trainer: Any = StockPPD(student, world, config, experiment.seed(), teacher=self.teacher)
        else:
            self.trainer = experiment.trainer(self._parts(device, data))
        self.trainer.start()

    def _parts(self, device: torch.device, data: Path) -> Parts:
        parts = Parts(untrained_student(self.task, MODE, device), self.teacher, self.world, self.folder)
        method = self.experiment.method
        if not isinstance(method, CloningConfig):
            return parts
        dataset = open_dataset(data)
        priorities = Priorities(len(dataset), method.alpha, method.beta).state_dict()
        return replace(parts, dataset=dataset, priorities=priorities)

    def world(self, num_envs: int) -> World:
        """Make environments."""
        world = make_world(self.task, num_envs)
        self._open_things.callback(world.close)
        return world

    def train(self, updates: int) -> dict[str, Any]:
        """Make so many updates, with their rollouts; returns counts and seconds."""
        trainer = self.trainer
        before, collected, seen = trainer.optimization_steps, trainer.samples_collected, trainer.samples_seen
        self.profile.seconds.clear()
        started, steps = time.perf_counter(), 0
        while trainer.optimization_steps < before + updates:
            trainer.step(before + updates - trainer.optimization_steps)
            steps += 1
        parts = dict(self.profile.seconds)
        parts["other"] = time.perf_counter() - started - sum(parts.values())
        return {
            "updates": trainer.optimization_steps - before,
            "collected": trainer.samples_collected - collected,
            "seen": trainer.samples_seen - seen,
            "steps": steps,
            "parts": parts,
        }

    def beside(self) -> dict[str, float]:
        """Return the seconds of what goes on beside training: a test, a row of metrics and a checkpoint."""
        experiment, spent = self.experiment, {}

        @contextmanager
        def timed(part: str) -> Iterator[None]:
            started = time.perf_counter()
            yield
            spent[part] = time.perf_counter() - started

        test = StudentTest(
            self.world(2 * experiment.test.episodes), self.task, self.teacher, seed_sets(experiment.test)
        )
        with closing(RunLogger(self.folder, 1, quiet=True)) as logger:
            loop = Loop(
                self.trainer,
                self.folder,
                card={},
                settings={},
                optimization_steps=experiment.method.optimization_steps,
                test_every=experiment.test.test_every,
                checkpoint_every=experiment.log.checkpoint_every,
                logger=logger,
            )
            with timed("test"):
                row = test(self.trainer.student)
            for _ in range(2):  # the first brings the columns
                with timed("row"):
                    logger.log({**dict.fromkeys(AXES, 0), **row})
            with timed("checkpoint"):
                loop.save()
        return spent


def build(
    open_things: ExitStack, experiment: Experiment, data: Path, updates: int, how: str
) -> Callable[..., dict[str, Any]]:
    """Return what makes `updates` updates of a `Method`, or, called with `True`, measures what goes on beside them."""
    method = Method(open_things, experiment, data, how)
    return lambda beside=False: method.beside() if beside else method.train(updates)


def describe(
    counts: dict[str, Any], beside: dict[str, float], seconds: float, experiment: Experiment
) -> dict[str, Any]:
    """Put the measurements of a method in relation to the updates from one test to the next."""
    test_every = experiment.test.test_every
    scale = test_every / counts["updates"]
    training = scale * seconds
    total = sum(counts["parts"].values())
    shares = {part: training * value / total for part, value in counts["parts"].items()}
    shares["evaluation"] = beside["test"]
    shares["logging"] = scale * counts["steps"] * beside["row"]
    shares["checkpoints"] = training / experiment.log.checkpoint_every * beside["checkpoint"]
    whole = sum(shares.values())
    return {
        "env_steps_per_s": round(counts["collected"] * scale / whole, 1),
        "samples_per_s": round(counts["seen"] * scale / whole, 1),
        "updates_per_s": round(test_every / whole, 2),
        "share": {part: round(value / whole, 3) for part, value in shares.items()},
    }


def methods(device: str, quick: bool, repeats: int, updates: int) -> dict[str, tuple[Experiment, int]]:
    """Return the methods by name, and how many updates are a call of each."""
    settings = {"mode": MODE, "device": device}
    ppd = PPDExperiment.of(settings | ({"rollout_steps": 3, "minibatch_size": 54} if quick else {}))
    config = ppd.method
    cycle = config.epochs * -(-config.rollout_steps * config.num_envs // config.minibatch_size)  # of a rollout
    settings["loss_type"] = "KL"
    found: dict[str, tuple[Experiment, int]] = {"PPD": (ppd, cycle), "BC": (CloningExperiment.of(settings), updates)}
    if quick:
        return found
    rollout = 3 * updates
    dagger = {"rollout_updates": rollout, "optimization_steps": rollout * (repeats + 2)}
    return found | {
        "student distillation": (StudentDistillationExperiment.of(settings), updates),
        "teacher distillation": (TeacherDistillationExperiment.of(settings), updates),
        "BC, batches of 256": (CloningExperiment.of(settings | {"minibatch_size": 256}), updates // 4),
        "BC, alpha 0.6": (CloningExperiment.of(settings | {"alpha": 0.6}), updates),
        f"DAgger, {rollout} updates after 2,500 samples": (DAggerExperiment.of(settings | dagger), rollout),
    }


def baselines(experiment: Experiment, data: Path, updates: int) -> dict[str, tuple[Any, ...]]:
    """Return what a method is compared with: for each baseline what builds it, and its arguments."""
    device = experiment.place.device
    if isinstance(experiment, PPDExperiment):
        found: dict[str, tuple[Any, ...]] = {
            "stock": (build, experiment, data, updates, "stock"),
            "Stable-Baselines3 PPO": (sb3_ppo, experiment),
        }
    elif isinstance(experiment, CloningExperiment) and experiment.method.alpha == 0:
        size = experiment.method.minibatch_size
        found = {"DataLoader": (dataloader_cloning, MODE, device, data, size, updates)}
    else:
        found = {}
    if device.startswith("cuda"):
        found[ONE_BY_ONE] = (build, experiment, data, updates, ONE_BY_ONE)
    return found


def measure(name: str, experiment: Experiment, data: Path, updates: int, repeats: int) -> dict[str, Any]:
    """Return the rates of a method, where its time goes, and how much faster it is than its baselines."""
    print(name, file=sys.stderr)
    counts: dict[str, Any] = {}
    with ExitStack() as processes:
        ours = processes.enter_context(Apart(build, experiment, data, updates, "ours"))
        others = {
            other: processes.enter_context(Apart(*candidate, stock=other != ONE_BY_ONE))
            for other, candidate in baselines(experiment, data, updates).items()
        }
        seconds = in_turn({"ours": lambda: counts.update(ours()), **others}, repeats)
        beside = ours(True)
    ratios = {f"over {other}": round(seconds[other] / seconds["ours"], 2) for other in others}
    return describe(counts, beside, seconds["ours"], experiment) | ratios


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="PPD and BC alone, short rollouts: under a minute")
    arguments = parser.parse_args()
    device, quick = str(resolve_device(arguments.device)), arguments.quick
    repeats, updates = (1, 10) if quick else (3, 100)
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "dataset"
        with closing(make_world(TASKS["Pusher"], 10 if quick else 50)) as world:
            collect_dataset(data, world, get_Teacher_model(), 1_000 if quick else 10_000)
        results = {
            name: measure(name, experiment, data, cycle, repeats)
            for name, (experiment, cycle) in methods(device, quick, repeats, updates).items()
        }
    result = {"what": f"training {MODE} from end to end", "device": device, "machine": machine()}
    print(json.dumps(result | {"methods": results}, indent=2))


if __name__ == "__main__":
    main()
