"""Kill commands at random moments, go on with them, and compare what they end with to ones that were not cut.

    python benchmarks/crash.py --kills 100

Commands take turns: runs of every method, with students that have a memory, are trained further, or are simulated by Warp on the
CPU; a collection; a teacher's training; a study. Each is cut at a random moment of what an unbroken one takes, and the same
command is given again until it has finished. It is cut by SIGKILL to it, by SIGKILL to one of its workers (to a run of a
study), or by SIGTERM or SIGUSR1, at which it has to save and leave by itself.

Then its metrics.csv must have the same rows, but for times, and its last weights must be the same, bit for bit; so must a
dataset's files and a study's table. A teacher's training begins new episodes, so its curve differs: it must have evaluated
after the same steps, and its checkpoints must load and be of one moment. With `--views small` all students are under such
views. Prints JSON; exit status 1 if anything differs or is left behind.
"""

import argparse
import csv
import json
import os
import pickle
import random
import re
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
CLOSING = ("final_OD.mp4", "curve.png", "curve.svg", "page.html", "summary.json", "best_ID.pt", "best.mp4")
PUSHER, TEACHER = "Distillation/Pusher.py", "Train_Teacher_Pusher/Mujoco_main.py"
COMMON = "--num_workers 2 --device cpu"
RUN = f"{COMMON} --resume --wandb_mode disabled --episodes 1 --final_episodes 1 --video_every 0 --checkpoint_every 0.3"
RUN += " --robustness_episodes 0"
ONLINE = f"{RUN} --num_envs 4 --rollout_steps 16 --minibatch_size 32"
CLONING = f"{PUSHER} --BC_phase {RUN} --dataset 5k"
DATASET = f"{PUSHER} --C_data {COMMON} --num_data 5000"
PARENT = f"{CLONING} --mode State --alpha 0.6 --loss_type KL --optimization_steps 400 --run_name parent"
PARENTS = "{place}/shared/Pusher/OurAlgorithm1_KL/Phase_One/parent"  # folder
COMMANDS = {
    "PPD": f"{PUSHER} --PPD {ONLINE} --mode ImpaalaSmall --optimization_steps 160 --test_every 80",
    "PPD_memory": f"{PUSHER} --PPD {ONLINE} --mode State --memory gru --window 8 --optimization_steps 400 --test_every 200",
    "PPD_warp": f"{PUSHER} --PPD {ONLINE} --mode ImpaalaSmall --backend warp --task Reacher --optimization_steps 64 "
    "--test_every 32 --teacher {place}/planner.py:steer",
    "PPD_further": f"{PUSHER} --PPD {ONLINE} --mode State --start_from {PARENTS} --optimization_steps 800 --test_every 200",
    "Sdistillation": f"{PUSHER} --Sdistillation {ONLINE} --mode State --optimization_steps 1600 --test_every 400",
    "Tdistillation": f"{PUSHER} --Tdistillation {ONLINE} --mode State --optimization_steps 1600 --test_every 400",
    "BC_phase": f"{CLONING} --mode ImpaalaSmall --alpha 0.6 --optimization_steps 200 --test_every 100",
    "BC_memory": f"{CLONING} --mode State --memory gru --window 8 --optimization_steps 400 --test_every 200",
    "Dagger_phase": f"{PUSHER} --Dagger_phase {RUN} --folder_Dagger {PARENTS} --sampling balanced --mode_alpha dynamic_mean "
    "--num_envs 4 --rollout_samples 400 --rollout_updates 400 --optimization_steps 2000 --test_every 500",
    "C_data": f"{PUSHER} --C_data {COMMON} --num_envs 10 --num_data 10000",
    "teacher": f"{TEACHER} --resume --device cpu --wandb_mode disabled --num_envs 4 --hidden 32 --gradient_steps 2 --batch_size 32 "
    "--learning_starts 200 --buffer_size 10000 --total_timesteps 3000 --eval_freq 600 --checkpoint_freq 400",
    "study": "Distillation/Study.py {place}/study.toml",
}
STEER = "def steer(states):\n    return 3 * states[:, 8:10]\n"  # a teacher of Reacher, whose steps are short under Warp
STUDY = """
[common]
mode = "State"
views = "VIEWS"
device = "cpu"
num_workers = 2
num_envs = 4
optimization_steps = 200
test_every = 100
episodes = 1
final_episodes = 1
video_every = 0
robustness_episodes = 0
checkpoint_every = 0.3
wandb_mode = "disabled"

[[runs]]
name = "SD"
method = "Sdistillation"

[[runs]]
name = "PPD-from-SD"
method = "PPD"
parent = "SD"
"""


