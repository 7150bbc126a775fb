"""Peers and our methods on the same tasks: the same teacher, data and frames, by our evaluation; and the table of their results.

    python benchmarks/peers/run.py --task Pusher --minutes 10            # what is finished already is not run again
    python benchmarks/peers/run.py --task Pusher --table

Each peer trains for so many minutes in an environment of its own, a layer over this one (`.[dev]`) that holds the peer and what
else it needs. Ours make as many updates as the sample mark takes, on which their learning rates depend. `Results/Peers/<task>/`
has a file for each peer and seed, in its first row the settings, and then a row for every evaluation; of a peer that
failed, a text with the reason.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
import tokenize
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ours
from adapter import Checkpoint
from common import machine

from Common.Command_line import OneLineParser, one_line_errors
from Common.Errors import BadFile, BadInput, RunError
from Common.Files import RESULTS, ROOT, read_json, write_json, write_text
from Enviroment.Tasks import find_task

PLACE = Path(__file__).resolve().parent
WORK = PLACE / ".work"  # datasets, our runs, what peers leave
SETTINGS = ("frames", "samples", "minutes", "every", "episodes")
SLACK = 0.05  # a peer that looks at the clock between rollouts ends so much too late, as a share


@dataclass(frozen=True)
class Peer:
    """How a peer is run: its script, the environment it needs, and its share of the teacher's data."""

    script: str
    environment: str | None = None
    data: float = 0.0


PEERS = {
    "imitation-bc": Peer("imitation_bc.py", "imitation", 1),
    "imitation-dagger": Peer("imitation_dagger.py", "imitation", 0.5),
    "sb3-ppo": Peer("sb3_ppo.py", "stable_baselines3"),
    "rsl-rl": Peer("rsl_distillation.py", "rsl_rl"),
    "sb3-distill": Peer("spigler_ppd.py", "sb3_distill"),
    "ours-bc": Peer("ours.py", data=1),
    "ours-dagger": Peer("ours.py", data=0.5),
    "ours-ppd": Peer("ours.py"),
}


def environment(name: str) -> Path:
    """Return the Python of a peer's environment, which is made unless it is there; raises `RunError` if that fails."""
    folder, requirements = PLACE / ".venv" / name, PLACE / f"requirements-{name}.txt"
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if installed.exists() and installed.read_text() == requirements.read_text():
        return python
    venv.create(folder, clear=True, symlinks=True)
    (next(folder.glob("lib/python*/site-packages")) / "project.pth").write_text(sysconfig.get_path("purelib"))
    pip: list[Any] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "-r",
        requirements,
    ]
    run = subprocess.run(pip, capture_output=True, text=True)
    if run.returncode:
        lines = run.stderr.splitlines()
        raise RunError("cannot be installed: " + next((line for line in lines if "fatal: " in line), lines[-1]).strip())
    shutil.copy(requirements, installed)
    return python


def dataset(arguments: argparse.Namespace) -> tuple[Path, float]:
    """Return the teacher's dataset, which is collected unless it is there, and the seconds that took."""
    name = find_task(arguments.task).name
    folder = WORK / name / "Teacher" / f"dataset_{ours.SIZES[arguments.frames]}"
    timed = folder.with_suffix(".json")
    if not timed.exists():
        started = time.perf_counter()
        script: list[Any] = [sys.executable, ROOT / "Distillation" / "Pusher.py", "--C_data", "--task", arguments.task]
        script += ["--num_data", str(arguments.frames), "--results_dir", WORK, "--overwrite"]
        subprocess.run(script, check=True)
        write_json(timed, {"seconds": time.perf_counter() - started})
    return folder, read_json(timed)["seconds"]


def train(name: str, arguments: argparse.Namespace, output: Path) -> None:
    """Train a peer, and write its file; raises `RunError` if it fails."""
    peer, part = PEERS[name], output.with_suffix(".part")
    python = environment(peer.environment) if peer.environment else Path(sys.executable)
    data, seconds = dataset(arguments)
    settings = {setting: getattr(arguments, setting) for setting in SETTINGS}
    write_text(part, json.dumps({"task": arguments.task, **settings, "machine": machine()}) + "\n")
    if peer.environment is None:
        ours.train(name, arguments, peer.data * seconds, data, part)
    else:
        scratch = WORK / f"{output.parent.name}_{output.stem}"
        shutil.rmtree(scratch, ignore_errors=True)
        given = {"task": arguments.task, "seed": arguments.seed, **settings}
        given |= {"data_seconds": peer.data * seconds, "data": data, "output": part, "scratch": scratch}
        script: list[Any] = [
            python,
            PLACE / peer.script,
            *(str(x) for key, value in given.items() for x in (f"--{key}", value)),
        ]
        # Threads wait as they do by GNU's own setting, which a peer's users have.
        run = subprocess.run(script, env=os.environ | {"GOMP_SPINCOUNT": "300000"}, stderr=subprocess.PIPE, text=True)
        shutil.rmtree(scratch, ignore_errors=True)
        if run.returncode:
            raise RunError(
                f"failed: {(run.stderr.strip().splitlines() or [f'status {run.returncode}'])[-1]}", run.stderr
            )
    part.rename(output)


