"""Run a study, a file of experiments: whatever is missing of it, and then its table and plots. Cut anywhere, it goes on.

The file has settings of all runs in `[common]`, where each takes what its method has, and experiments in `[[runs]]`: a
`method` (a flag of Pusher.py, without the dashes), a `name`, what is particular to it, and `run_index`, a list ([0] unless
given, also in common). Any other list is a grid, an experiment for each value. DAgger has a `parent`: the name of the
experiment of cloning, further up, that it goes on from, index by index. Paths are relative to the repository.
"""

import argparse
import contextlib
import csv
import ctypes
import dataclasses
import fcntl
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from Algorithm.Config import BadInput
from Distillation.Plot import SEEDS_AND_PLACES, draw, find_runs, markdown, scores
from Distillation.Utils import (
    DATASET_SIZES,
    METHODS,
    ROOT,
    Cloning,
    CommonConfig,
    DAgger,
    ExperimentConfig,
    OneLineParser,
    file_hash,
    task_folder,
    write_json,
)

STUDIES = Path(__file__).with_name("Studies")
PLACES = ("run_name", "results_dir", "folder_Dagger")  # settings that the runner chooses
POLL_S = 0.2


@dataclass(frozen=True, eq=False)
class StudyRun:
    """One run of a study.

    Attributes:
        entry: its experiment's name.
        settings: the flags that the study sets.
        config: all settings.
        parent: the run of cloning that a run of DAgger goes on from.
        released: folder of what is worth committing.
        wanted: what the run's `config.json` must say to be this run's.
    """

    entry: str
    settings: dict[str, Any]
    config: ExperimentConfig
    parent: "StudyRun | None"
    released: Path
    wanted: dict[str, Any]

    @property
    def name(self) -> str:
        """Its folder's and its log's."""
        return self.config.name

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return task_folder(self.config) / self.config.folder / self.name

    def unlike(self, folder: Path) -> list[str]:
        """Say what a run's folder has otherwise than wanted."""
        try:
            return list(_unlike(self.wanted, json.loads((folder / "config.json").read_text())))
        except (OSError, ValueError):
            return ["no whole config.json"]

    def finished(self, folder: Path) -> bool:
        """Return whether a folder holds the closing figures of the run that is wanted."""
        return (folder / "summary.json").is_file() and not self.unlike(folder)


def _unlike(wanted: dict[str, Any], config: dict[str, Any], whose: str = "") -> Iterator[str]:
    for key, value in wanted.items():
        if key == "parent":
            yield from _unlike(value, config.get(key, {}), "its parent's ")
        elif config.get(key) != value:
            yield f"{whose}{key} was {json.dumps(config.get(key))}"


