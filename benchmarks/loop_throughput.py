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
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import Algorithm  # noqa: F401, isort: skip  # settles how threads wait before PyTorch is loaded
import numpy as np
import torch
from baselines import DefaultStudent, StockPPD, StockVectorEnv, dataloader_cloning, sb3_ppo, untrained_student
from common import Apart, in_turn, machine

from Algorithm import BehaviouralCloning
from Algorithm.Checkpoint import save_checkpoint
from Algorithm.CollectDataset import collect_dataset
from Algorithm.Logger import AXES, RunLogger
from Algorithm.PPO import PPO
from Algorithm.Recorded import recorded
from Algorithm.Rollout import Rollout
from Algorithm.Test_model import StudentTest
from Algorithm.Utils import Priorities, Samples, open_dataset
from Common.Machine import resolve_device
from Distillation import Utils
from Distillation.Experiment import make_trainer
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_vector_env
from Enviroment.Vector_env import WorkerVectorEnv
from Models.Model_Pusher import get_Teacher_model

MODE = "ImpaalaMid"
# What is timed, and under which name; time within another part counts there alone.
PARTS: list[tuple[Any, str, str]] = [
    (PPO, "collect", "inference"),
    (PPO, "prepare", "targets"),
    (Rollout, "ask", "targets"),
    (PPO, "update", "update"),
    (BehaviouralCloning.DAgger, "collect", "inference"),
    (BehaviouralCloning.BehaviouralCloning, "update", "update"),
    (WorkerVectorEnv, "step", "environments"),
    (WorkerVectorEnv, "reset", "environments"),
    *[
        (Rollout, name, "gather")
        for name in ("write_observation", "observation", "final_observation", "minibatch", "carry_over")
    ],
    (Samples, "gather", "gather"),
    (Samples, "add", "gather"),
    *[(Priorities, name, "priorities") for name in ("sample", "update", "set_alpha", "statistics")],
]


class Profile:
    """Seconds spent in each of `PARTS`, without what is spent in a part within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]
        for owner, name, part in PARTS:
            setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                seconds = time.perf_counter() - started
                own = seconds - self._inner.pop()
                self._inner[-1] += seconds
                self.seconds[part] = self.seconds.get(part, 0.0) + own

        return timed


def launched_one_by_one(module: torch.nn.Module, _: torch.device, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what trainers call in place of a recording where there is none."""
    return recorded(module, torch.device("cpu"), function)


def build(
    open_things: ExitStack, config: Utils.ExperimentConfig, folder: Path, updates: int, how: str
) -> Callable[..., dict[str, Any]]:
    """Return what makes `updates` updates, with their rollouts, and returns counts and seconds.

    `how` is ours, stock, or kernel by kernel: without CUDA graphs. Called with `True` it instead measures what goes on beside
    training: a test, a row of metrics and a checkpoint.
    """
    profile, stock = Profile(), how == "stock"
    if how != "ours":
        for name in ("PPO", "BehaviouralCloning"):
            open_things.enter_context(patch(f"Algorithm.{name}.recorded", launched_one_by_one))
    task, device = TASKS["Pusher"], torch.device(config.device)
    teacher = get_Teacher_model(device=device)
    dataset = None
    priorities = None
    if isinstance(config, Utils.Cloning | Utils.DAgger):
        dataset = open_dataset(folder)
        priorities = Priorities(len(dataset), config.alpha, config.beta).state_dict()
    student = DefaultStudent.of(task, MODE, device) if stock else untrained_student(task, MODE, device)

    def environments(count: int) -> WorkerVectorEnv:
        env: Any = StockVectorEnv(task, count) if stock else make_vector_env(task, count)
        open_things.callback(env.close)
        return env

    own = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
    if stock:
        assert isinstance(config, Utils.PPD)
        trainer: Any = StockPPD(student, environments(config.num_envs), task, config, 0, teacher=teacher)
    else:
        trainer = make_trainer(config, task, student, teacher, dataset, priorities, environments, own)
    trainer.start()

    def beside() -> dict[str, Any]:
        seeds = {"ID": range(config.episodes), "OD": range(config.episodes, 2 * config.episodes)}
        with closing(RunLogger(own, 1)) as logger:
            test = StudentTest(environments(2 * config.episodes), task, teacher, seeds)
            spent = {"test": 0.0, "row": 0.0, "checkpoint": 0.0}

            @contextmanager
            def timed(part: str) -> Iterator[None]:
                started = time.perf_counter()
                yield
                spent[part] = time.perf_counter() - started

            with timed("test"):
                row = test(student)
            for _ in range(2):  # the first brings the columns
                with timed("row"), redirect_stdout(sys.stderr):
                    logger.log({**dict.fromkeys(AXES, 0), **row})
            with timed("checkpoint"):
                save_checkpoint(own / "last.pt", {"trainer": trainer.state_dict(), "rows": 0})
        return spent

    def call(measure_beside: bool = False) -> dict[str, Any]:
        if measure_beside:
            return beside()
        before = np.array([trainer.optimization_steps, trainer.samples_collected, trainer.samples_seen])
        end = before[0] + updates
        profile.seconds.clear()
        started, steps = time.perf_counter(), 0
        while trainer.optimization_steps < end:
            trainer.step(int(end) - trainer.optimization_steps)
            steps += 1
        seconds = time.perf_counter() - started
        after = np.array([trainer.optimization_steps, trainer.samples_collected, trainer.samples_seen])
        made, collected, seen = (after - before).tolist()
        parts = dict(profile.seconds)
        parts["other"] = seconds - sum(parts.values())
        return {"updates": made, "collected": collected, "seen": seen, "steps": steps, "parts": parts}

    return call