def user_lines(name: str) -> int:
    """Return how many lines of code a user writes for a peer: those of its script without docstrings, comments, and
    what measures; of ours the commands."""
    if name in ours.METHODS:
        return len(ours.METHODS[name])
    with (PLACE / PEERS[name].script).open() as file:
        tokens = [*tokenize.generate_tokens(file.readline)]
    measured = {token.start[0] for token in tokens if token.string == "# measured"}
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for before, token in zip([None, *tokens], tokens):
        docstring = token.type == tokenize.STRING and (before is None or before.type in skipped)
        if token.type not in skipped and not docstring:
            lines |= {*range(token.start[0], token.end[0] + 1)}
    return len(lines - measured)


def read(path: Path) -> tuple[dict[str, Any], list[Checkpoint]]:
    """Return the settings and the checkpoints of a peer's file; raises `BadFile` if it is damaged."""
    try:
        settings, *rows = map(json.loads, path.read_text().splitlines())
        return settings, [Checkpoint(**row) for row in rows]
    except (ValueError, TypeError) as error:
        raise BadFile(f"{path}: damaged ({error})") from error


def scores(settings: dict[str, Any], rows: Sequence[Checkpoint]) -> dict[str, float | None]:
    """Return the numbers of a run in the table; None for what it did not reach."""
    late = 60 * settings["minutes"] * (1 + SLACK)
    enough = [row for row in rows if row.seen >= 0.99 * settings["samples"]]  # ours end a few samples before
    in_time = [row for row in rows if row.seconds <= late]

    def minutes(goal: float) -> float | None:
        return next((row.seconds / 60 for row in rows if row.normalized_return >= goal), None)

    return {
        "at samples": enough[0].normalized_return if enough else None,
        "at minutes": in_time[-1].normalized_return if in_time else None,
        "success": in_time[-1].success if in_time else None,
        "to 0.9": minutes(0.9),
        "to 0.95": minutes(0.95),
        "collected": in_time[-1].collected if in_time else None,
        "seen": in_time[-1].seen if in_time else None,
    }


def table(folder: Path) -> str:
    """Return the Markdown table of a task's results, means over seeds; raises `BadFile` for files of different settings."""
    found = {name: [read(path) for path in sorted(folder.glob(f"{name}_seed*.jsonl"))] for name in PEERS}
    every = [settings for runs in found.values() for settings, _ in runs]
    if not every:
        raise BadInput(f"{folder}: no peer's results; run.py --task {folder.name} makes them")
    for setting in SETTINGS:
        if len({settings[setting] for settings in every}) > 1:
            raise BadFile(f"{folder}: files of different {setting}")
    samples, minutes = every[0]["samples"], every[0]["minutes"]
    lines = [
        f"| | seeds | at {samples:,} samples | at {minutes:g} min | success | min to 0.9 | min to 0.95 | steps given "
        "| samples seen | lines |",
        "|---" * 10 + "|",
    ]
    reasons = []
    forms: dict[str, Callable[[float], str]] = {"to 0.9": "{:.1f}".format, "to 0.95": "{:.1f}".format}
    forms |= {"collected": "{:,.0f}".format, "seen": "{:,.0f}".format}
    for name, runs in found.items():
        per_seed = [scores(*run) for run in runs]
        cells = []
        for key in ("at samples", "at minutes", "success", "to 0.9", "to 0.95", "collected", "seen"):
            known = [value for seed in per_seed if (value := seed[key]) is not None]
            some = f" ({len(known)} of {len(runs)})" if 0 < len(known) < len(runs) else ""
            cells.append(forms.get(key, "{:.3f}".format)(statistics.fmean(known)) + some if known else "–")
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} | {user_lines(name)} |")
        reasons += [f"- {path.stem}: {path.read_text().strip()}" for path in sorted(folder.glob(f"{name}_seed*.txt"))]
        if runs and cells[0] == "–":
            reasons.append(f"- {name}: saw fewer than {samples:,} samples in {minutes:g} minutes")
    return "\n".join([*lines, "", *reasons]).strip()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="Pusher", help="as of Distillation/Pusher.py")
    parser.add_argument("--peers", nargs="+", choices=tuple(PEERS), default=tuple(PEERS))
    parser.add_argument("--seeds", nargs="+", type=int, choices=range(6), default=(0,))
    parser.add_argument("--frames", type=int, choices=(10_000, 100_000), default=10_000, help="samples of the dataset")
    parser.add_argument("--samples", type=int, default=256_000, help="the mark of equal samples seen")
    parser.add_argument("--minutes", type=float, default=10, help="of training")
    parser.add_argument("--every", type=float, default=30, help="seconds of training between evaluations")
    parser.add_argument("--episodes", type=int, default=20, help="of an evaluation, on the OD seeds")
    parser.add_argument("--table", action="store_true", help="print the table of the task's results, and run nothing")
    return parser.parse_args()


def main() -> None:
    """Command line."""
    with one_line_errors("run.py", "the same command continues"):
        arguments = parse()
        folder = RESULTS / "Peers" / find_task(arguments.task).name
        if arguments.table:
            print(table(folder))
            return
        for seed, name in itertools.product(arguments.seeds, arguments.peers):
            arguments.seed, output = seed, folder / f"{name}_seed{seed}.jsonl"
            reason = output.with_suffix(".txt")
            if output.exists():
                continue
            print(f"{name}, seed {seed}", flush=True)
            try:
                train(name, arguments, output)
                reason.unlink(missing_ok=True)
            except (RunError, subprocess.CalledProcessError) as error:
                print(f"{error}\n{getattr(error, 'details', '')}", file=sys.stderr)
                write_text(reason, f"{error}\n")


if __name__ == "__main__":
    main()
