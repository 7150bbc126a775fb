"""Statistics of runs on several tasks, on numbers worked out by hand."""

from functools import partial

import numpy as np
import pytest

from Distillation.Reports.Statistics import (
    mean_of_middle,
    median_of_tasks,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)

SCORES = [np.array([0.2, 0.4]), np.array([0.6, 1.2])]
OTHERS = [np.array([0.1, 0.4]), np.array([1.2, 1.3, 0.6])]
LEVELS = np.array([0.0, 0.2, 0.5, 1.0])
STATISTICS = (mean_of_middle, median_of_tasks, optimality_gap, partial(performance_profile, levels=LEVELS))


def test_statistics_over_tasks():
    assert mean_of_middle(SCORES) == pytest.approx(0.5)  # of 0.4 and 0.6
    assert median_of_tasks(SCORES) == pytest.approx(0.6)  # of 0.3 and 0.9
    assert optimality_gap(SCORES) == pytest.approx(0.45)  # 1 - (0.2 + 0.4 + 0.6 + 1) / 4
    assert performance_profile(SCORES, LEVELS).tolist() == [1, 0.75, 0.5, 0.25]
    assert performance_profile(OTHERS, LEVELS) == pytest.approx([1, 0.75, 0.5, 1 / 3])  # tasks weigh alike
    assert probability_of_improvement(SCORES, OTHERS) == pytest.approx((2.5 / 4 + 2 / 6) / 2)  # ties count half
    assert probability_of_improvement(OTHERS, SCORES) == pytest.approx((1.5 / 4 + 4 / 6) / 2)


def test_an_interval_resamples_the_runs_of_each_task_among_themselves():
    alike = [np.full(3, 0.2), np.full(3, 0.9)]  # the tasks differ, their seeds do not
    for statistic in STATISTICS:
        middle, low, high = stratified_interval(statistic, alike)
        assert middle == pytest.approx(statistic(alike))
        assert low == pytest.approx(middle)
        assert high == pytest.approx(middle)
    # Of two runs a resample has one twice with probability 1/2: the limits are theirs.
    assert np.allclose(stratified_interval(optimality_gap, [np.array([0.0, 1.0])]), (0.5, 0, 1))
    middle, low, high = stratified_interval(probability_of_improvement, SCORES, OTHERS)
    assert low < middle < high
    assert np.isnan(stratified_interval(mean_of_middle, [np.array([0.2]), np.array([0.9])])[1:]).all()