@dataclass
class Scenario:
    """A command and what an unbroken one left.

    Attributes:
        command: its script, and its flags without where results go.
        seconds: what it takes.
        expected: see `outcome`.
        kills: how often it was cut, by what the signal was sent to, or `stop` where it had to leave by itself.
    """

    command: Sequence[str]
    seconds: float
    expected: dict[str, Any]
    runs: int = 0
    equal: int = 0
    kills: dict[str, int] = field(default_factory=lambda: {"run": 0, "worker": 0, "stop": 0})
    problems: list[str] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """How many kills there were."""
        return sum(self.kills.values())


def start(command: Sequence[str], results: Path, log: Path) -> subprocess.Popen:
    """Start a script of the repository, its output added to a file."""
    with log.open("a") as file:
        words = [sys.executable, str(ROOT / command[0]), *command[1:], "--results_dir", str(results)]
        return subprocess.Popen(words, stdout=file, stderr=file)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Return the processes that a process and its children have started."""
    return [p for child in children(pid) for p in (child, *descendants(child))]


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
    """Return what a command ended with, by file: rows and summaries without times, weights, arrays; and what it left over."""
    found: dict[str, Any] = {}
    for path in sorted(results.rglob("*")):
        name = str(path.relative_to(results))
        if path.name in CLOSING or path.name.startswith("writing_") or path.suffix in (".tmp", ".partial"):
            found[name] = None
        if path.name == "metrics.csv":
            rows = list(csv.DictReader(path.open(newline="")))
            found[name] = [row.get("timesteps") or {k: v for k, v in row.items() if k[:5] != "time/"} for row in rows]
        elif path.name == "last.pt":
            found[name] = torch.load(path, weights_only=True)["trainer"]["student"]
        elif path.name == "summary.json":
            found[name] = json.loads(path.read_text()) | {"training_seconds": None}
        elif path.name == "table.md":
            found[name] = re.sub(r"\b\d+\.\d\b|[ -]+", " ", path.read_text())  # minutes alone have one decimal place
        elif path.suffix == ".zip":
            found[name] = of_one_moment(path)
        elif path.suffix == ".npy" and not path.is_symlink() and "aggregated" not in path.parts:
            found[name] = np.load(path)
    return found


def of_one_moment(path: Path) -> bool:
    """Return whether a teacher's checkpoint loads, and the statistics beside it are of the same step."""
    from stable_baselines3 import SAC

    try:
        model = SAC.load(path, device="cpu", custom_objects={"learning_rate": 0.0, "lr_schedule": 0.0})
        statistics = pickle.loads(path.with_name(f"{path.stem}_vecnormalize.pkl").read_bytes())
    except Exception:  # damaged files may break anything
        return False
    return (
        0 < statistics.obs_rms.count - model.num_timesteps < 100
    )  # every start adds an observation of each environment


