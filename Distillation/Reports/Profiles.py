"""Draws methods on several tasks: how many of their runs score above each level, and their interquartile means.

Both are those of Agarwal et al. 2021 (https://arxiv.org/abs/2108.13264).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from Distillation.Reports.Curves import looks_of, picture
from Distillation.Reports.Runs import Run, group_runs, scores_by_task
from Distillation.Reports.Statistics import mean_of_middle, performance_profile, stratified_interval


def draw_profiles(runs: Sequence[Run], base: Path) -> Path:
    """Draw runs of several tasks into `base.png` and `base.svg`, whose folder is made; returns the first.

    On the left are the performance profiles, the fraction of runs above a normalized return, on the right the interquartile
    means, both with their 95 % intervals.
    """
    methods, looks = scores_by_task(runs), looks_of(group_runs(runs, across_tasks=True))
    every = np.concatenate([values for method in methods for values in method.scores.values()])
    lowest = (
        every.min() if every.min() > 0.5 else min(every.min(), 0)
    )  # as in curves: from standing still unless all are above
    levels = np.linspace(max(lowest - 0.02, -1), min(max(every.max(), 1) + 0.02, 1.6), 250)
    names = []
    with picture(base, (12, 2 + 0.45 * len(methods))) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for row, method in enumerate(methods):
            scores, look = [*method.scores.values()], looks[method.group.label]
            task = "task" if len(scores) == 1 else "tasks"
            names.append(f"{method.group.label}\n{len(scores)} {task}, {sum(map(len, scores))} runs")
            middle, low, high = stratified_interval(partial(performance_profile, levels=levels), scores)
            left.plot(levels, middle, markersize=4, markevery=(row * 3, 25), **look)
            left.fill_between(levels, low, high, color=look["color"], alpha=0.15, linewidth=0)
            middle, low, high = stratified_interval(mean_of_middle, scores)
            right.plot([low, high], [row, row], color=look["color"], linewidth=7, alpha=0.35, solid_capstyle="butt")
            right.plot(middle, row, color=look["color"], marker=look["marker"], markersize=7, linestyle="")
        left.set(xlabel="normalized return", ylabel="fraction of runs above it", ylim=(-0.02, 1.02))
        left.set_xlim(levels[0], levels[-1])
        right.set(xlabel="interquartile mean of the normalized return", ylim=(len(methods) - 0.5, -0.5))
        right.set_yticks(range(len(methods)), names)
        right.locator_params(axis="x", nbins=5)
        right.grid(axis="y", alpha=0)
    return Path(f"{base}.png")
