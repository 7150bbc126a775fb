"""Run a study, a file of experiments: whatever is missing of it, and then its table and plots. Cut anywhere, it goes on.

The file has settings of all runs in `[common]`, where each takes what its method has, and experiments in `[[runs]]`: a
`method` (a flag of Pusher.py, without the dashes), a `name`, what is particular to it, and `run_index`, a list ([0] unless
given, also in common). Any other list is a grid, an experiment for each value. DAgger has a `parent`: the name of the
experiment of cloning, further up, that it goes on from, index by index. Paths are relative to the repository. Beside the
picture of all experiments, `[pictures]` asks for some of a few: `methods = ["PPD", "DAgger-*"]` is drawn as methods.png.
"""

import argparse
import contextlib
import csv
import json
import shlex
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from Common.Command_line import OneLineParser, one_line_errors
from Common.Errors import BadInput
from Common.Files import ROOT, locked, write_json
from Distillation.Plot import draw, tables
from Distillation.Runs import find_runs
from Distillation.Study_file import PLACES, Study, StudyRun, as_flags, read_study
from Distillation.Study_jobs import POLL_S, Engine, Handle, Job, Local
from Distillation.Utils import DATASET_SIZES, NOISE, Cloning, DAgger, dataset_folder

STUDIES = Path(__file__).with_name("Studies")


def plan(runs: Sequence[StudyRun]) -> list[Job]:
    """Return what is to be done, in an order in which it can be: one run of each experiment, then a second one of each.

    Those are the runs that are not released, the datasets they learn from, and runs of cloning that DAgger is to go on from
    and whose figures alone are here.
    """
    missing = {run for run in runs if not run.finished(run.released)}
    missing |= {run.parent for run in missing if run.parent and not run.parent.finished(run.parent.folder)}
    todo = sorted((run for run in runs if run in missing), key=lambda run: run.config.run_index)
    datasets = _collections(todo)
    jobs: dict[Any, Job] = {}
    for run in todo:
        needs = [jobs[run.parent]] if run.parent in jobs else []
        if isinstance(run.config, Cloning | DAgger) and _data(run.config) in datasets:
            needs.append(datasets[_data(run.config)])
        jobs[run] = Job(run.name, run.command, needs, run)
    return [*datasets.values(), *jobs.values()]


def _data(config: Cloning | DAgger) -> tuple[Any, ...]:
    """Return what a run's dataset is of: the task, and how its teacher drove."""
    return config.task, *(getattr(config, name) for name in NOISE)


def _collections(runs: Sequence[StudyRun]) -> dict[tuple[Any, ...], Job]:
    """Return for each task and noise the collection of the largest dataset that runs learn from, unless it is there."""
    learning = [run.config for run in runs if isinstance(run.config, Cloning | DAgger)]
    jobs = {}
    for config in sorted(learning, key=lambda config: DATASET_SIZES[config.dataset]):
        keys = ("task", "device", "render_quality", "teacher", "results_dir", *NOISE)
        flags = {key: getattr(config, key) for key in keys}
        flags["num_data"] = samples = DATASET_SIZES[config.dataset]
        if not any(dataset_folder(config, size).exists() for size in DATASET_SIZES.values() if size >= samples):
            name = dataset_folder(config, samples).name
            jobs[_data(config)] = Job(name, ["--C_data", *as_flags(flags)], [])
    return jobs


def work(jobs: Sequence[Job], engine: Engine, logs: Path, spent: dict[Any, list[float]]) -> bool:
    """Do the jobs, some at once, and release the runs; returns whether all came to their end.

    Args:
        jobs: from `plan`.
        engine: what they run on.
        logs: folder for what they print.
        spent: seconds of the runs that have finished, [method, mode]; grows.
    """
    waiting, done = list(jobs), set[Job]()
    running: dict[Job, Handle] = {}

    def left() -> str:
        every = [seconds for each in spent.values() for seconds in each]
        if not (waiting or running) or not every:
            return f"{len(waiting) + len(running)} left"
        expected = {job: float(np.mean(spent.get(job.kind) or every)) for job in (*waiting, *running)}
        gone = {job: handle.seconds for job, handle in running.items()}
        seconds = sum(max(expected[job] - gone.get(job, 0), 0) for job in expected) / engine.at_once
        return f"{len(expected)} left, about {_clock(seconds)}"

    print(left(), flush=True)
    try:
        while waiting or running:
            ready = [job for job in waiting if done.issuperset(job.needs)]
            for job in ready[: engine.slots - len(running)]:
                waiting.remove(job)
                running[job] = engine.start(job)
            if not running:
                break
            time.sleep(POLL_S)
            for job, handle in list(running.items()):
                status = handle.poll()
                if status is None:
                    continue
                del running[job]
                if status:
                    log = logs / f"{job.name}.log"
                    last = log.read_text(errors="replace").rstrip().rpartition("\n")[2] if log.is_file() else ""
                    print(f"{job.name} failed ({status}): {last} ({log})", flush=True)
                    continue
                done.add(job)
                seconds, scores = handle.seconds, ""
                if job.run is not None:
                    summary = release(job.run)
                    spent[job.kind].append(max(seconds, summary["training_seconds"]))
                    student = summary["OD"]["student"]
                    scores = "normalized {normalized_return:.3f}  success {success:.2f}  ".format(**student)
                print(f"{job.name:<30}{_clock(seconds):>8}  {scores}{left()}", flush=True)
    finally:
        for handle in running.values():
            handle.terminate()
        for handle in running.values():
            handle.wait()
    for job in waiting:
        print(f"{job.name} not begun: what it needs has failed")
    return len(done) == len(jobs)


