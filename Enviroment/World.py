"""`World`: N environments of a task as tensors on a device."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import torch


@dataclass(frozen=True)
class Step:
    """The result of one step of N environments. All tensors but `done` are views (see `World`)."""

    obs: dict[str, torch.Tensor]  # [N, ...] by key; where `done`, the new episode's first
    reward: torch.Tensor  # float64 [N]
    terminated: torch.Tensor  # bool [N], whether the episode ended in a terminal state
    truncated: torch.Tensor  # bool [N], whether the time limit cut the episode off
    last_obs: dict[str, torch.Tensor]  # [N, ...] by key; the ended episode's last where `done`, meaningless elsewhere
    info: dict[str, torch.Tensor]  # float64 [N] by key: what the task's success and measures need of `info`

    @property
    def done(self) -> torch.Tensor:
        """Whether the episode ended in this step, bool [N]."""
        return self.terminated | self.truncated


class World(Protocol):
    """N environments of a task. An episode that ends is followed by the next one in the same step, if there is one.

    The tensors it returns are views of memory that its next call overwrites: copy those that have to last.
    """

    spaces: gym.spaces.Dict  # of one environment's observation
    action_space: gym.spaces.Box  # of one environment, [A]; actions are in its units
    num_envs: int  # N
    max_episode_steps: int  # the time limit
    device: torch.device  # of the tensors

    def reset(self, seeds: Sequence[int | None]) -> dict[str, torch.Tensor]:
        """Start endless episodes in every environment and return the first observations [N, ...].

        A seed of None continues the environment's random numbers. Raises `ValueError` unless there are N seeds.
        """

    def start(self, seeds: Sequence[int]) -> dict[str, torch.Tensor]:
        """Start one episode for each seed, in any number, and return the first observations [N, ...].

        The environments take the first N seeds in order. The environments whose episodes end in one step take the next
        seeds in the order of their numbers. One for which there is no seed rests: it is not stepped, its rows are meaningless,
        and its `done` is false.
        """

    def step(self, actions: torch.Tensor) -> Step:
        """Step every environment with its action, float [N, A].

        Raises `ValueError` for another shape, and `NonFinite` for an action, a reward or a state that is not finite.
        """

    def state(self) -> list[Any]:
        """Return snapshots from which `restore` continues: texts, or dictionaries of tensors on the CPU and plain values.

        Worker processes continue bit for bit.
        """

    def restore(self, state: Sequence[Any]) -> None:
        """Put every environment back where `state` found it; raises `ValueError` for a state of another number of them.

        The next call has to be `step`: no observation is made.
        """

    def stagger(self, first: int = 0, total: int | None = None) -> None:
        """Spread the ends of the running episodes evenly over the time limit, so that every rollout has every phase.

        The world's first environment is number `first` of the `total` (N unless given) in the worlds of all ranks.
        """

    def rendering(self, wanted: bool) -> AbstractContextManager[None]:
        """Render no frames in here unless they are `wanted`. Image observations are then meaningless."""

    def close(self) -> None:
        """Free everything; closing twice is harmless."""
