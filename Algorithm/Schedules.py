"""Schedules of training: numbers that change, and things that happen every so many steps."""

import math

import torch

from Algorithm.Config import TrainingConfig


def linear(first: float, last: float, progress: float) -> float:
    """Return the number at `progress` in [0, 1] of the way from `first` to `last`."""
    return first + (last - first) * progress


def cosine(first: float, last: float, progress: float) -> float:
    """Return the number at `progress` in [0, 1] of the way from `first` to `last` along half a cosine."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * progress))


def anneal(optimizer: torch.optim.Optimizer, config: TrainingConfig, optimization_steps: int) -> None:
    """Set the learning rate of the update that follows `optimization_steps` others."""
    progress = optimization_steps / max(config.optimization_steps - 1, 1)
    rate = cosine(config.learning_rate, config.learning_rate_end, min(progress, 1.0))
    for group in optimizer.param_groups:
        group["lr"] = rate


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
