"""Reads the folders of runs and groups them: runs that differ only in their seeds are one experiment."""

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from Common.Errors import BadInput
from Common.Files import read_json
from Distillation.Reports.Labels import DEFAULT_TASK, decided_by_task, identity, labels, without_task
from Distillation.Reports.Statistics import mean_of_middle
from Distillation.Utils import EXPERIMENTS

AXES = {  # [column of metrics.csv]: what a plot calls it, what its unit divides by
    "x_axis/optimization_steps": ("gradient updates", 1),
    "x_axis/samples_collected": ("samples collected", 1),
    "time/elapsed_s": ("minutes of training", 60),
}


@dataclass(frozen=True)
class Run:
    """The files of a run's folder.

    Attributes:
        config: its `config.json`.
        metrics: the columns of its `metrics.csv`, float [rows], NaN where a row does not have it; DAgger's updates and
            seconds include those of the cloning before it.
        closing: the closing figures of its `summary.json`, `[OD or ID][student, teacher or zero][figure]`; None before.
        robustness: the report of robustness in there (see `Algorithm.Robustness.robustness`), unchecked; None without one.
    """

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, np.ndarray]
    closing: dict[str, dict[str, dict[str, float]]] | None = None
    robustness: Any = None

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.config.get("task", DEFAULT_TASK).rpartition(":")[2]

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
        """The number of episodes behind a score."""
        return self.config.get("episodes") if self.closing is None else int(self.closing["OD"]["student"]["episodes"])


def read_run(folder: Path) -> Run | None:
    """Read a run, finished or not; None if the folder holds none that was ever tested."""
    try:
        config = read_json(folder / "config.json")
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval=""))
        columns = {key: np.array([_number(row[key]) for row in rows]) for key in (rows[0] if rows else ()) if key}
        for name, spent in config.get("before", {}).items():
            columns[name] += spent
    except (OSError, ValueError, csv.Error, AttributeError, TypeError, KeyError):
        return None
    figures: dict[str, Any] = {}
    try:
        figures = read_json(folder / "summary.json")
        closing = {
            part: {who: {k: float(v) for k, v in figures[part][who].items()} for who in ("student", "teacher", "zero")}
            for part in ("OD", "ID")
        }
        int(closing["OD"]["student"]["episodes"])
    except (ValueError, KeyError, TypeError, AttributeError):
        closing = None  # the run has not finished
    run = (
        Run(folder, config, columns, closing, figures.get("robustness"))
        if {"method", "mode"} <= config.keys()
        else None
    )
    return run if run and np.isfinite(run.last("test/OD/return")) else None


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):  # empty, or a row that was cut
        return float("nan")


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Read the runs in some folders, each a run's own or one with runs somewhere below; `BadInput` where one holds none.

    Folders named `runs` below are skipped: of a study only the released runs count.
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
    """Runs that differ only in their seeds: one experiment."""

    label: str
    method: str
    mode: str
    runs: list[Run]


def group_runs(runs: Sequence[Run], across_tasks: bool = False) -> list[Group]:
    """Put the runs of each experiment together and give it a label of its own; methods are in their order.

    With `across_tasks` runs of several tasks that differ in nothing else, but for how a task is seen, are one experiment.
    """
    decided = decided_by_task([run.config for run in runs]) if across_tasks else set()
    experiments: dict[tuple[str, int], list[Run]] = {}
    times: Counter[tuple[str, Any]] = Counter()
    for run in runs:
        experiment = identity(without_task(run.config, decided))
        seed = experiment, (run.task, run.config.get("run_index"))
        experiments.setdefault((experiment, times[seed]), []).append(run)  # the same seed again is no further sample
        times[seed] += 1
    members = list(experiments.values())
    names = labels([without_task(own[0].config, decided) for own in members])
    groups = [Group(name, own[0].config["method"], own[0].config["mode"], own) for name, own in zip(names, members)]
    order = list(dict.fromkeys([*EXPERIMENTS, *(group.method for group in groups)]))
    modes = list(dict.fromkeys((group.method, group.mode) for group in groups))
    return sorted(groups, key=lambda group: (order.index(group.method), modes.index((group.method, group.mode))))


@dataclass(frozen=True)
class TaskScores:
    """An experiment's runs on several tasks: their normalized closing returns by task, float [runs] each."""

    group: Group
    scores: dict[str, np.ndarray]


def scores_by_task(runs: Sequence[Run]) -> list[TaskScores]:
    """Return the scores of experiments on several tasks, the highest interquartile mean first."""
    found = []
    for group in group_runs(runs, across_tasks=True):
        scores: dict[str, list[float]] = {}
        for run in group.runs:
            if np.isfinite(
                score := run.score("normalized_return")
            ):  # not where the teacher is as bad as standing still
                scores.setdefault(run.task, []).append(score)
        if scores:
            found.append(TaskScores(group, {task: np.array(values) for task, values in sorted(scores.items())}))
    return sorted(found, key=lambda each: -mean_of_middle([*each.scores.values()]))


def references(runs: Sequence[Run], figure: Callable[[Run, str, str], float]) -> np.ndarray | None:
    """Return the returns of standing still and of the teacher on OD seeds, [2], if the runs agree."""
    wanted = (("return", "zero"), ("return", "teacher"))
    found = np.array([[figure(run, *one) for one in wanted] for run in runs])
    return found[0] if np.allclose(found, found[0], rtol=1e-3) else None  # other machines round otherwise; NaN: unknown
