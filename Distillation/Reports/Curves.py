"""Draws curves of runs: return and success against updates, samples and time, or a method's own metrics."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from Common.Errors import BadInput
from Distillation.Reports.Runs import AXES, Group, Run, group_runs, references
from Distillation.Reports.Statistics import aggregate
from Distillation.Utils import EXPERIMENTS

# Colours that colour-blind people can tell apart.
COLOURS = dict(zip(EXPERIMENTS, ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#882E9E")))
NEW_COLOURS = ("#56B4E9", "#CC79A7", "#8C6D31", "#555555")  # of methods that are not among these
LINES = {"State": ":", "ImpaalaSmall": "--", "ImpaalaMid": "-", "ImpaalaBig": "-."}
SHADES = (0.0, 0.45, -0.4, 0.65, -0.6)  # towards white or black, for experiments of one method and mode
MARKERS = "osD^vP*X"  # likewise
WHAT = ("return", "training", "buffer")
STYLE: dict[Any, Any] = {"font.size": 11, "axes.grid": True, "grid.alpha": 0.3}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}
STYLE |= {"svg.fonttype": "none", "svg.hashsalt": "runs"}  # the same runs make the same file


def draw(runs: Sequence[Run], base: Path, what: str = "return") -> Path:
    """Draw runs into `base.png` and `base.svg`, whose folder is made; returns the first.

    `what` is `return` (and success), or all metrics of `training` or `buffer`.

    Raises:
        BadInput: none of the runs has these metrics.
    """
    several = what == "return" and len({run.task for run in runs}) > 1
    groups = group_runs(runs, across_tasks=several)
    with picture(base, (12, 5.9)) as figure:
        if several:
            _draw_tasks(figure, groups)
        elif what == "return":
            _draw_scores(figure, groups)
        else:
            _draw_metrics(figure, groups, what)
    return Path(f"{base}.png")


@contextmanager
def picture(base: Path, size: tuple[float, float]) -> Iterator[Any]:
    """Give a figure of a `size` in inches to draw into, add a legend below if there are labels, and write `base.png` and `.svg`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    with plt.rc_context(STYLE):
        figure = plt.figure(layout="constrained", figsize=size)
        yield figure
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
        if handles:
            columns = max(1, min(3, 130 // (10 + max(map(len, handles)))))  # that many letters fit beside one another
            width, height = figure.get_size_inches()
            figure.set_size_inches(width, height + 0.24 * -(-len(handles) // columns))
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
        base.parent.mkdir(parents=True, exist_ok=True)
        for ending in ("png", "svg"):
            figure.savefig(f"{base}.{ending}", dpi=110, metadata={"Date": None})
        plt.close(figure)
        with Image.open(f"{base}.png") as drawn:  # 256 colours are enough, and a third of the size
            few = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(f"{base}.png", optimize=True)


def _draw_tasks(figure: Any, groups: Sequence[Group]) -> None:
    """Draw normalized return against updates, a panel of each task."""
    runs = [run for group in groups for run in group.runs]
    tasks, looks = sorted({run.task for run in runs}), looks_of(groups)
    columns = min(4, len(tasks))
    rows = -(-len(tasks) // columns)
    figure.set_size_inches(12, 0.6 + 2.6 * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, task in zip(panels.flat, tasks):
        for group in groups:
            if own := [run for run in group.runs if run.task == task]:
                of_task = replace(group, runs=own)
                _curve(axes, of_task, "x_axis/optimization_steps", "test/OD/normalized_return", looks[group.label])
        axes.set_title(task, fontsize=11)
        axes.set_xlabel(AXES["x_axis/optimization_steps"][0])
        _limit_and_mark(np.array([[axes]]), [run for run in runs if run.task == task], ["OD"])
    for axes in panels[:, 1:].flat:
        axes.set_ylabel("")
    for axes in panels.flat[len(tasks) :]:
        axes.remove()


def _draw_scores(figure: Any, groups: Sequence[Group]) -> None:
    runs = [run for group in groups for run in group.runs]
    looks = looks_of(groups)
    timed = any(run.series("time/elapsed_s", "test/OD/return").size for run in runs)
    xs = [axis for axis in AXES if timed or axis != "time/elapsed_s"]
    metrics = ["normalized_return"]
    if any(run.series("test/OD/success").size for run in runs):  # or the task knows no success
        metrics.append("success")
    panels = figure.subplots(len(metrics), len(xs), sharex="col", sharey="row", squeeze=False)
    # One experiment is drawn on both sets of seeds, several on the seeds that none of them saw.
    parts = {"OD": "OD seeds", "ID": "ID seeds"} if len(groups) == 1 else {"OD": ""}
    for column, x in enumerate(xs):
        for axes, metric in zip(panels[:, column], metrics):
            for group in groups:
                for part, called in parts.items():
                    faint = {"alpha": 0.45} if part == "ID" else {}
                    _curve(axes, group, x, f"test/{part}/{metric}", looks[group.label] | faint, called)
        panels[-1, column].set_xlabel(AXES[x][0])
        panels[-1, column].locator_params(axis="x", nbins=6)
    _limit_and_mark(panels, runs, list(parts))
    known = references(runs, Run.last_test)
    if known is not None:
        zero, teacher = known
        both_ways = (lambda y: zero + y * (teacher - zero), lambda r: (r - zero) / (teacher - zero))
        panels[0, -1].secondary_yaxis("right", both_ways).set_ylabel("return")


def _limit_and_mark(panels: Any, runs: Sequence[Run], parts: Sequence[str]) -> None:
    """Choose the limits of returns (row 0) and successes (row 1, if there is one), and draw the teacher and standing still."""
    # The axes begin at standing still, unless all curves are far above it. The worst policies fall below the picture, and
    # with a bad teacher students rise above it.
    columns = [[f"test/{part}/{metric}" for part in parts] for metric in ("normalized_return", "success")]
    lowest = (min(run.series(name).min(initial=1) for run in runs for name in names) for names in columns)
    bottom, least = (low if low > 0.5 else min(low, 0) for low in lowest)
    dashed = {"color": "black", "linestyle": (0, (6, 3)), "linewidth": 1.2}
    for axes in panels[0]:
        axes.axhline(1, label="teacher", **dashed)
        if bottom <= 0:
            axes.axhline(0, color="gray", linestyle=(0, (2, 2)), linewidth=1.2, label="standing still")
    for axes in panels[1:].flat:
        for success in {run.last("test/OD/teacher_success") for run in runs} - {float("nan")}:
            axes.axhline(success, **dashed)
    panels[0, 0].set_ylabel("normalized return")
    panels[0, 0].set_ylim(max(bottom, -0.95) - 0.05, min(panels[0, 0].get_ylim()[1], 1.6))
    for axes in panels[1:, 0]:
        axes.set(ylabel="success", ylim=(least - 0.03, 1.03))


def metric_names(runs: Sequence[Run], what: str) -> list[str]:
    """Return the metrics of `training` or `buffer` that some of the runs measured."""
    names = (name for run in runs for name in run.metrics if np.isfinite(run.metrics[name]).any())
    return list(dict.fromkeys(name for name in names if name.startswith(f"{what}/")))


def _draw_metrics(figure: Any, groups: Sequence[Group], what: str) -> None:
    names = metric_names([run for group in groups for run in group.runs], what)
    if not names:
        raise BadInput(f"--what {what}: none of these runs measured it")
    looks = looks_of(groups)
    columns = min(4, len(names))
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False).flatten()
    for axes, name in zip(panels, names):
        for group in groups:
            _curve(axes, group, "x_axis/optimization_steps", name, looks[group.label])
        axes.set_title(name.partition("/")[2].replace("_", " "), fontsize=11)
        axes.set_xlabel(AXES["x_axis/optimization_steps"][0])
    for axes in panels[len(names) :]:
        axes.remove()


def looks_of(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return the look of each label's line: its colour is the method's, its shade and marker are the experiment's."""
    from matplotlib.colors import to_rgb

    alike = defaultdict(list)
    for group in groups:
        alike[group.method, group.mode].append(group.label)
    looks = {}
    for (method, mode), labels in alike.items():
        own = COLOURS.get(method) or NEW_COLOURS[sum(map(ord, method)) % len(NEW_COLOURS)]
        shades = SHADES if len(labels) <= len(SHADES) else np.linspace(0.75, -0.75, len(labels)).tolist()
        for label, shade, marker in zip(labels, shades, itertools.cycle(MARKERS)):
            other = 1.0 if shade > 0 else 0.0
            colour = [(1 - abs(shade)) * c + abs(shade) * other for c in to_rgb(own)]
            looks[label] = {"color": colour, "linestyle": LINES.get(mode, "-"), "marker": marker, "alpha": 1}
    return looks


def _curve(axes: Any, group: Group, x: str, y: str, look: dict[str, Any], called: str = "") -> None:
    """Draw a group's curve, if any of its runs has these columns."""
    curves = [run.series("x_axis/optimization_steps", x, y) for run in group.runs]
    if not any(curve.size for curve in curves):
        return
    at, middle, low, high = aggregate([curve for curve in curves if curve.size])
    at = at / AXES[x][1]
    runs = f" ({len(group.runs)} runs)" if len(group.runs) > 1 else ""
    label = f"{group.label}{runs}{', ' if called else ''}{called}"
    every = -(-len(at) // 30)  # no more markers than can be told apart
    axes.plot(at, middle, label=label, markersize=4, markevery=every, **look)
    if np.isfinite(low).any() and np.ptp(at) > 0:
        axes.fill_between(at, low, high, color=look["color"], alpha=0.2 if look["alpha"] == 1 else 0.08, linewidth=0)