def _clock(seconds: float) -> str:
    for unit, length in (("s", 1), ("min", 60)):
        if seconds < 100 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def release(run: StudyRun) -> dict[str, Any]:
    """Copy what is worth committing of a run that has finished, unless it is there; returns its summary.

    The summary comes last, for it says that all is there. Where things lie is left out of `config.json`, and of `metrics.csv`
    all rows without a test.
    """
    if not run.finished(run.released):
        (run.released / "summary.json").unlink(missing_ok=True)
        config = json.loads((run.folder / "config.json").read_text())
        write_json(run.released / "config.json", {key: config[key] for key in config if key not in PLACES})
        with (run.folder / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["test/OD/return"]]
        with (run.released / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        write_json(run.released / "summary.json", json.loads((run.folder / "summary.json").read_text()))
    return json.loads((run.released / "summary.json").read_text())


def write_results(folder: Path, study: Study) -> None:
    """Write pictures and table of the released runs."""
    finished = [run for run in study.runs if run.finished(run.released)]
    if not finished:
        print("nothing to draw yet")
        return
    found = find_runs([run.released for run in finished])
    drawn = [draw(found, folder / "curve")]
    for name, experiments in study.pictures.items():
        some = [run.released for run in finished if run.entry in experiments]
        drawn += [draw(find_runs(some), folder / name)] if some else []
    table = tables(found)
    (folder / "table.md").write_text(
        f"`python Distillation/Study.py {folder.name}`, {len(finished)} of {len(study.runs)} runs: interquartile means over the runs of "
        f"their closing OD episodes, and 95 % bootstrap intervals.\n\n{table}\n"
    )
    print(f"\n{table}\n")
    for path in (*(file for picture in drawn for file in (picture, picture.with_suffix(".svg"))), folder / "table.md"):
        print(path)


def run_study(
    study: Study,
    folder: Path,
    engine: Callable[[], contextlib.AbstractContextManager[Engine]] | None,
    dry_run: bool,
) -> bool:
    """Make the runs that are missing on an engine, if there is one, and write the results; returns whether none failed.

    Raises:
        BadFile: another runner is at work in the folder.
    """
    working = engine is not None and not dry_run
    with locked(folder / "runs") if working else contextlib.nullcontext():
        jobs = plan(study.runs)
        finished = [run for run in study.runs if run.finished(run.released)]
        print(f"{folder.name}: {len(finished)} of {len(study.runs)} runs finished")
        for run in study.runs:
            if run not in finished and (run.released / "summary.json").is_file():
                print(f"{run.name} counts as missing: {', '.join(run.unlike(run.released))}")
        if dry_run:
            for job in jobs:
                print("Pusher.py", shlex.join(job.command))
            return True
        complete = True
        if working and jobs:
            assert engine is not None
            spent: dict[Any, list[float]] = defaultdict(list)
            for run in finished:
                seconds = json.loads((run.released / "summary.json").read_text())["training_seconds"]
                spent[run.config.method, run.config.mode].append(seconds)
            with engine() as running_on:
                complete = work(jobs, running_on, folder / "runs", spent)
        write_results(folder, study)
        return complete


def choose_engine(
    arguments: argparse.Namespace, logs: Path
) -> Callable[[], contextlib.AbstractContextManager[Engine]] | None:
    """Return what starts the engine that the command line asks for, None for `--jobs 0`.

    Raises:
        BadInput: it asks for what cannot be.
    """
    if arguments.ray is not None:
        from Distillation.Study_ray import Ray

        if arguments.jobs is not None:
            raise BadInput(
                "--jobs is for this machine; with --ray, --cpus and --gpus of a run say how many run at once"
            )
        cpus, gpus = 1 if arguments.cpus is None else arguments.cpus, arguments.gpus or 0.0
        whole = gpus == int(gpus) if abs(gpus) < 1000 else False
        if cpus < 1 or not ((whole and gpus >= 0) or 0.01 <= gpus < 1):
            raise BadInput(
                "--cpus of 1 or more is needed, and as --gpus a whole number, or a share of one such as 0.25"
            )
        return lambda: Ray.connected(arguments.ray, cpus, gpus, logs)
    jobs = 1 if arguments.jobs is None else arguments.jobs
    if arguments.cpus is not None or arguments.gpus is not None:
        raise BadInput("--cpus and --gpus are for --ray")
    if jobs < 0:
        raise BadInput(f"--jobs {jobs}: 0 or more is needed")
    return (lambda: contextlib.nullcontext(Local(jobs, logs))) if jobs else None


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("study", help="a name in Distillation/Studies, or a .toml file")
    parser.add_argument("--jobs", type=int, help="runs at once; 0: only draw what there is (default: 1)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="run on Ray instead: on the cluster at ADDRESS, whose machines share this folder, or on this machine",
    )
    parser.add_argument("--cpus", type=int, help="with --ray: cores of a run (default: 1)")
    parser.add_argument("--gpus", type=float, help="with --ray: GPUs of a run; half of one each: 0.5 (default: 0)")
    parser.add_argument("--dry_run", action="store_true", help="say what would be run")
    parser.add_argument("--results_dir", default="Results", help="relative to the repository (default: Results)")
    arguments = parser.parse_args(argv)
    path = Path(arguments.study)
    path = path if path.suffix == ".toml" else STUDIES / f"{path}.toml"
    results = Path(arguments.results_dir).expanduser() / "Studies" / path.stem
    with one_line_errors(parser.prog, "the same command goes on"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        engine = choose_engine(arguments, ROOT / results / "runs")
        complete = run_study(read_study(path, results), ROOT / results, engine, arguments.dry_run)
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