def same(one: Any, other: Any) -> bool:
    """Compare two outcomes, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other, equal_nan=True) if isinstance(one, np.ndarray) else one == other


def prepare(place: Path, names: Sequence[str], views: str) -> dict[str, Scenario]:
    """Make dataset and parent, and one unbroken run of each command, all under some views."""

    def words(line: str) -> list[str]:
        takes_views = PUSHER in line and "--Dagger_phase" not in line  # which inherits them
        return [word.format(place=place) for word in line.split()] + ["--views", views] * takes_views

    shared, lines = place / "shared", " ".join(COMMANDS[name] for name in names)
    (place / "planner.py").write_text(STEER)
    (place / "study.toml").write_text(STUDY.replace("VIEWS", views))
    needed = [PARENT] if PARENTS in lines else []
    for line in ([DATASET] if needed or "--dataset" in lines else []) + needed:
        if start(words(line), shared, place / "shared.log").wait():
            sys.exit((place / "shared.log").read_text())
    scenarios = {}
    for name in names:
        command, results = words(COMMANDS[name]), link(place / f"{name}_unbroken", shared)
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


def spell(scenario: Scenario, results: Path, log: Path, moment: float, way: str) -> int:
    """Run or go on with a command, and cut it after `moment` seconds if it still runs; returns its exit status.

    `way` is a key of `Scenario.kills`. Whatever was killed, the command has to end by itself.
    """
    if any(path.suffix != ".partial" for path in results.glob("Pusher/Teacher/dataset_10k*")):
        return 0  # it was killed when all was there
    before = log.read_text() if log.exists() else ""
    run = start(scenario.command, results, log)
    started = time.monotonic()
    if not wait_for_end([run.pid], moment):
        if not before:
            scenario.seconds = time.monotonic() - started
        return run.wait()
    family = descendants(run.pid)
    study = "Study.py" in scenario.command[0]
    victims = (children if study else workers)(run.pid) if way == "worker" else []
    way = "run" if way == "worker" and not victims else way
    number = random.choice([signal.SIGTERM, signal.SIGUSR1]) if way == "stop" else signal.SIGKILL
    try:
        os.kill(random.choice(victims or [run.pid]), number)
    except ProcessLookupError:  # it has just ended
        return run.wait()
    try:
        status = run.wait(40 + 10 * scenario.seconds)  # a study makes its other runs
    except subprocess.TimeoutExpired:
        scenario.problems.append(f"goes on after {number.name} to its {way}")
        run.kill()
        status = run.wait()
    if status:
        scenario.kills[way] += 1
        if left := wait_for_end(family, 60):
            scenario.problems.append(f"{len(left)} processes are left after {number.name} to its {way}")
        said = log.read_text().removeprefix(before)
        statuses, line = {
            "run": ([-number], ""),
            "worker": ([1], "failed (-9)" if study else "died (exit code -9)"),
            "stop": ([128 + number, -number], "continues"),  # the latter before it handles signals
        }[way]
        if status not in statuses or (status > 0 and line not in said):
            scenario.problems.append(f"status {status} after {number.name} to its {way}: {said[-300:]}")
    return status


def crash(scenarios: dict[str, Scenario], place: Path, kills: int, tell: Callable[[str], object]) -> None:
    """Kill and go on until there were `kills` kills, shared out over the commands, and all that were begun have finished."""

    def total() -> int:
        return sum(scenario.killed for scenario in scenarios.values())

    turns: Iterator[tuple[str, Scenario]] = cycle(scenarios.items())
    while total() < kills:
        name, scenario = next(turns)
        results = link(place / f"{name}_{scenario.runs}", place / "shared")
        log = place / f"{name}_{scenario.runs}.log"
        scenario.runs += 1
        before, status = scenario.killed, -1
        while status:
            enough = total() >= kills or scenario.killed - before >= min(6, -(-kills // len(scenarios)))
            moment = 3600.0 if enough else random.uniform(0.0, 0.8 * scenario.seconds)
            was = scenario.killed
            status = spell(scenario, results, log, moment, random.choices(["run", "worker", "stop"], [2, 2, 1])[0])
            if status and scenario.killed == was:
                scenario.problems.append(f"exit status {status}: {log.read_text().splitlines()[-1]}")
                break
        found = outcome(results)
        names = sorted(found.keys() | scenario.expected.keys())
        unlike = [name for name in names if not same(found.get(name, 0), scenario.expected.get(name, 0))]
        scenario.equal += not unlike
        if unlike:
            scenario.problems.append(f"run {scenario.runs - 1} differs in {unlike}")
        end = "failed" if status else f"differs in {unlike}" if unlike else "ended as unbroken"
        tell(f"{name}: {scenario.killed - before} kills, {end}; {total()} in all; problems: {scenario.problems}")


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
        place = (arguments.keep or Path(temporary)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        scenarios = prepare(place, arguments.methods, arguments.views)
        crash(scenarios, place, arguments.kills, lambda line: print(line, file=sys.stderr, flush=True))
    left = sorted(name for name in os.listdir("/dev/shm") if name not in shared_memory and name.startswith(OURS))
    told = ("kills", "runs", "equal", "problems")
    methods = {}
    for name, s in scenarios.items():
        methods[name] = {"seconds_unbroken": round(s.seconds, 1)} | {key: getattr(s, key) for key in told}
    kills = sum(s.killed for s in scenarios.values())
    report = {"machine": machine(), "kills": kills, "left_in_shared_memory": left, "methods": methods}
    print(json.dumps(report, indent=2))
    sys.exit(bool(left) or any(s.problems or s.equal < s.runs for s in scenarios.values()))


if __name__ == "__main__":
    main()
