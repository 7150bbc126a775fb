"""Draw and compare runs: return and success against updates, samples and time, and a table of final scores.

Runs that differ in nothing but their seeds are one curve: the interquartile mean over the runs and its 95 % bootstrap
interval (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from Common.Command_line import OneLineParser, one_line_errors
from Common.Errors import BadInput
from Distillation.Runs import NAMES, Group, Run, find_runs, group_runs

COLOURS = dict(
    zip(NAMES, ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#882E9E"))
)  # told apart by colour-blind eyes too
NEW_COLOURS = ("#56B4E9", "#CC79A7", "#8C6D31", "#555555")  # of methods that are not among these
STYLES = {"State": ":", "ImpaalaSmall": "--", "ImpaalaMid": "-", "ImpaalaBig": "-."}
AXES = {  # [column of metrics.csv]: what it is called, what its unit divides by
    "x_axis/optimization_steps": ("gradient updates", 1),
    "x_axis/samples_collected": ("samples collected", 1),
    "time/elapsed_s": ("minutes of training", 60),
}
WHAT = ("return", "training", "buffer")
LEVELS = (0.8, 0.9, 0.95)  # normalized returns to come to
LEARNING = (
    "How tests on OD seeds rose: what they took to come to a normalized return, median [fewest, most] of the runs; how far "
    "one fell below the best before it, interquartile mean; the standard deviation of the closing normalized returns"
)


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the mean of the middle half along an axis; of fewer than four values the mean."""
    from scipy.stats import trim_mean

    return trim_mean(values, 0.25, axis=axis)


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the interquartile mean of runs [n, ...] and its 95 % percentile-bootstrap interval, low and high [...].

    NaN of fewer than two runs.
    """
    from scipy.stats import bootstrap

    middle = interquartile_mean(values)
    if len(values) < 2:
        return middle, np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    limits = bootstrap(
        (values,), interquartile_mean, axis=0, n_resamples=2000, method="percentile", vectorized=True, rng=0
    ).confidence_interval
    return middle, limits.low, limits.high


def aggregate(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Join the curves of runs: mean x, interquartile mean of y, low and high, float [4, points].

    Args:
        curves: of each run, updates, x and y, float [3, points]. What was measured at the same updates is taken as it is,
            from the runs that came so far; else x and y are interpolated between a run's own updates.
    """
    updates = max((curve[0] for curve in curves), key=len)
    if not all(np.array_equal(curve[0], updates[: curve.shape[1]]) for curve in curves):
        updates = np.unique(np.concatenate([curve[0] for curve in curves]))
    values = np.full((len(curves), 2, len(updates)), np.nan)
    for run, (at, *columns) in zip(values, curves):
        for row, column in zip(run, columns):
            row[:] = np.interp(updates, at, column, left=np.nan, right=np.nan)
    there = np.isfinite(values[:, 1])
    joined = np.empty((4, len(updates)))
    joined[0] = np.nanmean(values[:, 0], axis=0)
    for runs in np.unique(there, axis=1).T:  # the points that the same runs have, at once
        points = (there == runs[:, None]).all(0)
        joined[1:, points] = interval(values[runs, 1][:, points])
    return joined


