"""What a study asks for: its file, and the runs that come of it, checked as Pusher.py checks its command line."""

import dataclasses
import fnmatch
import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from Common.Command_line import OneLineParser
from Common.Errors import BadInput
from Common.Files import ROOT, file_hash
from Distillation.Pusher import parse
from Distillation.Runs import SEEDS_AND_PLACES, complete
from Distillation.Utils import METHODS, Cloning, CommonConfig, DAgger, ExperimentConfig, task_folder

PLACES = ("run_name", "results_dir", "folder_Dagger")  # settings that the runner chooses


@dataclass(frozen=True, eq=False)
class StudyRun:
    """One run of a study.

    Attributes:
        entry: its experiment's name.
        command: its arguments for Pusher.py.
        config: its settings, those that DAgger inherits included.
        parent: the run of cloning that a run of DAgger goes on from.
        released: folder of what is worth committing.
        wanted: what the run's `config.json` must say: what the study sets, and the defaults that make another experiment.
    """

    entry: str
    command: list[str]
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
        try:
            whole = "OD" in json.loads((folder / "summary.json").read_text())
        except (OSError, ValueError, TypeError):
            return False
        return whole and not self.unlike(folder)


@dataclass(frozen=True)
class Study:
    """What a study's file asks for.

    Attributes:
        runs: its runs.
        pictures: names of files, and for each the experiments that are drawn into it.
    """

    runs: list[StudyRun]
    pictures: dict[str, set[str]]


def _unlike(wanted: dict[str, Any], config: dict[str, Any], whose: str = "") -> Iterator[str]:
    config = complete(config)
    for key, value in wanted.items():
        if key == "parent":
            yield from _unlike(value, config.get(key, {}), "its parent's ")
        elif config.get(key) != value:
            yield f"{whose}{key} was {json.dumps(config.get(key))}"


def read_study(path: Path, results: Path) -> Study:
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
    common, entries, pictures = content.pop("common", {}), content.pop("runs", []), content.pop("pictures", {})
    tables = [common, *entries] if isinstance(entries, list) and entries else [None]
    if content or not all(isinstance(table, dict) for table in tables):
        raise BadInput(f"{path}: {', '.join(content) or 'no runs'}: settings in [common] and [[runs]] are needed")
    runs: dict[tuple[str, int], StudyRun] = {}
    experiments: dict[str, str] = {}
    unused = set(common) - {"method"}
    for number, entry in enumerate(entries, 1):
        entry = {"method": common.get("method")} | entry
        try:
            flags = _flags(entry)
            unused -= flags.keys()
            taken = {key: value for key, value in common.items() if key in flags}
            for run in _expand(taken | entry, flags, results, runs):
                if runs.setdefault((run.entry, run.config.run_index), run) is not run:
                    raise BadInput(f"{run.name} is there already")
                same = experiments.setdefault(_experiment(run), run.entry)
                if same != run.entry:
                    raise BadInput(f"the same experiment as {same}")
        except BadInput as error:
            raise BadInput(f"{path}: {entry.get('name', f'runs {number}')}: {error}") from None
    if unused:
        raise BadInput(f"{path}: common: {', '.join(sorted(unused))}: no setting of any of the runs")
    try:
        return Study(list(runs.values()), _pictures(pictures, {entry for entry, _ in runs}))
    except BadInput as error:
        raise BadInput(f"{path}: pictures: {error}") from None


def _pictures(pictures: Any, experiments: set[str]) -> dict[str, set[str]]:
    """Return the experiments of every picture, which its file names by patterns such as `DAgger-*`."""
    if not isinstance(pictures, dict):
        raise BadInput("a table is needed")
    found: dict[str, set[str]] = {}
    for name, patterns in pictures.items():
        if name == "curve" or not re.fullmatch(r"[\w-]+", name):
            raise BadInput(f"{name}: another name than curve is needed, of letters, digits, _ and -")
        if not isinstance(patterns, list) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise BadInput(f"{name}: a list of names of experiments is needed")
        found[name] = set()
        for pattern in patterns:
            matching = fnmatch.filter(experiments, pattern)
            if not matching:
                raise BadInput(f"{name}: {pattern}: no such experiment")
            found[name].update(matching)
    return found


