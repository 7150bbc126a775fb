"""Gradient updates, and the base class of all trainers."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from Algorithm.Augmentation import Augmentation
from Algorithm.Checkpoint import check_optimizer, random_state, restore_random_state
from Algorithm.Config import TrainingConfig
from Algorithm.CUDA_graphs import graphed
from Algorithm.Losses import Loss
from Algorithm.Schedules import cosine, schedules
from Common import Parallel
from Models.Base_Model import ActorCritic

ERRORS = "errors"  # in an update's results, beside its scalars


class Learner:
    """Makes gradient updates: loss, backward pass, average over the ranks, clipping, annealing, step.

    On CUDA loss and backward pass are replayed as a graph: Python must not branch on a tensor's value in them, and only the
    inputs and the scheduled numbers may change from update to update.

    Args:
        student: the network, whose parameters `optimizer` updates.
        optimizer: its learning rate follows `config`.
        gather: makes a batch of an update's input tensors, whose images are augmented.
        loss: returns the loss of a batch.
        unused: whether some parameters have no part in the loss.
        warm_up: so many updates at the beginning change the critic alone.

    Attributes:
        updates: how many were made.
        schedules: of the settings that may have one, by name.
        scheduled: their numbers in the current update, tensors that the loss reads.
        gap: the smallest KL of the student from its teacher so far, in nats; infinite where it is not measured.
    """

    def __init__(
        self,
        student: ActorCritic,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        gather: Callable[..., Any],
        loss: Callable[..., Loss],
        unused: bool = False,
        warm_up: int = 0,
    ):
        self.student, self.optimizer, self.updates, self.gap = student, optimizer, 0, math.inf
        self._config, self._gather = config, gather
        self.schedules = schedules(config)
        self._changing = [name for name, schedule in self.schedules.items() if schedule.changes]
        numbers = {name: schedule.numbers[0] for name, schedule in self.schedules.items()}
        self.scheduled = {name: torch.tensor(first, device=student.scale.device) for name, first in numbers.items()}
        self._augment = Augmentation(config.augment, {image: student.background(image) for image in student.images})
        self._loss = Parallel.averaging(student, loss, unused)
        self._warm_up, self._frozen = warm_up, student.actor_parameters()
        functions = {critic: partial(self._gradients, critic_only=critic) for critic in (True, False)}
        self._graphed = {only: graphed(student, student.scale.device, each) for only, each in functions.items()}

    @property
    def progress(self) -> float:
        """How far training is: 0 at the first update, 1 at the last."""
        return min(self.updates / max(self._config.optimization_steps - 1, 1), 1.0)

    def update(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make one update; returns `training/` scalars, and what the loss has of each sample: `errors` [B], memory."""
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(self._config.learning_rate, self._config.learning_rate_end, self.progress)
        for name in self._changing:
            self.scheduled[name].fill_(self.schedules[name](self.progress, self.gap))
        results = self._graphed[self.updates < self._warm_up](**inputs)
        self.optimizer.step()
        self.updates += 1
        return results | {f"training/{name}": self.scheduled[name].clone() for name in self._changing}

    def _gradients(self, critic_only: bool = False, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Leave the clipped gradients of a batch's loss in the student's parameters, or in those of its critic."""
        batch = self._gather(**inputs)
        loss = self._loss(replace(batch, obs=self._augment(batch.obs)))
        total, scalars = loss.total, {**loss.scalars, "loss": loss.scalars.get("loss", loss.total)}
        if loss.hidden is not None:
            scalars["hidden_state_error"] = loss.hidden.mean()
            total = total + self._config.hidden_state * scalars["hidden_state_error"]
        self.optimizer.zero_grad()
        with Parallel.communicating():
            total.backward()
        for parameter in self._frozen if critic_only else ():
            parameter.grad = None  # neither clipped with the others nor known to the optimizer
        scalars["gradient_norm"] = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self._config.max_grad_norm)
        results = {f"training/{name}": value.detach() for name, value in scalars.items()}
        return results | loss.memory | ({} if loss.errors is None else {ERRORS: loss.errors})


class Trainer:
    """A method that trains a student step by step; the loop of `Training` drives it.

    A method sets `learner`, and implements `start` and `step`. It implements `own_state` and `load_own_state` if each rank
    has more to keep than random numbers.

    Attributes:
        samples_collected: from environments or a dataset.
        samples_seen: by all updates together.
        window: consecutive steps in a sequence; 1 for a student that has no recurrent state, whose samples may have any order.
    """

    learner: Learner

    def __init__(self, student: ActorCritic, config: TrainingConfig, seed: int):
        self.student, self.device, self.seed = student, student.scale.device, seed
        self.window = config.window if student.memory_shapes else 1
        self.samples_collected = self.samples_seen = 0

    @property
    def optimization_steps(self) -> int:
        """How many updates were made."""
        return self.learner.updates

    def start(self) -> None:
        """Seed every random number and prepare the first step of a new run."""
        raise NotImplementedError

    def step(self, budget: int) -> dict[str, float]:
        """Make some updates, at most `budget`; returns scalars."""
        raise NotImplementedError

    def own_state(self) -> dict[str, Any]:
        """Return this rank's part of the state, beside random numbers."""
        return {}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continue from `own_state`."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, between two steps, to continue: bit for bit on the CPU."""
        return {
            "student": self.student.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "counters": [self.optimization_steps, self.samples_collected, self.samples_seen],
            "gap": self.learner.gap,
            "ranks": Parallel.exchange(self.own_state() | random_state(self.device)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.student.load_state_dict(state["student"])
        self.learner.optimizer.load_state_dict(state["optimizer"])
        check_optimizer(self.learner.optimizer)
        self.learner.updates, self.samples_collected, self.samples_seen = state["counters"]
        self.learner.gap = state.get("gap", math.inf)  # older checkpoints have none
        own = state["ranks"][Parallel.rank()]
        self.load_own_state(own)
        restore_random_state(own, self.device)


def mean_scalars(updates: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Average the scalars of several updates, with one transfer from the device."""
    keys = list(updates[0])
    means = torch.stack([torch.stack([update[key].detach().float() for key in keys]) for update in updates]).mean(0)
    return dict(zip(keys, means.tolist()))
