"""Our own methods beside the peers: `Distillation/Pusher.py` with as many updates as make the sample mark, on which the learning
rates' schedules depend. DAgger continues cloning of half of the data, for half of the updates, and collects the other half."""

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapter import Checkpoint

from Common.Files import ROOT

SIZES = {5_000: "5k", 10_000: "10k", 50_000: "50k", 100_000: "100k"}
CLONING = "--BC_phase --mode ImpaalaMid --loss_type KL --dataset {data}"
METHODS = {  # the commands of each, which are lines of user code
    "ours-bc": (CLONING,),
    "ours-dagger": (CLONING, "--Dagger_phase --folder_Dagger {parent} --rollout_updates {updates_of_a_rollout}"),
    "ours-ppd": ("--PPD --mode ImpaalaMid",),
}


def checkpoints(metrics: Path, before: Checkpoint) -> list[Checkpoint]:
    """Return the tests in a run's `metrics.csv`, counted on from those `before` it; steps collected are its own."""
    found = []
    with metrics.open() as file:
        for row in csv.DictReader(file):
            if row["test/OD/normalized_return"]:
                updates, collected, seen = (
                    int(row[f"x_axis/{name}"]) for name in ("optimization_steps", "samples_collected", "samples_seen")
                )
                success = row.get("test/OD/success")
                found.append(
                    Checkpoint(
                        collected,
                        before.seen + seen,
                        before.updates + updates,
                        before.seconds + float(row["time/elapsed_s"]),
                        float(row["test/OD/normalized_return"]),
                        float(success) if success else None,
                    )
                )
    return found


def train(peer: str, arguments: argparse.Namespace, data_seconds: float, data: Path, output: Path) -> None:
    """Run a method's commands, and write its file from their metrics."""
    commands, minibatch = METHODS[peer], 72 if peer == "ours-ppd" else 64
    updates = arguments.samples // minibatch // len(commands)
    size = arguments.frames // len(commands)
    rollouts = max(1, size // 2_500)
    place = data.parents[1]
    parent, before = Path(), Checkpoint(0, 0, 0, data_seconds, 0.0, None)
    for number, command in enumerate(commands):
        run = f"{peer}_seed{arguments.seed}_{number}"
        filled = command.format(data=SIZES.get(size), parent=parent, updates_of_a_rollout=-(-updates // rollouts))
        common = {
            "optimization_steps": updates,
            "test_every": max(1, updates // 20),
            "episodes": arguments.episodes,
            "final_episodes": 1,
            "robustness_episodes": 0,
            "video_every": 0,
            "wandb_mode": "disabled",
            "results_dir": place.parent,
            "run_name": run,
        }
        if "--Dagger_phase" not in command:  # it inherits them
            common |= {"task": arguments.task, "run_index": arguments.seed}
        flags = [word for name, value in common.items() for word in (f"--{name}", str(value))]
        script: list[Any] = [
            sys.executable,
            ROOT / "Distillation" / "Pusher.py",
            *filled.split(),
            *flags,
            "--overwrite",
        ]
        subprocess.run(script, check=True)
        parent = next(path.parent for path in place.rglob("metrics.csv") if path.parent.name == run)
        rows = checkpoints(parent / "metrics.csv", before)
        with output.open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
        before = rows[-1]