def describe(counts: dict[str, Any], beside: dict[str, float], seconds: float, test_every: int) -> dict[str, Any]:
    """Put the measurements of a method in relation to the updates from one test to the next."""
    scale = test_every / counts["updates"]
    training = scale * seconds
    total = sum(counts["parts"].values())
    shares = {part: training * value / total for part, value in counts["parts"].items()}
    shares["evaluation"] = beside["test"]
    shares["logging"] = scale * counts["steps"] * beside["row"]
    shares["checkpoints"] = training / Utils.PPD.checkpoint_every * beside["checkpoint"]
    whole = sum(shares.values())
    return {
        "env_steps_per_s": round(counts["collected"] * scale / whole, 1),
        "samples_per_s": round(counts["seen"] * scale / whole, 1),
        "updates_per_s": round(test_every / whole, 2),
        "share": {part: round(value / whole, 3) for part, value in shares.items()},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="PPD and BC alone, short rollouts: under a minute")
    arguments = parser.parse_args()
    device, quick = str(resolve_device(arguments.device)), arguments.quick
    common: dict[str, Any] = {"mode": MODE, "device": device, "loss_type": "KL"}
    ppo: dict[str, Any] = {"mode": MODE, "device": device} | (
        {"rollout_steps": 3, "minibatch_size": 54} if quick else {}
    )
    repeats, updates = (1, 10) if quick else (3, 100)
    ppd = Utils.PPD(**ppo)
    rollout_updates = ppd.epochs * -(-ppd.rollout_steps * ppd.num_envs // ppd.minibatch_size)
    dagger = Utils.DAgger(**common, rollout_updates=3 * updates, optimization_steps=3 * updates * (repeats + 2))
    methods: dict[str, tuple[Utils.ExperimentConfig, int]] = {
        "PPD": (ppd, rollout_updates),
        "student distillation": (Utils.StudentDistillation(mode=MODE, device=device), updates),
        "teacher distillation": (Utils.TeacherDistillation(mode=MODE, device=device), updates),
        "BC": (Utils.Cloning(**common), updates),
        "BC, batches of 256": (Utils.Cloning(**common, minibatch_size=256), updates // 4),
        "BC, alpha 0.6": (Utils.Cloning(**common, alpha=0.6), updates),
        "DAgger, 300 updates after 2,500 samples": (dagger, dagger.rollout_updates),
    }
    if quick:
        methods = {name: methods[name] for name in ("PPD", "BC")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "dataset"
        task = TASKS["Pusher"]
        samples = 1_000 if quick else 10_000
        with closing(make_vector_env(task, 10 if quick else 50)) as env:
            collect_dataset(folder, env, get_Teacher_model(), samples)
        baselines: dict[str, dict[str, tuple[Any, ...]]] = {
            "PPD": {
                "stock": (build, ppd, folder, rollout_updates, "stock"),
                "Stable-Baselines3 PPO": (sb3_ppo, ppd),
            },
            "BC": {"DataLoader": (dataloader_cloning, MODE, device, folder, 64, updates)},
            "BC, batches of 256": {"DataLoader": (dataloader_cloning, MODE, device, folder, 256, updates // 4)},
        }
        results: dict[str, Any] = {}
        for name, (config, cycle) in methods.items():
            print(name, file=sys.stderr)
            with ExitStack() as processes:
                counts: dict[str, Any] = {}
                ours = processes.enter_context(Apart(build, config, folder, cycle, "ours"))

                def call(ours: Apart = ours, counts: dict[str, Any] = counts) -> None:
                    counts.update(ours())

                others = {
                    other: processes.enter_context(Apart(*candidate, stock=True))
                    for other, candidate in baselines.get(name, {}).items()
                }
                if device.startswith("cuda"):
                    how = "kernel by kernel"
                    others[how] = processes.enter_context(Apart(build, config, folder, cycle, how))
                seconds = in_turn({"ours": call, **others}, repeats)
                results[name] = describe(counts, ours(True), seconds["ours"], config.test_every)
                for other in others:
                    results[name][f"over {other}"] = round(seconds[other] / seconds["ours"], 2)
    result = {"what": f"training {MODE} from end to end", "device": device, "machine": machine()}
    print(json.dumps(result | {"methods": results}, indent=2))


if __name__ == "__main__":
    main()
