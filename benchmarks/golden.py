"""Whether a change of the code changes a number: small runs of every method, their metrics and weights compared.

    python benchmarks/golden.py record golden.json      # on the commit before
    python benchmarks/golden.py compare golden.json     # after the change, on the same machine

Nothing is kept in the repository, for another processor rounds otherwise. The runs are made by the command line alone, in
a temporary folder: PPD, student and teacher distillation, a collection, cloning with priorities, DAgger with `dynamic_mean`
and balanced sampling, and a run of PPD that is stopped by a signal and resumed.
"""

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
COMMON = ["--device", "cpu", "--num_workers", "1", "--quiet"]
RUN = [
    *COMMON,
    *[
        "--wandb_mode",
        "disabled",
        "--precision",
        "fp32",
        "--video_every",
        "0",
        "--mode",
        "ImpaalaSmall",
        "--episodes",
        "2",
        "--final_episodes",
        "2",
        "--test_every",
        "8",
        "--optimization_steps",
        "24",
    ],
]
ONLINE = [*RUN, *["--num_envs", "6", "--rollout_steps", "8", "--minibatch_size", "24", "--epochs", "2"]]
ONLINE_METHODS = {
    "PPD": ["--PPD"],
    "SD": ["--Sdistillation"],
    "TD": ["--Tdistillation", "--teacher_noise", "2", "--noise_correlation", "0.9"],
    "State": ["--PPD", "--mode", "State"],
}
CLONING = [*RUN, "--optimization_steps", "240", "--test_every", "100", "--minibatch_size", "16"]


def pusher(place: Path, *arguments: object, wait: bool = True) -> subprocess.Popen:
    """Start `Pusher.py` with its results in `place`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "Distillation" / "Pusher.py", *arguments, "--results_dir", place]
    process = subprocess.Popen(list(map(str, command)), env=environment, stderr=None if wait else subprocess.DEVNULL)
    if wait and process.wait() != 0:
        sys.exit(f"golden.py: {' '.join(map(str, arguments))} ended with status {process.returncode}")
    return process


def stopped_and_resumed(place: Path) -> None:
    """Stop a run of PPD in mid-training, and go on with it."""
    arguments = [*ONLINE, "--PPD", "--checkpoint_every", "0"]
    process = pusher(place, *arguments, wait=False)
    metrics = place / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0" / "metrics.csv"
    while process.poll() is None and not (metrics.is_file() and len(metrics.read_text().splitlines()) > 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    if process.wait() != 128 + signal.SIGTERM:
        sys.exit(f"golden.py: the run to be stopped ended with status {process.returncode}")
    pusher(place, *arguments, "--resume")


def cloning_and_dagger(place: Path) -> None:
    """Collect a dataset, clone it by priorities, and go on with DAgger."""
    pusher(place, "--C_data", "--num_data", "5000", *COMMON, "--num_envs", "10")
    pusher(
        place,
        "--BC_phase",
        *CLONING,
        *["--dataset", "5k", "--alpha", "0.6", "--augment", "shift=2", "noise=3"],
    )
    (parent,) = place.glob("Pusher/OurAlgorithm1_NLL/Phase_One/[!.]*")
    dagger: list[object] = [word for word in CLONING if word not in ("--mode", "ImpaalaSmall")]
    dagger += ["--mode_alpha", "dynamic_mean", "--sampling", "balanced", "--num_envs", "4"]
    dagger += ["--rollout_samples", "400", "--rollout_updates", "120", "--beta_mix", "0.5", "--folder_Dagger", parent]
    pusher(place, "--Dagger_phase", *dagger)


def outcome(place: Path) -> dict[str, Any]:
    """Return the metrics of every run below a folder, and the hashes of its weights and data."""
    found: dict[str, Any] = {}
    for file in sorted(place.rglob("metrics.csv")):
        with file.open(newline="") as rows:
            table = [
                {key: value for key, value in sorted(row.items()) if value and not key.startswith("time/")}
                for row in csv.DictReader(rows)
            ]
        weights = {}
        for name in ("last", "best_ID"):
            content = torch.load(file.parent / "checkpoints" / f"{name}.pt", weights_only=True)
            tensors = content.get("weights") or content["trainer"]["student"]
            weights[name] = _hash(tensors[key].numpy() for key in sorted(tensors))
        summary = json.loads((file.parent / "summary.json").read_text())
        summary.pop("training_seconds")
        summary.pop("robustness", None)  # older versions have none
        found[str(file.parent.relative_to(place))] = {"metrics": table, "weights": weights, "summary": summary}
    for file in sorted(place.rglob("dataset_*/*.npy")):
        found[str(file.relative_to(place))] = _hash([np.load(file, allow_pickle=False)])
    return found


def _hash(arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def run_all() -> dict[str, Any]:
    """Make all runs, two at a time; returns what came out of each."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        place = Path(folder)
        jobs: list[Future] = [pool.submit(cloning_and_dagger, place / "imitation")]
        jobs += [pool.submit(pusher, place / name, *ONLINE, *arguments) for name, arguments in ONLINE_METHODS.items()]
        jobs.append(pool.submit(stopped_and_resumed, place / "resumed"))
        for job in jobs:
            job.result()
        results = outcome(place)
    whole, resumed = (results[f"{name}/Pusher/PPD/lambda5_ImpaalaSmall_run0"] for name in ("PPD", "resumed"))
    if whole != resumed:
        sys.exit("golden.py: a run that was stopped and resumed came out differently from one that was not")
    return results


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Name where two outcomes differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        return [d for key in keys for d in differences(before.get(key), after.get(key), f"{where} {key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [d for i, pair in enumerate(zip(before, after)) for d in differences(*pair, f"{where} [{i}]")]
    return [] if before == after else [f"{where.strip()}: {str(before)[:60]} became {str(after)[:60]}"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    results = run_all()
    if arguments.what == "record":
        arguments.file.write_text(json.dumps(results, indent=1))
        print(f"{len(results)} outcomes recorded in {arguments.file}")
        return
    found = differences(json.loads(arguments.file.read_text()), json.loads(json.dumps(results)))
    print("\n".join(found[:40]) or f"all {len(results)} outcomes are equal")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
