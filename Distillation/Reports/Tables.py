"""Tables of runs: their final scores, and how fast and how steadily they learnt."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from Distillation.Reports.Runs import AXES, Group, Run, TaskScores, group_runs, references, scores_by_task
from Distillation.Reports.Statistics import (
    interquartile_mean,
    interval,
    largest_fall,
    mean_of_middle,
    median_of_tasks,
    optimality_gap,
    probability_of_improvement,
    reached,
    stratified_interval,
)

LEVELS = (0.8, 0.9, 0.95)  # normalized returns to reach
LEARNING = (
    "The cost of first reaching a normalized return in tests on OD seeds, median [fewest, most] of the runs; the largest fall "
    "of a test below the best one before it, interquartile mean; the standard deviation of the closing normalized returns"
)
AGGREGATE = (
    "Over tasks and seeds of training, normalized closing returns on OD seeds with 95 % bootstrap intervals that resample each task's "
    "runs (Agarwal et al. 2021): the interquartile mean of all runs; the median of the tasks' means; by how much runs fall short of 1 "
    "in the mean"
)
BETTER = (
    "The probability that a run of the row scores higher than one of the column, the mean of the tasks that both have"
)
BY_TASK = "The interquartile mean of each task's seeds"
EACH = "Each task by itself"
STATISTICS = {
    "interquartile mean": mean_of_middle,
    "median": median_of_tasks,
    "optimality gap": optimality_gap,
}
COLUMNS: dict[str, tuple[Callable[[Run], float], int]] = {  # of the table of scores: the figure, and its digits
    "return": (lambda run: run.score("return"), 2),
    "normalized": (lambda run: run.score("normalized_return"), 3),
    "normalized, ID": (lambda run: run.score("normalized_return", part="ID"), 3),
    "success": (lambda run: run.score("success"), 2),
    "action accuracy": (lambda run: run.score("action_accuracy"), 4),
    "minutes": (lambda run: run.last("time/elapsed_s") / 60, 1),
}


def scores(runs: Sequence[Run]) -> list[list[str]]:
    """Return the table of final scores: its head, then each experiment, of a task the best first, then the teacher.

    Each figure is the interquartile mean, with its interval, over the runs' closing figures, or their last tests' while
    they are unfinished. It is of OD seeds unless it says ID. `episodes` is the number of episodes behind it.
    """
    rows = []
    for group in group_runs(runs):
        updates = {f"{run.last('x_axis/optimization_steps'):.0f}" for run in group.runs}
        episodes = {str(run.episodes or "") for run in group.runs}
        alike = (counts.pop() if len(counts) == 1 else "differ" for counts in (updates, episodes))
        unfinished = sum(run.closing is None for run in group.runs)
        row = [group.label, f"{len(group.runs)}{f' ({unfinished} unfinished)' if unfinished else ''}", *alike]
        row += [_with_interval([figure(run) for run in group.runs], digits) for figure, digits in COLUMNS.values()]
        best = interquartile_mean(np.array([run.score("normalized_return") for run in group.runs]))
        rows.append(((group.runs[0].task, -float(best)), row))
    rows.sort(key=lambda entry: entry[0])
    table = [["", "runs", "updates", "episodes", *COLUMNS], *(row for _, row in rows)]
    known = references(runs, Run.score)
    if known is not None:
        zero, teacher = known
        success = _with_interval([runs[0].score("success", "teacher")], COLUMNS["success"][1])
        table.append(["teacher", "", "", "", f"{teacher:.2f}", "1.000", "1.000", success, "", ""])
        table.append(["standing still", "", "", "", f"{zero:.2f}", "0.000", "0.000", "", "", ""])
    return table


def _with_interval(figures: Sequence[float], digits: int) -> str:
    """Write the interquartile mean of the figures that are not NaN, and its interval if there is one."""
    values = np.array(figures)
    if not np.isfinite(values).any():
        return ""
    return _written(interval(values[np.isfinite(values)]), digits)


def _written(figures: Iterable[np.ndarray], digits: int) -> str:
    """Write a figure and its interval, low and high, if there is one."""
    middle, low, high = figures
    return f"{middle:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else "")


def learning(runs: Sequence[Run]) -> list[list[str]]:
    """Return the table that `LEARNING` explains: its head, then rows for each of `LEVELS` of each experiment, fastest first."""
    experiments = sorted((_learnt(group) for group in group_runs(runs)), key=lambda each: each[0])
    head = ["", "to", "came there", "updates", "samples", "minutes", "fell back by", "spread of seeds"]
    return [head, *(row for _, rows in experiments for row in rows)]


def _learnt(group: Group) -> tuple[list[float], list[list[str]]]:
    """Return the median updates to each of `LEVELS` (of an even number of runs the slower middle one), and the rows."""
    closing = np.array([run.score("normalized_return") for run in group.runs])
    falls = [largest_fall(run.series("test/OD/normalized_return")[0]) for run in group.runs]
    steadiness = [_with_interval(falls, 3), f"{closing.std(ddof=1):.3f}" if len(closing) > 1 else ""]
    medians: list[float] = []
    rows: list[list[str]] = []
    for level in LEVELS:
        tests = {x: [run.series(x, "test/OD/normalized_return") for run in group.runs] for x in AXES}
        took = {x: np.array([reached(at, scores, level) for at, scores in tests[x]]) for x in AXES}
        updates = took["x_axis/optimization_steps"]
        costs = []
        for x, (_, unit) in AXES.items():
            quantiles = np.quantile(took[x], (0, 0.5, 1), method="higher") / unit
            lowest, middle, highest = (
                f"{value:.{0 if unit == 1 else 1}f}" if np.isfinite(value) else "never" for value in quantiles
            )
            costs.append(middle if lowest == highest else f"{middle} [{lowest}, {highest}]")
        medians.append(float(np.quantile(updates, 0.5, method="higher")))
        first = not rows
        came = f"{np.isfinite(updates).sum()} of {len(group.runs)}"
        rows.append([group.label if first else "", f"{level}", came, *costs, *(steadiness if first else ("", ""))])
    return medians, rows


def across_tasks(runs: Sequence[Run]) -> dict[str, list[list[str]]]:
    """Return the tables of experiments over all tasks and over each, by what explains them; none if there is one task.

    Their figures are normalized closing returns on OD seeds.
    """
    tasks = sorted({run.task for run in runs})
    if len(tasks) == 1:
        return {}
    methods = scores_by_task(runs)
    labels = [method.group.label for method in methods]
    aggregate = [["", "tasks", "runs", *STATISTICS]]
    better, by_task = [["", *labels]], [["", *labels]]
    for method in methods:
        own = [*method.scores.values()]
        figures = [_written(stratified_interval(statistic, own), 3) for statistic in STATISTICS.values()]
        aggregate.append([method.group.label, f"{len(own)}", f"{sum(map(len, own))}", *figures])
        better.append([method.group.label, *(_better(method, other) for other in methods)])
    for task in tasks:
        of_task = (method.scores.get(task) for method in methods)
        by_task.append([task, *("" if own is None else f"{interquartile_mean(own):.3f}" for own in of_task)])
    return {AGGREGATE: aggregate, BETTER: better, BY_TASK: by_task}


def _better(method: TaskScores, other: TaskScores) -> str:
    """Write the probability that a method improves on another, on the tasks that both have."""
    shared = [task for task in method.scores if task in other.scores and method is not other]
    sides = [[each.scores[task] for task in shared] for each in (method, other)]
    return _written(stratified_interval(probability_of_improvement, *sides), 2) if shared else ""


def tables(runs: Sequence[Run]) -> str:
    """Return the tables over several tasks, if there are several, and those of scores and of learning, as Markdown."""
    over = "".join(f"{explained}:\n\n{markdown(table)}\n\n" for explained, table in across_tasks(runs).items())
    over += f"{EACH}:\n\n" if over else ""
    return f"{over}{markdown(scores(runs))}\n\n{LEARNING}:\n\n{markdown(learning(runs))}"


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Lay out a table with its head in the first row."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
