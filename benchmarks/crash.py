"""Kill runs at random moments, workers too, go on with them, and compare what they end with to runs that were not cut.

    python benchmarks/crash.py --kills 100

Runs of every method take turns. Each is killed (SIGKILL to the run, or to one of its workers) at a random moment of what
an unbroken run takes, and continued with `--resume`, or begun again where nothing was saved yet, until it has finished.
Then its metrics.csv must have the same rows, but for times, and its last weights must be the same, bit for bit; a
dataset's files must be. With `--views small` all of them are under such views. Prints JSON; exit status 1 if anything differs
or is left behind.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine

ROOT = Path(__file__).resolve().parents[1]
OURS = ("pym-", "psm_", "sem.mp-")  # how Python's multiprocessing names what it puts in shared memory
COMMON = "--num_workers 2 --device cpu"
RUN = f"{COMMON} --wandb_mode disabled --episodes 1 --final_episodes 1 --video_every 0 --checkpoint_every 0.3"
RUN += " --robustness_episodes 0"
ONLINE = f"{RUN} --num_envs 4 --rollout_steps 16 --minibatch_size 32"
PARENT = (
    f"--BC_phase {RUN} --mode State --dataset 5k --alpha 0.6 --loss_type KL --optimization_steps 400 --run_name parent"
)
DATASET = f"--C_data {COMMON} --num_data 5000"
COMMANDS = {
    "PPD": f"--PPD {ONLINE} --mode ImpaalaSmall --optimization_steps 160 --test_every 80",
    "Sdistillation": f"--Sdistillation {ONLINE} --mode State --optimization_steps 1600 --test_every 400",
    "Tdistillation": f"--Tdistillation {ONLINE} --mode State --optimization_steps 1600 --test_every 400",
    "BC_phase": f"--BC_phase {RUN} --mode ImpaalaSmall --dataset 5k --alpha 0.6 --optimization_steps 200 --test_every 100",
    "Dagger_phase": f"--Dagger_phase {RUN} --sampling balanced --mode_alpha dynamic_mean --num_envs 4 "
    "--rollout_samples 400 --rollout_updates 400 --optimization_steps 2000 --test_every 500",
    "C_data": f"--C_data {COMMON} --num_envs 10 --num_data 10000",
}


@dataclass
class Scenario:
    """A command and what an unbroken run of it left.

    Attributes:
        command: flags of `Pusher.py`, without where results go.
        seconds: what it takes.
        expected: see `outcome`.
    """

    command: Sequence[str]
    seconds: float
    expected: dict[str, Any]
    runs: int = 0
    equal: int = 0
    kills: dict[str, int] = field(default_factory=lambda: {"run": 0, "worker": 0})
    problems: list[str] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """How many kills there were."""
        return sum(self.kills.values())


def start(command: Sequence[str], results: Path, log: Path) -> subprocess.Popen:
    """Start `Pusher.py`, its output added to a file."""
    with log.open("a") as file:
        words = [sys.executable, str(ROOT / "Distillation" / "Pusher.py"), *command, "--results_dir", str(results)]
        return subprocess.Popen(words, stdout=file, stderr=file)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process and its children have started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [p for child in children for p in (int(child), *descendants(int(child)))]


def workers(pid: int) -> list[int]:
    """Return those among them that step environments."""

    def is_worker(child: int) -> bool:
        try:
            parent = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1]
            lines = [Path(f"/proc/{who}/cmdline").read_bytes() for who in (child, parent)]
        except OSError:
            return False
        return all(b"multiprocessing.forkserver" in line for line in lines)  # the first such process forks the workers

    return [child for child in descendants(pid) if is_worker(child)]


def wait_for_end(pids: Sequence[int], seconds: float) -> list[int]:
    """Wait until processes have ended; returns those that have not."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def outcome(results: Path) -> dict[str, Any]:
    """Return what the run, or the dataset, in a folder of results ended with: rows without times, weights, arrays."""
    closing = ("final_OD.mp4", "curve.png", "curve.svg", "page.html", "summary.json", "best_ID.pt")
    found: dict[str, Any] = {"files": sorted(path.name for path in results.rglob("*") if path.name in closing)}
    for path in sorted(results.rglob("*")):
        if path.name == "metrics.csv":
            rows = list(csv.DictReader(path.open(newline="")))
            found["rows"] = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
        elif path.name == "last.pt":
            found["weights"] = torch.load(path, weights_only=True)["trainer"]["student"]
        elif path.name == "summary.json":
            summary = json.loads(path.read_text())
            found["summary"] = {key: value for key, value in summary.items() if key != "training_seconds"}
        elif path.suffix == ".npy" and not path.is_symlink() and "aggregated" not in path.parts:
            found[path.name] = np.load(path)
    return found


