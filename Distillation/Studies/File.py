"""A study's file, and the runs that it describes, checked as Pusher.py checks its command line."""

import contextlib
import dataclasses
import fnmatch
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from Algorithm.Teacher_source import teacher_hash, teacher_source
from Common.Command_line import OneLineParser, as_flags
from Common.Errors import BadFile, BadInput
from Common.Files import ROOT, plain, read_json
from Common.Settings import differences
from Distillation.Pusher import parse
from Distillation.Reports.Labels import complete, on_any
from Distillation.Settings import SIGHT
from Distillation.Utils import EXPERIMENTS, CloningExperiment, Experiment, in_names, run_folder, task_of

# Settings that the runner chooses, and that a released config.json lacks.
PLACES = {name for job in EXPERIMENTS.values() for name in job.named("place")}


@dataclass(frozen=True, eq=False)
class StudyRun:
    """One run of a study."""

    entry: str  # its experiment's name
    table: str  # the name in the file, of the table that describes it
    point: dict[str, Any]  # the values that it has of that table's lists
    command: list[str]  # its arguments for Pusher.py
    job: Experiment  # with the settings that DAgger inherits
    parent: "StudyRun | None"  # the run whose student this one continues, as DAgger does one of cloning
    released: Path  # folder of the part that is worth committing
    wanted: dict[str, Any]  # needed in `config.json`: the study's settings, and the defaults that decide the result

    @property
    def name(self) -> str:
        """The name of its folder and its log."""
        return self.job.name

    @property
    def folder(self) -> Path:
        """The folder that it writes."""
        return run_folder(self.job)

    def unlike(self, folder: Path) -> list[str]:
        """Return the differences of a run's folder from this run."""
        try:
            return list(_unlike(self.wanted, read_json(folder / "config.json")))
        except BadFile:
            return ["no whole config.json"]

    def finished(self, folder: Path) -> bool:
        """Return whether a folder holds the closing figures of the run that is wanted."""
        try:
            return "OD" in read_json(folder / "summary.json") and not self.unlike(folder)
        except BadFile:
            return False


@dataclass(frozen=True)
class Study:
    """The content of a study's file."""

    runs: list[StudyRun]
    pictures: dict[str, set[str]]  # the experiments of each picture, by its name


Runs = dict[tuple[str, int], StudyRun]  # by experiment and index


def _unlike(wanted: dict[str, Any], config: Mapping[str, Any], whose: str = "") -> Iterator[str]:
    config, wanted = on_any(complete(config)), on_any(wanted)
    for key, value in wanted.items():
        if key == "parent":
            yield from _unlike(value, config.get(key, {}), "its parent's ")
        elif config.get(key) != value:
            yield f"{whose}{key} was {json.dumps(config.get(key))}"