def _flags(entry: dict[str, Any]) -> dict[str, dataclasses.Field]:
    """Return what an entry can set; the index, for DAgger its parent's, among it."""
    methods = {name: config for name, config in METHODS.items() if issubclass(config, ExperimentConfig)}
    config = methods.get(str(entry.get("method")))
    if config is None:
        raise BadInput(f"method {entry.get('method')}: one of {', '.join(methods)} is needed")
    barred = {*PLACES, *config.inherited} - {"run_index"}
    return {field.name: field for field in dataclasses.fields(config) if field.name not in barred}


def _expand(
    entry: dict[str, Any], flags: dict[str, dataclasses.Field], results: Path, earlier: dict[tuple[str, int], StudyRun]
) -> Iterator[StudyRun]:
    """Yield the runs of an entry: of every point of its grid every index."""
    settings = dict(entry)
    method, name, parent = (settings.pop(key, None) for key in ("method", "name", "parent"))
    if not isinstance(name, str) or name in ("", "runs"):  # runs is where they run
        raise BadInput("a name is needed, and another than runs")
    if (parent is not None) is not (METHODS[method] is DAgger):
        raise BadInput("a parent is needed" if parent is None else f"--{method} has no parent")
    for key in settings:
        if key not in flags:
            raise BadInput(f"{key}: {'the runner chooses it' if key in PLACES else f'no setting of --{method}'}")
    indices = settings.pop("run_index", [0])
    lists = {key: value for key, value in settings.items() if isinstance(value, list)}
    grid = {key: value for key, value in lists.items() if not isinstance(flags[key].default, tuple)}
    if not isinstance(indices, list) or not all(type(index) is int for index in indices):
        raise BadInput(f"run_index {indices}: a list of numbers is needed")
    if not all([indices, *grid.values()]):
        raise BadInput("a list is empty")
    for point in itertools.product(*grid.values()):
        chosen = dict(zip(grid, point))
        point_name = "-".join([name, *(v if isinstance(v, str) else f"{key}{v}" for key, v in chosen.items())])
        for index in indices:
            yield _run(point_name, index, method, settings | chosen, results, parent, earlier)


class _Parser(OneLineParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(message)


def _run(
    entry: str,
    index: int,
    method: str,
    settings: dict[str, Any],
    results: Path,
    parent_entry: str | None,
    earlier: dict[tuple[str, int], StudyRun],
) -> StudyRun:
    places = {"run_name": f"{entry}_run{index}", "results_dir": results / "runs"}
    parent = None
    if parent_entry is None:
        places["run_index"] = index
    else:
        parent = earlier.get((str(parent_entry), index))
        if parent is None or not isinstance(parent.config, Cloning):
            raise BadInput(f"parent {parent_entry}: no run {index} of --BC_phase of that name further up")
        places["folder_Dagger"] = parent.folder
    command = [f"--{method}", *as_flags({"wandb_mode": "disabled"} | settings | places)]
    config, _ = parse(command, _Parser)
    assert isinstance(config, ExperimentConfig)
    if parent is not None:
        config = dataclasses.replace(config, **{key: getattr(parent.config, key) for key in config.inherited})
        config.check_sight()
    teacher = ROOT / (config.teacher or f"Results/{config.task}/Teacher/teacher.pt")
    if not teacher.is_file():
        raise BadInput(f"no teacher in {teacher}")
    defaults = {field.name for field in dataclasses.fields(config)} - SEEDS_AND_PLACES
    if config.precision == "auto":
        defaults.remove("precision")  # the hardware decides
    wanted = {key: getattr(config, key) for key in defaults | settings.keys() - CommonConfig.free}
    wanted |= {"method": method, "teacher_sha256": file_hash(teacher)} | ({"parent": parent.wanted} if parent else {})
    released = ROOT / results / entry / f"run{index}"
    return StudyRun(entry, command, config, parent, released, json.loads(json.dumps(wanted)))


def as_flags(settings: dict[str, Any]) -> Iterator[str]:
    """Yield the words of a command line."""
    for name, value in settings.items():
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        elif value is not None:
            yield from (f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value]))


def _experiment(run: StudyRun) -> str:
    """Return what all indices of an experiment have in common."""
    settings = {key: value for key, value in dataclasses.asdict(run.config).items() if key not in SEEDS_AND_PLACES}
    return json.dumps([run.wanted["method"], run.wanted["teacher_sha256"], run.parent and run.parent.entry, settings])
