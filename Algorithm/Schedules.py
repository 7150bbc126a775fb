"""Schedules of training: numbers that change, and things that happen every so many steps."""

import dataclasses
import math
from bisect import bisect
from collections.abc import Callable
from itertools import pairwise
from typing import Any


def linear(first: float, last: float, progress: float) -> float:
    """Return the number at `progress` in [0, 1] of the way from `first` to `last`."""
    return first + (last - first) * progress


def cosine(first: float, last: float, progress: float) -> float:
    """Return the number at `progress` in [0, 1] of the way from `first` to `last` along half a cosine."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * progress))


WAYS: dict[str, Callable[[float, float, float], float]] = {"linear": linear, "cosine": cosine}
NEEDED = "a number or a schedule is needed, such as 5:0.1:linear, 5:1@0.3:0.1:cosine or 5:0.1:adaptive@2"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A number that training may change; this one stays as it is. `numbers` are those that it goes through."""

    numbers: tuple[float, ...]

    def __call__(self, progress: float, gap: float = math.inf) -> float:
        """Return the number.

        Args:
            progress: how far training is, in [0, 1].
            gap: the smallest KL of the student from its teacher so far, in nats.
        """
        return self.numbers[0]

    @property
    def changes(self) -> bool:
        """Whether it is ever another number."""
        return len(set(self.numbers)) > 1


@dataclasses.dataclass(frozen=True)
class Course(Schedule):
    """A number on its way from one to the next, along lines or half cosines, which it reaches at `shares` of training."""

    shares: tuple[float, ...]
    way: str

    def __call__(self, progress: float, gap: float = math.inf) -> float:
        """Return the number at `progress`; that before the first share and after the last one is constant."""
        following = bisect(self.shares, progress)
        if following in (0, len(self.shares)):
            return self.numbers[min(following, len(self.shares) - 1)]
        start, end = self.shares[following - 1 : following + 1]
        first, last = self.numbers[following - 1 : following + 1]
        return WAYS[self.way](first, last, (progress - start) / (end - start))


@dataclasses.dataclass(frozen=True)
class Adaptive(Schedule):
    """A number that follows the gap to the teacher: the first one while the gap is above a bound, the last one without a gap.

    It is linear in between. The gap is the smallest so far, so that a student that has caught up is let go for good.
    """

    bound: float

    def __call__(self, progress: float, gap: float = math.inf) -> float:
        """Return the number at a `gap`, whatever the progress."""
        first, last = self.numbers
        return linear(last, first, min(gap / self.bound, 1.0))


def schedule(value: float | str) -> Schedule:
    """Return the schedule that a setting stands for; raises `ValueError`, which says what is needed.

    A number is constant. `NUMBER:NUMBER:linear` and `:cosine` go from the first to the last. There may be further numbers
    between them, each with the share of training at which it is reached, as in `5:1@0.3:0.1:linear`; the first may have one,
    too (0 unless given), and the last (1). `NUMBER:NUMBER:adaptive@KL` is `Adaptive` with its bound in nats.
    """
    if not isinstance(value, str):
        return Schedule((float(value),))
    *points, form = value.split(":")
    way, _, bound = form.partition("@")
    parts = [point.partition("@")[::2] for point in points]
    ends = {0: 0.0, len(parts) - 1: 1.0}
    found: Schedule | None = None
    try:
        numbers = tuple(float(number) for number, _ in parts)
        if way in WAYS and not bound and len(parts) > 1:
            shares = tuple(float(share or ends[number]) for number, (_, share) in enumerate(parts))
            if shares[0] >= 0 and shares[-1] <= 1 and all(one < next_one for one, next_one in pairwise(shares)):
                found = Course(numbers, shares, way)
        elif way == "adaptive" and len(parts) == 2 and "@" not in "".join(points) and 0 < float(bound) < math.inf:
            found = Adaptive(numbers, float(bound))
    except (ValueError, KeyError):  # a word in place of a number, or a number in the middle without a share
        raise ValueError(NEEDED) from None
    if found is None or value.split() != [value]:
        raise ValueError(NEEDED)
    return found


def falling(value: float | str) -> Schedule:
    """Return the schedule of a setting of which a number alone falls to 0 along a line; an adaptive one is a `ValueError`."""
    found = schedule(value) if isinstance(value, str) else Course((float(value), 0.0), (0.0, 1.0), "linear")
    if isinstance(found, Adaptive):
        raise ValueError("a number, which falls to 0, or a schedule is needed, such as 1:0.2:linear or 1:0@0.5:cosine")
    return found


def schedules(config: Any) -> dict[str, Schedule]:
    """Return the schedules of those of a group's settings that may have one, by name."""
    fields = [field for field in dataclasses.fields(config) if field.metadata["parse"]]
    return {field.name: field.metadata["parse"](getattr(config, field.name)) for field in fields}


class Until:
    """`until(step)` is true before a number of steps is reached."""

    def __init__(self, steps: int):
        self.steps = steps

    def __call__(self, step: int) -> bool:
        """Return whether `step` is before the end."""
        return step < self.steps


class Every:
    """`every(step)` is true once for each multiple of `steps` that was reached or passed.

    Args:
        steps: the interval; 0 means never.
        early: a shorter interval that holds before the first multiple.

    Attributes:
        next: the first step at which it is time.
    """

    def __init__(self, steps: int, early: int | None = None):
        self._steps, self._early = steps, early or steps
        self.next = 0

    def __call__(self, step: int) -> bool:
        """Return whether it is time; if it is, wait for the next multiple."""
        if self._steps == 0 or step < self.next:
            return False
        self.skip(step)
        return True

    def skip(self, step: int) -> None:
        """Wait for the first multiple after `step`."""
        if step < self._steps:
            self.next = min((step // self._early + 1) * self._early, self._steps)
        elif self._steps:
            self.next = (step // self._steps + 1) * self._steps