def read_study(path: Path, results: Path) -> Study:
    """Read a study's file and check every setting of every run.

    Runs go into `runs` in the folder `results`, their released parts into `<entry>/run<k>`.

    Raises:
        BadInput: the file is missing or not TOML, or a setting is wrong; the message says where.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from None
    common, groups, entries = content.pop("common", {}), content.pop("groups", [{}]), content.pop("runs", [])
    pictures = content.pop("pictures", {})
    if content or not isinstance(common, dict):
        what = ", ".join(content) or "common"
        raise BadInput(
            f"{path}: {what}: settings in [common], [[groups]] and [[runs]] are needed, and [pictures] may be"
        )
    for name, tables in {"groups": groups, "runs": entries}.items():
        if not (isinstance(tables, list) and tables and all(isinstance(table, dict) for table in tables)):
            raise BadInput(f"{path}: no {name}: each is a table [[{name}]]")
    runs = _runs(path, common, groups, entries, results)
    try:
        return Study(list(runs.values()), _pictures(pictures, {entry for entry, _ in runs}))
    except BadInput as error:
        raise BadInput(f"{path}: pictures: {error}") from None


def _runs(
    path: Path, common: dict[str, Any], groups: list[dict[str, Any]], entries: list[dict[str, Any]], results: Path
) -> Runs:
    """Return the runs of all entries, each in every group."""
    runs: Runs = {}
    experiments: dict[str, str] = {}
    unused = set(common).union(*groups) - {"method"}
    for (number, entry), group in itertools.product(enumerate(entries, 1), groups):
        shared = common | group
        entry = {"method": shared.get("method")} | entry
        try:
            settings = _settable(entry)
            unused -= settings.keys()
            taken = {key: value for key, value in shared.items() if key in settings}
            for run in _expand(taken | entry, settings, results, runs):
                if runs.setdefault((run.entry, run.job.student.run_index), run) is not run:
                    raise BadInput(
                        f"{run.name} exists already; of a list, such as that of a group's tasks, the value is in the name"
                    )
                same = experiments.setdefault(_experiment(run), run.entry)
                if same != run.entry:
                    raise BadInput(f"the same experiment as {same}")
        except BadInput as error:
            raise BadInput(f"{path}: {entry.get('name', f'runs {number}')}: {error}") from None
    if unused:
        raise BadInput(f"{path}: common or groups: {', '.join(sorted(unused))}: no setting of any of the runs")
    return runs


def _pictures(pictures: Any, experiments: set[str]) -> dict[str, set[str]]:
    """Return the experiments of every picture, which its file names by patterns such as `DAgger-*`."""
    if not isinstance(pictures, dict):
        raise BadInput("a table is needed")
    found: dict[str, set[str]] = {}
    for name, patterns in pictures.items():
        if name in ("curve", "profiles") or not re.fullmatch(r"[\w-]+", name):
            raise BadInput(f"{name}: another name than curve and profiles is needed, of letters, digits, _ and -")
        if not isinstance(patterns, list) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise BadInput(f"{name}: a list of names of experiments is needed")
        matching = {pattern: fnmatch.filter(experiments, pattern) for pattern in patterns}
        for pattern in patterns:
            if not matching[pattern]:
                raise BadInput(f"{name}: {pattern}: no such experiment")
        found[name] = set().union(*matching.values())
    return found


def _settable(entry: dict[str, Any]) -> dict[str, dataclasses.Field]:
    """Return the settings that an entry may have, among them the index, which DAgger's parent shares."""
    job = EXPERIMENTS.get(str(entry.get("method")))
    if job is None:
        raise BadInput(f"method {entry.get('method')}: one of {', '.join(EXPERIMENTS)} is needed")
    names = job.flags().keys() - PLACES | {"run_index"} | (job.flags().keys() & {"start_from"})
    return {name: field for name, field in job.settings().items() if name in names}


def _expand(
    entry: dict[str, Any], settable: dict[str, dataclasses.Field], results: Path, earlier: Runs
) -> Iterator[StudyRun]:
    """Yield the runs of an entry: of every point of its grid every index."""
    settings = dict(entry)
    method, name, parent = (settings.pop(key, None) for key in ("method", "name", "parent"))
    if not isinstance(name, str) or name in ("", "runs"):  # the runs' own folder is called runs
        raise BadInput("a name is needed, and another than runs")
    job = EXPERIMENTS[method]
    if parent is None and job.inherits:
        raise BadInput("a parent is needed")
    if parent is not None and not (job.inherits or "start_from" in job.flags()):
        raise BadInput(f"--{method} has no parent")
    if parent is not None and "start_from" in settings:
        raise BadInput("parent and start_from: both say what it begins with; give one")
    for key in settings:
        if key not in settable:
            raise BadInput(f"{key}: {'the runner chooses it' if key in PLACES else f'no setting of --{method}'}")
    indices = settings.pop("run_index", [0])
    lists = {key: value for key, value in settings.items() if isinstance(value, list)}
    grid = {key: value for key, value in lists.items() if not isinstance(settable[key].default, tuple)}
    if not isinstance(indices, list) or not all(type(index) is int for index in indices):
        raise BadInput(f"run_index {indices}: a list of integers is needed")
    if not all([indices, *grid.values()]):
        raise BadInput("a list is empty")
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values))
        for index in indices:
            above = None if parent is None else _find(str(parent), index, settings | point, earlier)
            if parent is not None and not (above and (isinstance(above.job, CloningExperiment) or not job.inherits)):
                which = " of --BC_phase" if job.inherits else ""
                having = "".join(f", {key} {value}" for key, value in point.items()) + ("," if point else "")
                alike = ", ".join(
                    dict.fromkeys(run.entry for run in earlier.values() if run.table == parent != run.entry)
                )
                there = f" (there are {alike})" if alike else ""
                raise BadInput(f"parent {parent}: no run {index}{which} of that name{having} further up{there}")
            yield _run(name, point, index, method, settings, results, above)


