"""What runs left in their folders, read and grouped: runs that differ in nothing but their seeds are one experiment."""

import csv
import dataclasses
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from Common.Errors import BadInput
from Distillation.Utils import METHODS, ExperimentConfig

NAMES = {
    "PPD": "PPD",
    "Sdistillation": "student distillation",
    "Tdistillation": "teacher distillation",
    "BC_phase": "BC",
    "Dagger_phase": "DAgger",
}
SHADES = (0.0, 0.45, -0.4, 0.65, -0.6)  # towards white or black, for runs of one method and mode
MARKERS = "osD^vP*X"  # and those for them
# What of config.json does not make two runs different experiments.
SEEDS_AND_PLACES = ExperimentConfig.free | {
    *("run_index", "run_name", "device", "ranks", "test_every", "collect"),
    *("folder_Dagger", "start_sha256", "before", "versions"),
    "data",  # which it is, settings say; its checksum differs from processor to processor, which round otherwise
}
LAST_NAMED = ("optimization_steps", "render")  # where nothing else sets experiments apart
TERMS = {"optimization_steps": "updates", "PPD_parameter": "λ", "alpha": "α", "sampling": "", "dataset": ""}


@dataclass(frozen=True)
class Run:
    """What a run left in its folder.

    Attributes:
        folder: the folder.
        config: its `config.json`.
        metrics: the columns of its `metrics.csv`, float [rows], NaN where a row does not have it; DAgger's updates and
            seconds with those of the cloning before it.
        closing: the closing figures of its `summary.json`, `[OD or ID][student, teacher or zero][figure]`; None before.
    """

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, np.ndarray]
    closing: dict[str, dict[str, dict[str, float]]] | None = None

    def series(self, *names: str) -> np.ndarray:
        """Return columns of the rows that have them all, float [names, rows]."""
        if any(name not in self.metrics for name in names):
            return np.empty((len(names), 0))
        values = np.stack([self.metrics[name] for name in names])
        return values[:, np.isfinite(values).all(0)]

    def last(self, metric: str) -> float:
        """Return a figure of the row with the last test, NaN without one."""
        tests = np.flatnonzero(np.isfinite(self.metrics.get("test/OD/return", np.empty(0))))
        return float(self.metrics[metric][tests[-1]]) if len(tests) and metric in self.metrics else float("nan")

    def last_test(self, figure: str, who: str = "student", part: str = "OD") -> float:
        """Return a figure of the last test, of `student`, `teacher` or `zero`, on `OD` or `ID` seeds."""
        return self.last(f"test/{part}/{'' if who == 'student' else f'{who}_'}{figure}")

    def score(self, figure: str, who: str = "student", part: str = "OD") -> float:
        """Return a closing figure, or the last test's until there is one."""
        if self.closing is None:
            return self.last_test(figure, who, part)
        return self.closing[part][who].get(figure, float("nan"))

    @property
    def episodes(self) -> int | None:
        """How many episodes a score is of."""
        return self.config.get("episodes") if self.closing is None else int(self.closing["OD"]["student"]["episodes"])

    @property
    def settings(self) -> dict[str, Any]:
        """All that makes it another experiment, those of DAgger's parent included; alpha is its schedule if it has one."""
        return _settings(self.config)


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's `config.json` with its method's defaults for settings that there were not yet."""
    method = METHODS.get(config.get("method", ""))
    defaults = {field.name: field.default for field in dataclasses.fields(method)} if method else {}
    return json.loads(json.dumps(defaults)) | config  # tuples as JSON has them


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    own = _telling(config)
    return own | {f"parent's {key}": value for key, value in _telling(own.pop("parent", {})).items()}


def _telling(config: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in complete(config).items() if key not in SEEDS_AND_PLACES}
    schedule = settings.pop("mode_alpha", "constant")
    return settings if schedule == "constant" else settings | {"alpha": schedule}


def read_run(folder: Path) -> Run | None:
    """Read a run, also one that is under way or was cut off; None if the folder holds none that was ever tested."""
    try:
        config = json.loads((folder / "config.json").read_text())
        with (folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
        columns = {key: np.array([_number(row[key]) for row in rows]) for key in (rows[0] if rows else ()) if key}
        for name, spent in config.get("before", {}).items():
            columns[name] += spent
    except (OSError, ValueError, csv.Error, AttributeError, TypeError, KeyError):
        return None
    try:
        figures = json.loads((folder / "summary.json").read_text())
        closing = {
            part: {who: {k: float(v) for k, v in figures[part][who].items()} for who in ("student", "teacher", "zero")}
            for part in ("OD", "ID")
        }
        int(closing["OD"]["student"]["episodes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        closing = None  # the run has not finished
    run = Run(folder, config, columns, closing) if {"method", "mode"} <= config.keys() else None
    return run if run and np.isfinite(run.last("test/OD/return")) else None


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):  # empty, or a row that was cut
        return float("nan")


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Read the runs in some folders, each a run's own or one with runs somewhere below.

    What lies in a folder `runs` below is left out: of a study its released runs count, once.

    Raises:
        BadInput: a folder holds none.
    """
    runs: dict[Path, Run] = {}
    for path in paths:
        below = (file.parent for file in path.rglob("metrics.csv") if "runs" not in file.relative_to(path).parts)
        folders = [path] if (path / "metrics.csv").is_file() else sorted(below)
        found = {folder.resolve(): run for folder in folders if (run := read_run(folder))}
        for folder in folders:
            if found and folder.resolve() not in found:
                print(f"left out: {folder} (damaged, or nothing tested yet)", file=sys.stderr)
        if not found:
            raise BadInput(f"{path}: no run (a folder with config.json and a metrics.csv that holds a test is needed)")
        runs |= found
    return list(runs.values())


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds, and how their curve is told from others of their method and mode."""

    label: str
    method: str
    mode: str
    runs: list[Run]
    shade: float
    marker: str


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs of one experiment together, and name each by what sets it apart from the others.

    A default is left out, unless among those of its method and mode something else is more common.
    """
    groups: dict[tuple[str, int], list[Run]] = {}
    times: Counter[tuple[str, Any]] = Counter()
    for run in runs:
        experiment = json.dumps(run.settings, sort_keys=True)
        seed = experiment, run.config.get("run_index")
        groups.setdefault((experiment, times[seed]), []).append(run)  # the same seeds once more are no further sample
        times[seed] += 1
    named: dict[tuple[str, str], list[list[Run]]] = {}
    repeat = {id(members): number for (_, number), members in groups.items()}
    for members in groups.values():
        named.setdefault((members[0].config["method"], members[0].config["mode"]), []).append(members)
    tasks = {run.config.get("task") for run in runs}
    result = []
    order = [*NAMES, *(method for method, _ in named if method not in NAMES)]
    for (method, mode), alike in sorted(named.items(), key=lambda item: order.index(item[0][0])):
        settings = [members[0].settings | {"repeat": repeat[id(members)]} for members in alike]
        usual = _settings({"method": method, "parent": {"method": "BC_phase"}}) | {"repeat": 0, "precision": "bf16"}
        named_by = _naming(settings, usual)
        shades = SHADES if len(alike) <= len(SHADES) else np.linspace(0.75, -0.75, len(alike)).tolist()
        for shade, marker, members, own, keys in zip(shades, itertools.cycle(MARKERS), alike, settings, named_by):
            words = [*([own["task"]] if len(tasks) > 1 else []), NAMES.get(method, method), mode]
            words += [f"{TERMS.get(key, key)} {_short(own.get(key))}".strip() for key in keys]
            result.append(Group(" ".join(words), method, mode, members, shade, marker))
    return result


def _naming(settings: Sequence[dict[str, Any]], usual: dict[str, Any]) -> list[list[str]]:
    """Return of each experiment the settings that name it; `usual` are the defaults."""
    keys = dict.fromkeys(key for each in settings for key in each)
    telling = ["dataset"] if "dataset" in keys else []
    for key in sorted(keys, key=lambda key: LAST_NAMED.index(key) if key in LAST_NAMED else -1):
        # Whatever varies of its own; of the rest what sets some apart that nothing before does.
        before = telling if key in LAST_NAMED or key.startswith("parent's ") else []
        if key not in telling and _kinds(settings, [*before, key]) > _kinds(settings, before):
            telling.append(key)
    plain = set()  # where a default goes without saying
    for key in telling:
        counts = Counter(json.dumps(each.get(key)) for each in settings)
        if key != "dataset" and counts[json.dumps(usual.get(key))] == max(counts.values()):
            plain.add(key)
    return [[key for key in telling if key not in plain or own.get(key) != usual.get(key)] for own in settings]


def _kinds(settings: Sequence[dict[str, Any]], keys: Sequence[str]) -> int:
    """Return how many differ in these keys."""
    return len({json.dumps([each.get(key) for key in keys]) for each in settings})


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else text[:21] + "..."