def read_study(path: Path, results: Path) -> list[StudyRun]:
    """Read a study and check every setting of every run.

    Args:
        path: its file.
        results: the study's folder; runs go into `runs` there, what is released into `<entry>/run<k>`.

    Raises:
        BadInput: the file is not there or not TOML, or something in it cannot be; the message says where.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from None
    common, entries = content.pop("common", {}), content.pop("runs", [])
    tables = [common, *entries] if isinstance(entries, list) and entries else [None]
    if content or not all(isinstance(table, dict) for table in tables):
        raise BadInput(f"{path}: {', '.join(content) or 'no runs'}: settings in [common] and [[runs]] are needed")
    runs: dict[tuple[str, int], StudyRun] = {}
    unused = set(common) - {"run_index"}
    for number, entry in enumerate(entries, 1):
        where = f"{path}: {entry.get('name', f'runs {number}')}"
        try:
            flags = _flags(entry)
            unused -= flags.keys()
            taken = {key: value for key, value in common.items() if key in flags or key == "run_index"}
            for run in _expand(taken | entry, flags, results, runs):
                if runs.setdefault((run.entry, run.config.run_index), run) is not run:
                    raise BadInput(f"{run.name} stands there twice")
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
    if unused:
        raise BadInput(f"{path}: common: {', '.join(sorted(unused))}: no setting of any of the runs")
    _check_together(path, list(runs.values()))
    return list(runs.values())


def _flags(entry: dict[str, Any]) -> dict[str, dataclasses.Field]:
    """Return the settings that an entry can have."""
    methods = {name: config for name, config in METHODS.items() if issubclass(config, ExperimentConfig)}
    method = entry.get("method")
    if method not in methods:
        raise BadInput(f"method {method!r}: one of {', '.join(methods)} is needed")
    config = methods[method]
    barred = {*PLACES, *config.inherited, "run_index"}
    return {field.name: field for field in dataclasses.fields(config) if field.name not in barred}


def _expand(
    entry: dict[str, Any],
    flags: dict[str, dataclasses.Field],
    results: Path,
    earlier: dict[tuple[str, int], StudyRun],
) -> Iterator[StudyRun]:
    """Yield the runs of an entry, every index of every point of its grid."""
    config_type, name, parent_name = METHODS[entry["method"]], entry.get("name"), entry.get("parent")
    indices = entry.get("run_index", [0])
    if not isinstance(name, str) or not name:
        raise BadInput("a name is needed")
    if not isinstance(indices, list) or not indices or not all(type(index) is int for index in indices):
        raise BadInput(f"run_index {indices}: a list of numbers is needed")
    if (parent_name is not None) is not (config_type is DAgger):
        raise BadInput("a parent is needed" if config_type is DAgger else "parent is for Dagger_phase")
    given = {key: value for key, value in entry.items() if key not in ("method", "name", "run_index", "parent")}
    for key in given:
        if key not in flags:
            raise BadInput(f"{key}: {'the runner chooses it' if key in PLACES else 'no setting of its method'}")
    grid = {
        key: value for key, value in given.items() if isinstance(value, list) and type(flags[key].default) is not tuple
    }
    if not all(grid.values()):
        raise BadInput("an empty list")
    for point in itertools.product(*grid.values()):
        chosen = dict(zip(grid, point))
        settings = {key: _fitting(flags[key], value) for key, value in (given | chosen).items()}
        settings.setdefault("wandb_mode", "disabled")
        words = (value if isinstance(value, str) else f"{key}{value}" for key, value in chosen.items())
        full_name = "-".join([name, *words])
        for index in indices:
            values = {"run_index": index, "run_name": f"{full_name}_run{index}", "results_dir": str(results / "runs")}
            parent = None
            if parent_name is not None:
                parent = earlier.get((parent_name, index))
                if parent is None or not isinstance(parent.config, Cloning):
                    raise BadInput(f"parent {parent_name!r}: no run {index} of BC_phase of that name further up")
                values |= {key: getattr(parent.config, key) for key in config_type.inherited}
                values["folder_Dagger"] = str(parent.folder)
            config = config_type(**values, **settings)
            assert isinstance(config, ExperimentConfig)
            config.check()
            config.check_sight()
            teacher = ROOT / (config.teacher or f"Results/{config.task}/Teacher/teacher.pt")
            if not teacher.is_file():
                raise BadInput(f"no teacher in {teacher}")
            wanted = {key: value for key, value in settings.items() if key not in CommonConfig.free}
            wanted |= {"method": config.method, "teacher_sha256": file_hash(teacher)}
            wanted |= {"parent": parent.wanted} if parent else {}
            released = ROOT / results / full_name / f"run{index}"
            yield StudyRun(full_name, settings, config, parent, released, json.loads(json.dumps(wanted)))


def _fitting(field: dataclasses.Field, value: Any) -> Any:
    """Return a value from the file as the setting has it."""
    default: Any = "" if field.default is None else field.default
    if isinstance(default, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default) or (isinstance(value, tuple) and [*map(type, value)] != [*map(type, default)]):
        like = " ".join(map(str, default)) if isinstance(default, tuple) else type(default).__name__
        raise BadInput(f"{field.name} {value!r}: {like} is needed")
    return value


def _check_together(path: Path, runs: Sequence[StudyRun]) -> None:
    """Refuse experiments that are the same, and clonings that need different datasets of one name."""
    experiments: dict[str, str] = {}
    datasets: dict[str, StudyRun] = {}
    for run in runs:
        settings = {k: v for k, v in dataclasses.asdict(run.config).items() if k not in SEEDS_AND_PLACES}
        key = json.dumps([run.config.method, run.parent and run.parent.entry, settings, run.config.teacher])
        other = experiments.setdefault(key, run.entry)
        if other != run.entry:
            raise BadInput(f"{path}: {run.entry}: the same experiment as {other}")
        first = datasets.setdefault(run.config.task, run) if isinstance(run.config, Cloning) else run
        for key in ("render_quality", "teacher"):
            if getattr(run.config, key) != getattr(first.config, key):
                raise BadInput(f"{path}: {run.entry}: another {key} than {first.entry}'s, whose dataset it learns from")


@dataclass(frozen=True, eq=False)
class Job:
    """A call of Pusher.py.

    Attributes:
        name: of what it makes.
        command: its arguments.
        needs: jobs that come before.
        run: the run, unless it collects a dataset.
    """

    name: str
    command: list[str]
    needs: list["Job"]
    run: StudyRun | None = None

    @property
    def kind(self) -> tuple[str, str] | None:
        """What takes about as long."""
        return (self.run.config.method, self.run.config.mode) if self.run else None


def plan(runs: Sequence[StudyRun], threads: int) -> list[Job]:
    """Return what is to be done, in an order in which it can be, each job with so many threads.

    Those are the runs that are not released, the datasets they learn from, and runs of cloning that DAgger is to go on from
    and whose figures alone are here.
    """
    missing = {run for run in runs if not run.finished(run.released)}
    missing |= {run.parent for run in missing if run.parent and not run.parent.finished(run.parent.folder)}
    todo = [run for run in runs if run in missing]
    collections = _collections(todo, threads)
    jobs: dict[StudyRun, Job] = {}
    for run in todo:
        needs = [jobs[run.parent]] if run.parent in jobs else []
        if isinstance(run.config, Cloning | DAgger) and run.config.task in collections:
            needs.append(collections[run.config.task])
        begun = (run.folder / "checkpoints" / "last.pt").is_file() and not run.unlike(run.folder)
        goes_on = begun and (run.parent is None or run.parent.finished(run.parent.folder))
        flags = {"num_workers": threads} | run.settings | {key: getattr(run.config, key) for key in PLACES[:2]}
        flags |= {"folder_Dagger": run.parent.folder} if run.parent else {"run_index": run.config.run_index}
        command = [f"--{run.config.method}", *_words(flags), "--resume" if goes_on else "--overwrite"]
        jobs[run] = Job(run.name, command, needs, run)
    return [*collections.values(), *jobs.values()]


def _collections(runs: Sequence[StudyRun], threads: int) -> dict[str, Job]:
    """Return for each task the collection of the largest dataset that the runs learn from, if it is not there."""
    largest: dict[str, Cloning | DAgger] = {}
    for run in runs:
        if isinstance(run.config, Cloning | DAgger):
            known = largest.setdefault(run.config.task, run.config)
            largest[run.config.task] = max(known, run.config, key=lambda config: DATASET_SIZES.index(config.dataset))
    jobs = {}
    for task, config in largest.items():
        enough = DATASET_SIZES[DATASET_SIZES.index(config.dataset) :]
        if not any((task_folder(config) / "Teacher" / f"dataset_{size}").exists() for size in enough):
            flags = {
                key: getattr(config, key) for key in ("task", "device", "render_quality", "teacher", "results_dir")
            }
            flags |= {"num_workers": threads, "num_data": 1000 * int(config.dataset.removesuffix("k"))}
            jobs[task] = Job(f"dataset_{config.dataset}", ["--C_data", *_words(flags)], [])
    return jobs


def _words(flags: dict[str, Any]) -> Iterator[str]:
    for name, value in flags.items():
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        elif value is not None:
            yield from (f"--{name}", *map(str, value if isinstance(value, tuple) else (value,)))


def work(jobs: Sequence[Job], at_once: int, logs: Path, spent: dict[Any, list[float]], lock: IO) -> bool:
    """Do the jobs, some at once, and release the runs; returns whether all came to their end.

    Args:
        jobs: from `plan`.
        at_once: how many.
        logs: folder for what they print.
        spent: seconds of the runs that have finished, [method, mode]; grows.
        lock: an open file that they keep open too.
    """
    waiting, done = list(jobs), set[Job]()
    running: dict[Job, tuple[subprocess.Popen, float]] = {}

    def left() -> str:
        every = [seconds for each in spent.values() for seconds in each]
        if not (waiting or running) or not every:
            return f"{len(waiting) + len(running)} left"
        expected = {job: float(np.mean(spent.get(job.kind) or every)) for job in (*waiting, *running)}
        gone = {job: time.monotonic() - begun for job, (_, begun) in running.items()}
        seconds = sum(max(expected[job] - gone.get(job, 0), 0) for job in expected) / at_once
        return f"{len(expected)} left, about {_clock(seconds)}"

    print(left(), flush=True)
    try:
        while waiting or running:
            ready = [job for job in waiting if done.issuperset(job.needs)]
            for job in ready[: at_once - len(running)]:
                waiting.remove(job)
                running[job] = _start(job, logs / f"{job.name}.log", at_once, lock), time.monotonic()
            if not running:
                break
            time.sleep(POLL_S)
            for job, (process, begun) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[job]
                if process.returncode:
                    log = logs / f"{job.name}.log"
                    last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
                    print(f"{job.name} failed ({process.returncode}): {last} ({log})", flush=True)
                    continue
                done.add(job)
                seconds, scores = time.monotonic() - begun, ""
                if job.run is not None:
                    summary = release(job.run)
                    spent[job.kind].append(max(seconds, summary["training_seconds"]))
                    student = summary["OD"]["student"]
                    scores = "normalized {normalized_return:.3f}  success {success:.2f}  ".format(**student)
                print(f"{job.name:<30}{_clock(seconds):>8}  {scores}{left()}", flush=True)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()
    for job in waiting:
        print(f"{job.name} not begun: what it needs has failed")
    return len(done) == len(jobs)


def _start(job: Job, log: Path, at_once: int, lock: IO) -> subprocess.Popen:
    """Start a job, in a session of its own: Ctrl-C is the runner's."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        return subprocess.Popen(
            [sys.executable, Path(__file__).with_name("Pusher.py"), *job.command],
            cwd=ROOT,
            env={"OMP_NUM_THREADS": str(_threads(at_once))} | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock.fileno()],
            preexec_fn=_end_with_runner,
        )