def draw(runs: Sequence[Run], base: Path, what: str = "return") -> Path:
    """Draw runs into `base.png` and `base.svg`; returns the first.

    Args:
        runs: from `find_runs`.
        base: where to, without the ending; its folder is made.
        what: `return` (and success), or all metrics of `training` or `buffer`.

    Raises:
        BadInput: none of them has what is asked for.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    groups = group_runs(runs)
    style: dict[Any, Any] = {
        "font.size": 11,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "runs",  # the same runs make the same file
    }
    with plt.rc_context(style):
        figure = plt.figure(layout="constrained")
        if what == "return":
            _draw_scores(figure, groups)
        else:
            _draw_metrics(figure, groups, what)
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
        columns = max(1, min(3, 130 // (10 + max(map(len, handles)))))  # that many letters fit beside one another
        figure.set_size_inches(12, 5.9 + 0.24 * -(-len(handles) // columns))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
        base.parent.mkdir(parents=True, exist_ok=True)
        for ending in ("png", "svg"):
            figure.savefig(f"{base}.{ending}", dpi=110, metadata={"Date": None})
        plt.close(figure)
    return Path(f"{base}.png")


def _draw_scores(figure: Any, groups: Sequence[Group]) -> None:
    runs = [run for group in groups for run in group.runs]
    timed = any(run.series("time/elapsed_s", "test/OD/return").size for run in runs)
    xs = [axis for axis in AXES if timed or axis != "time/elapsed_s"]
    panels = figure.subplots(2, len(xs), sharex="col", sharey="row", squeeze=False)
    # One experiment: its other set of seeds beside it. Several: the seeds that none of them saw.
    parts = {"OD": "OD seeds", "ID": "ID seeds"} if len(groups) == 1 else {"OD": ""}
    lowest = {
        metric: min(run.series(f"test/{part}/{metric}").min(initial=1) for run in runs for part in parts)
        for metric in ("normalized_return", "success")
    }
    # All the way from standing still, unless it is far off. What comes below is of a policy that flails, what comes above
    # beside a teacher that does.
    bottom, least = (low if low > 0.5 else min(low, 0) for low in lowest.values())
    for column, x in enumerate(xs):
        for row, metric in enumerate(("normalized_return", "success")):
            axes = panels[row, column]
            for group in groups:
                for part, called in parts.items():
                    _curve(axes, group, x, f"test/{part}/{metric}", called, faint=part == "ID")
        panels[1, column].set_xlabel(AXES[x][0])
        panels[1, column].locator_params(axis="x", nbins=6)
        panels[0, column].axhline(1, color="black", linestyle=(0, (6, 3)), linewidth=1.2, label="teacher")
        if bottom <= 0:
            panels[0, column].axhline(0, color="gray", linestyle=(0, (2, 2)), linewidth=1.2, label="standing still")
        for success in {run.last("test/OD/teacher_success") for run in runs} - {float("nan")}:
            panels[1, column].axhline(success, color="black", linestyle=(0, (6, 3)), linewidth=1.2)
    panels[0, 0].set_ylabel("normalized return")
    panels[0, 0].set_ylim(max(bottom, -0.95) - 0.05, min(panels[0, 0].get_ylim()[1], 1.6))
    panels[1, 0].set(ylabel="success", ylim=(least - 0.03, 1.03))
    known = references(runs, Run.last_test)
    if known is not None:
        zero, teacher, _ = known
        right = panels[0, -1].secondary_yaxis(
            "right", (lambda y: zero + y * (teacher - zero), lambda r: (r - zero) / (teacher - zero))
        )
        right.set_ylabel("return")


def references(runs: Sequence[Run], figure: Callable[[Run, str, str], float]) -> np.ndarray | None:
    """Return what standing still and the teacher earn on OD seeds and the teacher's success, [3], if the runs agree on it.

    Args:
        runs: from `find_runs`.
        figure: whose figures: `Run.last_test` or `Run.score`.
    """
    wanted = (("return", "zero"), ("return", "teacher"), ("success", "teacher"))
    found = np.array([[figure(run, *one) for one in wanted] for run in runs])
    return found[0] if np.allclose(found, found[0], rtol=1e-3) else None  # other machines round otherwise; NaN: unknown


def _draw_metrics(figure: Any, groups: Sequence[Group], what: str) -> None:
    names = dict.fromkeys(
        name
        for group in groups
        for run in group.runs
        for name in run.metrics
        if name.startswith(f"{what}/") and np.isfinite(run.metrics[name]).any()
    )
    if not names:
        raise BadInput(f"--what {what}: none of these runs measured it")
    columns = min(4, len(names))
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False).flatten()
    for axes, name in zip(panels, names):
        for group in groups:
            _curve(axes, group, "x_axis/optimization_steps", name)
        axes.set_title(name.partition("/")[2].replace("_", " "), fontsize=11)
        axes.set_xlabel(AXES["x_axis/optimization_steps"][0])
    for axes in panels[len(names) :]:
        axes.remove()


def _curve(axes: Any, group: Group, x: str, y: str, called: str = "", faint: bool = False) -> None:
    """Draw a group's curve, if any of its runs has these columns."""
    from matplotlib.colors import to_rgb

    curves = [run.series("x_axis/optimization_steps", x, y) for run in group.runs]
    if not any(curve.size for curve in curves):
        return
    at, middle, low, high = aggregate([curve for curve in curves if curve.size])
    at = at / AXES[x][1]
    other = 1.0 if group.shade > 0 else 0.0
    own = COLOURS.get(group.method) or NEW_COLOURS[sum(map(ord, group.method)) % len(NEW_COLOURS)]
    colour = [(1 - abs(group.shade)) * c + abs(group.shade) * other for c in to_rgb(own)]
    runs = f" ({len(group.runs)} runs)" if len(group.runs) > 1 else ""
    label = f"{group.label}{runs}{', ' if called else ''}{called}"
    style = {"color": colour, "linestyle": STYLES.get(group.mode, "-"), "alpha": 0.45 if faint else 1}
    every = -(-len(at) // 30)  # no more markers than can be told apart
    axes.plot(at, middle, label=label, marker=group.marker, markersize=4, markevery=every, **style)
    if np.isfinite(low).any() and np.ptp(at) > 0:
        axes.fill_between(at, low, high, color=colour, alpha=0.08 if faint else 0.2, linewidth=0)


def scores(runs: Sequence[Run]) -> list[list[str]]:
    """Return the table of final scores: its head, then each experiment, the best first, then the teacher.

    Each figure is the interquartile mean, with its interval, over the runs' closing figures, or their last tests' where
    they have not finished, on OD seeds unless it says ID; `episodes` says of how many.
    """
    columns: dict[str, tuple[Callable[[Run], float], int]] = {
        "return": (lambda run: run.score("return"), 2),
        "normalized": (lambda run: run.score("normalized_return"), 3),
        "normalized, ID": (lambda run: run.score("normalized_return", part="ID"), 3),
        "success": (lambda run: run.score("success"), 2),
        "action accuracy": (lambda run: run.score("action_accuracy"), 4),
        "minutes": (lambda run: run.last("time/elapsed_s") / 60, 1),
    }
    rows = []
    for group in group_runs(runs):
        updates = {f"{run.last('x_axis/optimization_steps'):.0f}" for run in group.runs}
        episodes = {str(run.episodes or "") for run in group.runs}
        alike = (counts.pop() if len(counts) == 1 else "differ" for counts in (updates, episodes))
        unfinished = sum(run.closing is None for run in group.runs)
        row = [group.label, f"{len(group.runs)}{f' ({unfinished} unfinished)' if unfinished else ''}", *alike]
        for figure, digits in columns.values():
            row.append(_with_interval([figure(run) for run in group.runs], digits))
        best = interquartile_mean(np.array([run.score("normalized_return") for run in group.runs]))
        rows.append((float(best), row))
    rows.sort(key=lambda entry: -entry[0])
    table = [["", "runs", "updates", "episodes", *columns], *(row for _, row in rows)]
    known = references(runs, Run.score)
    if known is not None:
        zero, teacher, success = known
        table.append(["teacher", "", "", "", f"{teacher:.2f}", "1.000", "1.000", f"{success:.2f}", "", ""])
        table.append(["standing still", "", "", "", f"{zero:.2f}", "0.000", "0.000", "", "", ""])
    return table


def _with_interval(figures: Sequence[float], digits: int) -> str:
    """Write the interquartile mean of those that are there, and its interval if there is one."""
    values = np.array(figures)
    if not np.isfinite(values).any():
        return ""
    middle, low, high = interval(values[np.isfinite(values)])
    return f"{middle:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else "")


def learning(runs: Sequence[Run]) -> list[list[str]]:
    """Return the table of how fast and how steadily tests on OD seeds rose: its head, then each experiment, the fastest first.

    Of each a row for every one of `LEVELS`: what it took to come there, between two tests in proportion, the median over the
    runs (of an even number the slower of the middle two), fewest and most; a run that never came there took for ever. In the
    first row also by how much a later test was at most below the best one so far, the interquartile mean with its
    interval; and the standard deviation of the closing figures.
    """
    experiments = []
    for group in group_runs(runs):
        tests = [run.series("test/OD/normalized_return")[0] for run in group.runs]
        closing = np.array([run.score("normalized_return") for run in group.runs])
        steadiness = [
            _with_interval([np.max(np.maximum.accumulate(test) - test) for test in tests], 3),
            f"{closing.std(ddof=1):.3f}" if len(closing) > 1 else "",
        ]
        medians: list[float] = []
        rows: list[list[str]] = []
        for level in LEVELS:
            took = {x: np.array([_until(run, x, level) for run in group.runs]) for x in AXES}
            quantiles = {x: np.quantile(took[x], (0, 0.5, 1), method="higher") for x in AXES}
            medians.append(float(quantiles["x_axis/optimization_steps"][1]))
            came = np.isfinite(took["x_axis/optimization_steps"]).sum()
            first = not rows
            row = [group.label if first else "", f"{level}", f"{came} of {len(group.runs)}"]
            for x, (_, unit) in AXES.items():
                lowest, middle, highest = (
                    f"{value / unit:.{0 if unit == 1 else 1}f}" if np.isfinite(value) else "never"
                    for value in quantiles[x]
                )
                row.append(middle if lowest == highest else f"{middle} [{lowest}, {highest}]")
            rows.append([*row, *(steadiness if first else ("", ""))])
        experiments.append((medians, rows))
    experiments.sort(key=lambda each: each[0])
    head = ["", "to", "came there", "updates", "samples", "minutes", "fell back by", "spread of seeds"]
    return [head, *(row for _, rows in experiments for row in rows)]


def _until(run: Run, x: str, level: float) -> float:
    """Return where on an axis a run's tests came to a normalized return, infinity if they never did."""
    at, score = run.series(x, "test/OD/normalized_return")
    after = np.flatnonzero(score >= level)
    if not after.size:
        return float("inf")
    first = after[0]
    return float(np.interp(level, score[first - 1 : first + 1], at[first - 1 : first + 1]) if first else at[0])


def tables(runs: Sequence[Run]) -> str:
    """Return both tables, of scores and of learning, as Markdown."""
    return f"{markdown(scores(runs))}\n\n{LEARNING}:\n\n{markdown(learning(runs))}"


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Lay out a table with its head in the first row."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or with runs below")
    parser.add_argument("--what", choices=WHAT, default="return", help="what to draw (default: return, and success)")
    parser.add_argument(
        "--output", type=Path, help="files to write, without the ending (default: curve in the folder given, or here)"
    )
    parser.add_argument("--html", type=Path, metavar="PAGE", help="also write one page that holds everything")
    arguments = parser.parse_args(argv)
    if arguments.output and arguments.output.suffix in (".png", ".svg", ".md"):
        arguments.output = arguments.output.with_suffix("")
    base = arguments.output or (arguments.runs[0] if len(arguments.runs) == 1 else Path()) / (
        "curve" if arguments.what == "return" else arguments.what
    )
    with one_line_errors(parser.prog):
        runs = find_runs(arguments.runs)
        picture = draw(runs, base, arguments.what)
        table = tables(runs)
        Path(f"{base}.md").write_text(table + "\n")
        if arguments.html:
            from Distillation.Page import write_page

            write_page(runs, arguments.html)
        if references(runs, Run.score) is None:
            print("no common teacher: these runs were scored on different episodes or tasks", file=sys.stderr)
        print(f"{table}\n\n{picture}\n{picture.with_suffix('.svg')}\n{base}.md")
        if arguments.html:
            print(arguments.html)


if __name__ == "__main__":
    main()