def _in_name(key: str, value: Any) -> str:
    """Return what an experiment's name says of a value of a list."""
    if not isinstance(value, str):
        return f"{key}{value}"
    return value.rpartition(":")[2] if key == "task" else in_names(value)


def _find(name: str, index: int, settings: dict[str, Any], earlier: Runs) -> StudyRun | None:
    """Return the run of an experiment, or of a table with lists the run that has the same values as `settings`."""
    of_table = (run for (_, run_index), run in earlier.items() if run.table == name and run_index == index)
    alike = (run for run in of_table if run.point.items() <= settings.items())
    return earlier.get((name, index)) or next(alike, None)


class _Parser(OneLineParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(message)


def _run(
    table: str,
    point: dict[str, Any],
    index: int,
    method: str,
    settings: dict[str, Any],
    results: Path,
    parent: StudyRun | None,
) -> StudyRun:
    """Return the run of a table's settings at one point of its lists."""
    entry, settings = "-".join([table, *(_in_name(key, value) for key, value in point.items())]), settings | point
    places = {"run_name": f"{entry}_run{index}", "results_dir": results / "runs"}
    if parent and EXPERIMENTS[method].inherits:
        places |= {"folder_Dagger": parent.folder}
    else:
        places |= {"run_index": index} | ({"start_from": parent.folder} if parent else {})
    command = [f"--{method}", *as_flags({"wandb_mode": "disabled"} | settings | places)]
    with contextlib.chdir(ROOT):  # where the run will look for its task
        job, _ = parse(command, _Parser)
        task = task_of(job)
        teacher = ROOT / teacher_source(job.place.teacher, task)
        if not teacher.is_file():
            trains = f": Train_Teacher_Pusher/Mujoco_main.py --task {task.reference} trains one"
            raise BadInput(f"no teacher of {task.name} in {teacher}{'' if job.place.teacher else trains}")
        teacher_sha256 = teacher_hash(job.place.teacher, task)
    assert isinstance(job, Experiment)
    if parent is not None and job.inherits:
        if parent.job.world.task != job.world.task:
            raise BadInput(f"parent {parent.entry}: its task is {parent.job.world.task}, not {job.world.task}")
        inherited = job.settings().keys() - job.flags().keys()
        job = job.replace(**{name: value for name, value in parent.job.flat().items() if name in inherited})
        job.check_student()
    elif parent is not None:
        names = SIGHT[:-1] if job.student.mode != "State" else SIGHT[:3]  # the last may be auto
        if unlike := differences(parent.job.flat(), job.flat(), names):
            raise BadInput(f"parent {parent.entry}: its student is another one: {unlike}")
    deciding = job.named("result")
    deciding |= settings.keys() - job.free()
    by_hardware = {name for name in ("device", "precision", "backend") if job.flat()[name] == "auto"}
    wanted = {key: value for key, value in job.flat().items() if key in deciding - by_hardware}
    wanted |= {"method": method, "teacher_sha256": teacher_sha256} | ({"parent": parent.wanted} if parent else {})
    if "start_from" in settings:
        from Distillation.Fine_tuning import find_source  # late: it loads PyTorch

        with contextlib.chdir(ROOT):
            wanted |= find_source(job.flat()["start_from"])[1]
    return StudyRun(entry, table, point, command, job, parent, ROOT / results / entry / f"run{index}", plain(wanted))


def _experiment(run: StudyRun) -> str:
    """Return the settings that all indices of an experiment share, as one comparable text."""
    deciding = run.job.named("result")
    settings = {key: value for key, value in run.job.flat().items() if key in deciding}
    return json.dumps(
        [
            run.wanted["method"],
            run.wanted["teacher_sha256"],
            run.parent and run.parent.entry,
            run.wanted.get("start_sha256"),
            settings,
        ]
    )
