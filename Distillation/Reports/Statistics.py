"""Statistics of runs: interquartile means and their intervals, joined curves, how fast and how steadily they learnt.

The interquartile mean over the runs and its 95 % bootstrap interval are those of Agarwal et al. 2021
(https://arxiv.org/abs/2108.13264), and so are the statistics of runs on several tasks. `Scores` are the normalized returns of
a method's runs, an array of each task with the runs along its last axis, [..., runs].
"""

from collections.abc import Callable, Sequence

import numpy as np

Scores = Sequence[np.ndarray]
RESAMPLES = 2_000


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the mean of the middle half along an axis; of fewer than four values the mean."""
    from scipy.stats import trim_mean

    return trim_mean(values, 0.25, axis=axis)


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the interquartile mean of runs [n, ...] and its 95 % percentile-bootstrap interval, low and high [...].

    The interval of fewer than two runs is NaN.
    """
    from scipy.stats import bootstrap

    middle = interquartile_mean(values)
    if len(values) < 2:
        return middle, np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    how = {"n_resamples": RESAMPLES, "method": "percentile", "vectorized": True, "rng": 0}
    limits = bootstrap((values,), interquartile_mean, axis=0, **how).confidence_interval
    return middle, limits.low, limits.high


def aggregate(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Join the curves of runs: mean x, interquartile mean of y, low and high, float [4, points].

    Args:
        curves: of each run, updates, x and y, float [3, points]. Points at the same updates are taken as they are, from
            the runs that came so far; otherwise x and y are interpolated between a run's own updates.
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


def reached(at: np.ndarray, scores: np.ndarray, level: float) -> float:
    """Return where tests [n] first reached a level, in proportion between two tests; infinity if they never did."""
    after = np.flatnonzero(scores >= level)
    if not after.size:
        return float("inf")
    first = after[0]
    return float(np.interp(level, scores[first - 1 : first + 1], at[first - 1 : first + 1]) if first else at[0])


def largest_fall(scores: np.ndarray) -> float:
    """Return by how much a test [n] was at most below the best one before it; NaN without tests."""
    return float("nan") if not len(scores) else float(np.max(np.maximum.accumulate(scores) - scores))


def mean_of_middle(scores: Scores) -> np.ndarray:
    """Return the interquartile mean of all runs of all tasks, [...]."""
    return interquartile_mean(np.concatenate(scores, axis=-1), axis=-1)


def median_of_tasks(scores: Scores) -> np.ndarray:
    """Return the median of the tasks' mean scores, [...]."""
    return np.median([task.mean(axis=-1) for task in scores], axis=0)


def optimality_gap(scores: Scores) -> np.ndarray:
    """Return by how much all runs fall short of 1 in the mean, where one above 1 counts as 1, [...]."""
    return 1 - np.minimum(np.concatenate(scores, axis=-1), 1).mean(axis=-1)


def probability_of_improvement(scores: Scores, others: Scores) -> np.ndarray:
    """Return the probability that a run scores higher than another method's, mean of the tasks, [...]; ties count half."""

    def on_a_task(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        difference = own[..., :, None] - other[..., None, :]
        return (np.sign(difference).mean(axis=(-2, -1)) + 1) / 2

    return np.mean([on_a_task(own, other) for own, other in zip(scores, others)], axis=0)


def performance_profile(scores: Scores, levels: np.ndarray) -> np.ndarray:
    """Return the fraction of runs that score above each of `levels` [L], mean of the tasks, [..., L]."""
    return np.mean([(task[..., None] > levels).mean(axis=-2) for task in scores], axis=0)


def stratified_interval(
    statistic: Callable[..., np.ndarray], *methods: Scores
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a statistic of one or more methods' scores, and its 95 % percentile-bootstrap interval, low and high.

    The runs of each task are resampled among themselves. The interval is NaN where no task has two runs.
    """
    random = np.random.default_rng(0)
    drawn = [[task[random.integers(len(task), size=(RESAMPLES, len(task)))] for task in scores] for scores in methods]
    middle = np.asarray(statistic(*methods))
    if all(len(task) < 2 for scores in methods for task in scores):
        return middle, np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    low, high = np.quantile(statistic(*drawn), (0.025, 0.975), axis=0)
    return middle, low, high
