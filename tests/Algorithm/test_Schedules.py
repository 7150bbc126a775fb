"""Schedules worked out by hand."""

import pytest

from Algorithm.Schedules import Every, Until, cosine, linear


def test_numbers_on_their_way():
    assert linear(0.2, 0.6, 0.5) == pytest.approx(0.4)
    assert cosine(1.0, 0.0, 0.5) == pytest.approx(0.5)
    assert (cosine(3e-3, 1e-6, 0.0), cosine(3e-3, 1e-6, 1.0)) == (pytest.approx(3e-3), pytest.approx(1e-6))


def test_until_ends_at_its_step():
    until = Until(3)
    assert [until(step) for step in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (Every(10), [0, 12, 24, 30]),
        (Every(10, early=4), [0, 6, 12, 24, 30]),  # 4 and 8 are noticed at 6 and 12
        (Every(100, early=10), [0, 12, 24, 30]),
        (Every(4, early=10), [0, 6, 12, 18, 24, 30]),
        (Every(0), []),
    ],
)
def test_every_is_due_once_for_each_multiple_reached_or_passed(every, due):
    assert [step for step in range(0, 31, 6) if every(step)] == due


def test_every_continues_from_where_it_was():
    every = Every(10)
    every.skip(25)
    assert every.next == 30
    assert not every(29)
    assert every(30)
    assert every.next == 40
