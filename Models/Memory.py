"""A policy's memory from step to step: nothing, the frames from which its stacks are made, or a recurrent state."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch

Observation = dict[str, torch.Tensor]

# Entries of a recurrent policy's observations, beside those of the environment. In training, where a batch of B steps is made of
# S sequences, the first two are given; in acting, the memory gives the third.
MEMORY = "Memory"  # the recurrent state before each sequence, float32 [S, H]
FIRST = "First"  # whether a step is an episode's first, before which the state is zero, bool [B]
FEATURES = "Features"  # the recurrent state after the newest step, float32 [N, H]


def is_image(space: gym.Space) -> bool:
    """Return whether a space is one of images: `uint8` with at least rows and columns."""
    return space.dtype == np.uint8 and space.shape is not None and len(space.shape) >= 2


class Memory(Protocol):
    """A policy's memory in N environments. The methods here are those of a policy that keeps nothing."""

    def see(self, obs: Observation, first: torch.Tensor) -> Observation:
        """Take the newest observations [N, ...], `first` bool [N] of an episode, and return the policy's input [N, ...]."""
        return obs

    def state(self) -> Any:
        """Return the memory's state as tensors and plain values."""
        return None

    def restore(self, state: Any) -> None:
        """Continue from `state`."""
        return None


class NoMemory(Memory):
    """The memory of a policy that is given the newest observation alone."""


@dataclass(frozen=True)
class FrameStack:
    """Which frames a policy is given at once: `length` of every `stride`-th step, oldest first."""

    length: int = 1
    stride: int = 1

    @property
    def history(self) -> int:
        """How many steps back the oldest frame lies."""
        return (self.length - 1) * self.stride

    def steps_back(self, age: torch.Tensor) -> torch.Tensor:
        """Return how many steps back each frame of a stack lies, int [..., length], oldest first.

        It is `min(k * stride, age)`, so that an episode's first frame fills the stack. `age`, int [...], counts the steps
        since that frame.
        """
        return (torch.arange(self.length - 1, -1, -1, device=age.device) * self.stride).minimum(age[..., None])


class FrameStacks:
    """The frame stacks of N environments: a ring of the newest frames, `uint8` [history + 1, N, ...] for each image.

    They lie where the observations do.
    """

    def __init__(self, stack: FrameStack, images: Iterable[str], num_envs: int):
        self._stack, self._images = stack, tuple(images)
        self._rings: dict[str, torch.Tensor] = {}
        self._age = torch.zeros(num_envs, dtype=torch.int64)
        self._newest = -1

    def see(self, obs: Observation, first: torch.Tensor) -> Observation:
        """Return the observations with each image [N, ...] replaced by its stack [N, length, ...], oldest first."""
        length = self._stack.history + 1
        if not self._rings:
            self._rings = {key: obs[key].new_zeros((length, *obs[key].shape)) for key in self._images}
        self._newest = (self._newest + 1) % length
        self._age = torch.where(first, 0, self._age.to(first.device) + 1)
        rows = (self._newest - self._stack.steps_back(self._age)) % length
        environments = torch.arange(len(first), device=first.device)[:, None]
        stacked = dict(obs)
        for key, ring in self._rings.items():
            ring[self._newest] = obs[key]
            stacked[key] = ring[rows, environments]
        return stacked

    def state(self) -> dict[str, Any]:
        """Return copies of the rings, and where they stand."""
        rings = {key: ring.clone() for key, ring in self._rings.items()}
        return {"rings": rings, "age": self._age.clone(), "newest": self._newest}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._rings = {key: ring.clone() for key, ring in state["rings"].items()}
        self._age, self._newest = state["age"].clone(), state["newest"]


class RecurrentMemory:
    """The recurrent states of N environments, which begin each episode at zero.

    Args:
        memory: what else the policy keeps.
        remember: maps the observations [N, ...] and the states [N, H] before them, as `MEMORY`, to the states after them.
        states: zeros float32 [N, H].
    """

    def __init__(self, memory: Memory, remember: Callable[[Observation], torch.Tensor], states: torch.Tensor):
        self._memory, self._remember, self._states = memory, remember, states

    @torch.no_grad()
    def see(self, obs: Observation, first: torch.Tensor) -> Observation:
        """Return the policy's input [N, ...]: the state after these observations is all of it that acting needs."""
        seen = self._memory.see(obs, first)
        before = self._states.masked_fill(first[:, None].to(self._states.device), 0)
        self._states = self._remember(seen | {MEMORY: before})
        return seen | {FEATURES: self._states}

    def state(self) -> dict[str, Any]:
        """Return the states, and that of what else the policy keeps."""
        return {"states": self._states.clone(), "memory": self._memory.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._states = state["states"].clone()
        self._memory.restore(state["memory"])