def _end_with_runner() -> None:
    """Have Linux kill this process if the runner is killed; elsewhere it goes on, and keeps the next runner out."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of sys/prctl.h


def _threads(at_once: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // max(1, at_once))


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


def write_results(folder: Path, runs: Sequence[StudyRun]) -> None:
    """Write plots and table of the released runs."""
    finished = [run.released for run in runs if run.finished(run.released)]
    if not finished:
        print("nothing to draw yet")
        return
    found = find_runs(finished)
    picture, table = draw(found, folder / "curve"), markdown(scores(found))
    (folder / "table.md").write_text(
        f"`python Distillation/Study.py {folder.name}`, {len(finished)} of {len(runs)} runs: interquartile means over the runs of "
        f"their closing OD episodes, and 95 % bootstrap intervals.\n\n{table}\n"
    )
    print(f"\n{table}\n\n{picture}\n{picture.with_suffix('.svg')}\n{folder / 'table.md'}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("study", help="a name in Distillation/Studies, or a .toml file")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; 0: only draw what there is (default: 1)")
    parser.add_argument("--dry_run", action="store_true", help="say what would be run")
    parser.add_argument("--results_dir", default="Results", help="relative to the repository (default: Results)")
    arguments = parser.parse_args(argv)
    path = Path(arguments.study)
    path = path if path.suffix == ".toml" else STUDIES / f"{path}.toml"
    results = Path(arguments.results_dir).expanduser() / "Studies" / path.stem
    try:
        if arguments.jobs < 0:
            raise BadInput(f"--jobs {arguments.jobs}: 0 or more is needed")
        complete = run_study(read_study(path, results), ROOT / results, arguments.jobs, arguments.dry_run)
    except BadInput as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
    sys.exit(0 if complete else 1)


def run_study(runs: Sequence[StudyRun], folder: Path, at_once: int, dry_run: bool) -> bool:
    """Make the runs that are missing, so many at once, and write the results; returns whether none failed.

    Raises:
        BadInput: another runner is at work in the folder.
    """
    with contextlib.ExitStack() as stack:
        lock = None
        if at_once and not dry_run:
            lock = stack.enter_context(_lock(folder / "runs" / "lock"))
        jobs = plan(runs, _threads(at_once))
        finished = [run for run in runs if run.finished(run.released)]
        print(f"{folder.name}: {len(finished)} of {len(runs)} runs finished")
        for run in runs:
            if run not in finished and (run.released / "summary.json").is_file():
                print(f"{run.name} counts as missing: {', '.join(run.unlike(run.released))}")
        if dry_run:
            for job in jobs:
                print("Pusher.py", shlex.join(job.command))
            return True
        complete = True
        if lock:
            spent: dict[Any, list[float]] = defaultdict(list)
            for run in finished:
                seconds = json.loads((run.released / "summary.json").read_text())["training_seconds"]
                spent[run.config.method, run.config.mode].append(seconds)
            complete = work(jobs, at_once, folder / "runs", spent, lock)
        write_results(folder, runs)
        return complete


def _lock(path: Path) -> IO:
    """Return a file that keeps other runners out as long as it is open, here or in a job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BadInput(f"another runner is at work in {path.parent}") from None
    return file


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
