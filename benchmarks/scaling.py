"""What a second rank brings: real runs of PPD and cloning on one core, on two, and on two ranks of a core each.

    python benchmarks/scaling.py

Candidates take turns. Rates are of training alone, medians of the rows of `metrics.csv` after the first; efficiency is the
rate of so many ranks over so many times the rate of one process on one core. Prints JSON.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import machine
from crash import ROOT

COMMON = "--mode ImpaalaMid --wandb_mode disabled --device cpu --episodes 1 --final_episodes 1 --video_every 0 --quiet"
COMMON += " --robustness_episodes 0"
COMMANDS = {
    "PPD": f"--PPD {COMMON} --test_every 100000",
    "BC, batches of 64": f"--BC_phase {COMMON} --dataset 5k --test_every 100000",
    "BC, batches of 256": f"--BC_phase {COMMON} --dataset 5k --test_every 100000 --minibatch_size 256",
}
CANDIDATES = {"1 process, 1 core": (1, 1), "1 process, {n} cores": (1, 0), "{n} ranks, 1 core each": (0, 1)}


def rate(command: str, updates: int, ranks: int, cores: int, results: Path) -> float:
    """Return samples a second of a run on so many ranks, of so many cores each."""
    words = [sys.executable]
    if ranks > 1:
        words += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    words += [str(ROOT / "Distillation" / "Pusher.py"), *command.split(), "--num_workers", str(cores)]
    words += ["--optimization_steps", str(updates), "--results_dir", str(results), "--overwrite", "--run_name", "run"]
    subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": str(cores)}, check=True, stderr=subprocess.DEVNULL)
    (metrics,) = results.rglob("run/metrics.csv")
    with metrics.open(newline="") as file:
        rates = [float(row["time/samples_per_s"]) for row in csv.DictReader(file) if row.get("time/samples_per_s")]
    metrics.unlink()
    return statistics.median(rates[1:])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--methods", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    arguments = parser.parse_args()
    n = arguments.ranks
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        collection = ["--C_data", "--num_data", "5000", "--quiet", "--results_dir"]
        subprocess.run([sys.executable, str(ROOT / "Distillation" / "Pusher.py"), *collection, place], check=True)
        for name in arguments.methods:
            rates: dict[str, list[float]] = {}
            for _ in range(arguments.repeats):
                for candidate, (ranks, cores) in CANDIDATES.items():
                    # 256 samples take four times as long as 64
                    updates = arguments.updates // (4 if "256" in name else 1)
                    found = rate(
                        COMMANDS[name], max(updates, 200 if "BC" in name else 32), ranks or n, cores or n, Path(place)
                    )
                    rates.setdefault(candidate.format(n=n), []).append(found)
            medians = {candidate: statistics.median(values) for candidate, values in rates.items()}
            one, *others = medians
            report[name] = {
                "samples_per_s": {candidate: round(value) for candidate, value in medians.items()},
                "efficiency": {other: round(medians[other] / (n * medians[one]), 2) for other in others},
            }
    print(json.dumps({"machine": machine(), "ranks": n, "methods": report}, indent=2))


if __name__ == "__main__":
    main()