def same(one: Any, other: Any) -> bool:
    """Compare two outcomes, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other, equal_nan=True) if isinstance(one, np.ndarray) else one == other


def prepare(place: Path, names: Sequence[str], views: str) -> dict[str, Scenario]:
    """Make dataset and parent, and one unbroken run of each method, all under some views."""

    def words(line: str) -> list[str]:
        return line.split() + ["--views", views] * ("--Dagger_phase" not in line)  # which inherits them

    shared = place / "shared"
    folder = shared / "Pusher" / "OurAlgorithm1_KL" / "Phase_One" / "parent"
    needed = [DATASET] if {"BC_phase", "Dagger_phase"} & {*names} else []
    for line in needed + ([PARENT] if "Dagger_phase" in names else []):
        if start(words(line), shared, place / "shared.log").wait():
            sys.exit((place / "shared.log").read_text())
    scenarios = {}
    for name in names:
        command = words(COMMANDS[name]) + (["--folder_Dagger", str(folder)] if name == "Dagger_phase" else [])
        results = link(place / f"{name}_unbroken", shared)
        started = time.monotonic()
        if start(command, results, place / f"{name}.log").wait():
            sys.exit((place / f"{name}.log").read_text())
        scenarios[name] = Scenario(command, time.monotonic() - started, outcome(results))
    return scenarios


def link(results: Path, shared: Path) -> Path:
    """Make a folder of results that has the shared dataset in it."""
    (results / "Pusher" / "Teacher").mkdir(parents=True)
    for dataset in shared.glob("Pusher/Teacher/dataset_*"):
        (results / "Pusher" / "Teacher" / dataset.name).symlink_to(dataset)
    return results


def spell(scenario: Scenario, results: Path, log: Path, moment: float, worker: bool) -> int:
    """Run or go on with a run, and kill it after `moment` seconds if it still runs; returns its exit status.

    With `worker` one of its workers is killed, and it has to end by itself.
    """
    command = list(scenario.command)
    if "--C_data" in command:
        found = (results / "Pusher" / "Teacher").glob("dataset_10k*")
        if any(path.suffix != ".partial" for path in found):  # it was killed when all was there
            return 0
    else:
        saved = any(results.rglob("last.pt"))
        command += ["--resume"] if saved else ["--overwrite"]
    run = start(command, results, log)
    started = time.monotonic()
    if not wait_for_end([run.pid], moment):
        if "--resume" not in command:
            scenario.seconds = time.monotonic() - started
        return run.wait()
    family = descendants(run.pid)
    victims = workers(run.pid) if worker else []
    what, victim = ("worker", random.choice(victims)) if victims else ("run", run.pid)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended
        return run.wait()
    try:
        status = run.wait(40)
    except subprocess.TimeoutExpired:
        scenario.problems.append(f"goes on after its {what} was killed")
        run.kill()
        status = run.wait()
    if status:
        scenario.kills[what] += 1
        left = wait_for_end(family, 20)
        if left:
            scenario.problems.append(f"{len(left)} processes are left after its {what} was killed")
        if what == "worker" and "environment worker" not in "".join(log.read_text().splitlines()[-2:]):
            scenario.problems.append(f"does not name the worker: {log.read_text().splitlines()[-1]}")
    return status


def crash(scenarios: dict[str, Scenario], place: Path, kills: int, tell: Callable[[str], object]) -> None:
    """Kill and go on until there were `kills` kills and every run that was begun has finished."""

    def total() -> int:
        return sum(scenario.killed for scenario in scenarios.values())

    turns: Iterator[tuple[str, Scenario]] = cycle(scenarios.items())
    while total() < kills:
        name, scenario = next(turns)
        results = link(place / f"{name}_{scenario.runs}", place / "shared")
        log = place / f"{name}_{scenario.runs}.log"
        scenario.runs += 1
        before = scenario.killed
        status = -1
        while status:
            enough = total() >= kills or scenario.killed - before >= 6  # let it come to an end
            moment = 600.0 if enough else random.uniform(0.0, 1.1 * scenario.seconds)
            was = scenario.killed
            status = spell(scenario, results, log, moment, worker=random.random() < 0.4)
            if status and scenario.killed == was:
                scenario.problems.append(f"exit status {status}: {log.read_text().splitlines()[-1]}")
                break
        if not status and same(outcome(results), scenario.expected):
            scenario.equal += 1
        else:
            scenario.problems.append(f"run {scenario.runs - 1} differs")
        tell(f"{name}: {scenario.killed - before} kills, {'failed' if status else 'ended'}; {total()} in all")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--views", default="none", help="of all; for students of states, of physics as well")
    parser.add_argument("--methods", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--keep", type=Path, help="write runs and logs there, and keep them")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    shared_memory = set(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        scenarios = prepare(place, arguments.methods, arguments.views)
        crash(scenarios, place, arguments.kills, lambda line: print(line, file=sys.stderr, flush=True))
    left = sorted(name for name in os.listdir("/dev/shm") if name not in shared_memory and name.startswith(OURS))
    report = {
        name: {
            "seconds_unbroken": round(s.seconds, 1),
            "kills": s.kills,
            "runs": s.runs,
            "equal": s.equal,
            "problems": s.problems,
        }
        for name, s in scenarios.items()
    }
    kills = sum(s.killed for s in scenarios.values())
    print(
        json.dumps({"machine": machine(), "kills": kills, "left_in_shared_memory": left, "methods": report}, indent=2)
    )
    sys.exit(bool(left) or any(s.problems or s.equal < s.runs for s in scenarios.values()))


if __name__ == "__main__":
    main()
