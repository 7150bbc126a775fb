"""Memory: bytes a sample takes on disk and in a rollout, the peak of training, and whether it grows.

What is measured is the process that trains, without tests and without the workers of the environments. Cloning runs on a
dataset of random frames (what they show costs nothing), PPD on real ones. Sizes are the resident set of the process
without the files it maps, and with them. Beside them stands what stacked float32 would take, computed. Prints JSON.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import common  # noqa: F401, isort: skip  # this repository, and how threads wait, before PyTorch is loaded
import numpy as np
import torch
from common import Apart, machine, untrained_student

from Algorithm.BehaviouralCloning import BehaviouralCloning
from Algorithm.Config import CloningConfig, PPDConfig
from Algorithm.Dataset import DATASET_VERSION, SampleWriter, open_dataset
from Algorithm.PPD import PPD
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from Models.Model_Pusher import get_Teacher_model

MIB = 2**20


def resident() -> dict[str, float]:
    """Return this process's resident memory in MiB: its own, and with the files it maps; and the peak of both."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {
        name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest
    }
    return {"own": fields["RssAnon"] + fields["RssShmem"], "with_files": fields["VmRSS"], "peak": fields["VmHWM"]}


def write_dataset(folder: Path, samples: int) -> None:
    """Write a dataset of so many samples of Pusher's shapes."""
    task, random = TASKS["Pusher"], np.random.default_rng(0)
    writer = SampleWriter(folder, {"format": "dataset", "version": DATASET_VERSION})
    for first in range(0, samples, 1_000):
        n = min(1_000, samples - first)
        start = np.arange(n) % 100 == 0
        state = random.normal(size=(n, 23)).astype(np.float32)
        writer.append(
            {
                "frame": random.integers(0, 256, (n, *task.seen["Frame"].shape), dtype=np.uint8),
                "state": state,
                "proprioception": state[:, list(task.proprioception)],
                "action": random.uniform(-2, 2, (n, 7)).astype(np.float32),
                "mean": random.normal(size=(n, 7)).astype(np.float32),
                "log_std": np.full((n, 7), -2, np.float32),
                "reward": random.normal(size=n),
                "episode_start": start,
                "seed": np.full(n, 2_000),
            }
        )
    writer.finish()


def cloning(_: ExitStack, folder: Path, alpha: float) -> Callable[[int], dict[str, float]]:
    """Return what makes so many updates of cloning and returns the memory after them."""
    student = untrained_student(TASKS["Pusher"], "ImpaalaMid", torch.device("cpu"))
    trainer = BehaviouralCloning(student, open_dataset(folder).fields, CloningConfig(alpha=alpha), seed=0)
    trainer.start()

    def call(updates: int) -> dict[str, float]:
        end = trainer.optimization_steps + updates
        while trainer.optimization_steps < end:
            trainer.step(end - trainer.optimization_steps)
        return resident()

    return call


def distillation(open_things: ExitStack) -> Callable[[int], dict[str, float]]:
    """Return what makes so many rollouts of PPD, with an update each, and returns the memory after them.

    The rollout buffer's bytes stand beside.
    """
    task = TASKS["Pusher"]
    student = untrained_student(task, "ImpaalaMid", torch.device("cpu"))
    config = PPDConfig()
    world = open_things.enter_context(closing(make_world(task, config.num_envs)))
    trainer = PPD(student, world, config, seed=0, teacher=get_Teacher_model())
    trainer.start()

    def call(rollouts: int) -> dict[str, float]:
        for _ in range(rollouts):
            trainer.step(1)
        rollout = trainer.rollout
        tensors = [value for value in vars(rollout).values() if isinstance(value, torch.Tensor)]
        size = sum(tensor.nbytes for tensor in [*tensors, *rollout.vectors.values(), *rollout.frames.values()])
        return resident() | {"rollout_bytes": size, "samples": rollout.steps * rollout.num_envs}

    return call


def summary(series: list[dict[str, float]], each: str) -> dict[str, Any]:
    """Describe the memory of a process at several moments, and at the last."""
    return {
        f"own_MiB, every {each}": [round(row["own"]) for row in series],
        "with_files_MiB": round(series[-1]["with_files"]),
        "peak_MiB": round(series[-1]["peak"]),
    }


def cloned(samples: int, rounds: int, updates: int) -> dict[str, Any]:
    """Describe a dataset of so many samples, and the memory of cloning it."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=".") as temporary:  # not in /tmp, which may lie in memory
        folder = Path(temporary) / "dataset"
        write_dataset(folder, samples)
        on_disk = sum(path.stat().st_size for path in folder.iterdir())
        for alpha in (0.0, 0.6):
            with Apart(cloning, folder, alpha) as process:
                series = [process(updates) for _ in range(rounds)]
            above = {"peak_over_dataset_MiB": round(series[-1]["peak"] - on_disk / MIB)}
            report[f"alpha {alpha}"] = summary(series, f"{updates} updates") | above
    size = {"samples": samples, "MiB": round(on_disk / MIB), "bytes_per_sample": round(on_disk / samples)}
    return {"dataset": size, "BC": report}


def distilled(rounds: int, rollouts: int) -> dict[str, Any]:
    """Describe the size of a rollout, and the memory of PPD."""
    with Apart(distillation) as process:
        series = [process(rollouts) for _ in range(rounds)]
    size = {"bytes_per_sample": round(series[-1]["rollout_bytes"] / series[-1]["samples"])}
    return {"rollout": size, "PPD": summary(series, f"{rollouts} rollouts")}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=None, help="of the dataset (100,000; --quick: 10,000)")
    parser.add_argument("--quick", action="store_true", help="a small dataset, few updates: under a minute")
    arguments = parser.parse_args()
    samples = arguments.samples or (10_000 if arguments.quick else 100_000)
    rounds, updates, rollouts = (3, 40, 2) if arguments.quick else (6, 200, 5)
    task = TASKS["Pusher"]
    result = {
        "what": "memory of ImpaalaMid's training",
        "machine": machine(),
        "bytes of a sample in stacked float32": 4 * task.stack * math.prod(task.seen["Frame"].shape),
        **cloned(samples, rounds, updates),
        **distilled(rounds, rollouts),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
