"""Interquartile means, intervals and curves."""

import numpy as np

from Distillation.Reports.Statistics import aggregate, interquartile_mean, interval


def test_interquartile_mean_and_interval_on_numbers_worked_out_by_hand():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0])
    assert interquartile_mean(values) == 3.5  # of 2, 3, 4, 5
    middle, low, high = interval(values[:, None].repeat(3, axis=1))
    assert (middle == 3.5).all()
    assert (low < 3.5).all()
    assert (high > 3.5).all()
    assert (low == low[0]).all()
    assert np.isnan(interval(values[:1])[1])
    _, low, high = interval(np.full(5, 7.0))
    assert (low, high) == (7, 7)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """Of 20 normal values the percentile bootstrap covers a little less than its 95 %."""
    random = np.random.default_rng(0)
    _, low, high = interval(random.standard_normal((20, 400)))
    covered = ((low < 0) & (high > 0)).mean()
    assert 0.86 < covered < 0.98


def test_curves_measured_alike_are_joined_where_they_are_others_are_interpolated():
    updates = np.arange(4.0)
    minutes = [10 * updates, 30 * updates, 20 * updates[:2]]  # of a fast, a slow run, and one that was cut off
    curves = [np.stack([updates[: len(x)], x, y + np.arange(len(x))]) for x, y in zip(minutes, (0, 2, 4))]
    at, middle, low, high = aggregate(curves)
    assert at.tolist() == [0, 20, 40, 60]  # the mean over the runs that came so far
    assert middle.tolist() == [2, 3, 3, 4]
    assert (low <= middle).all()
    assert (middle <= high).all()
    coarse = np.stack([2 * updates, 20 * updates, 2 * updates])
    at, middle, *_ = aggregate([curves[0], coarse])
    assert at.tolist() == [0, 10, 20, 30, 40, 60]
    assert middle.tolist() == [0, 1, 2, 3, 4, 6]
