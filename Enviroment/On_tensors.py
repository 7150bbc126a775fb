"""Observations, rewards and ends of tasks as PyTorch operations, for N simulations at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from Enviroment.Task import Task


class Fields(Protocol):
    """The fields of N `MjData` by MuJoCo's names: `qpos` [N, nq], `xpos` [N, nbody, 3], all of one dtype on one device."""

    def __getattr__(self, name: str) -> torch.Tensor:
        """Return one field [N, ...]."""


@dataclass(frozen=True)
class Outcome:
    """The result of one step of N simulations, without its observations."""

    reward: torch.Tensor  # [N]
    terminated: torch.Tensor  # bool [N]
    info: dict[str, torch.Tensor]  # [N] by key: the numbers of the environment's `info`


@dataclass(frozen=True)
class OnTensors:
    """An environment's observation and outcome as PyTorch operations, equal to its own on the same fields of `MjData`.

    The functions are given one environment, unwrapped, and read its constants: weights, ranges, its model's bodies. They never
    read a tensor's value, and make tensors on the fields' device only, so that they can be recorded into a CUDA graph. What
    they return is in the fields' dtype and shares no memory with them.
    """

    fields: tuple[
        str, ...
    ]  # those that the functions read; `cfrc_ext` needs MuJoCo's `rne_postconstraint` after a step
    observe: Callable[[Any, Fields], torch.Tensor]  # (environment, fields) -> state [N, S]
    # (environment, fields, what `before` returned, action [N, A] in the fields' dtype) -> outcome of the step
    outcome: Callable[[Any, Fields, torch.Tensor | None, torch.Tensor], Outcome]
    before: Callable[[Any, Fields], torch.Tensor] | None = (
        None  # what `outcome` needs of the fields before the step, [N, K]
    )


def _outcome(terms: dict[str, torch.Tensor], terminated: torch.Tensor | None = None, **info: torch.Tensor) -> Outcome:
    """Return the outcome whose reward is the sum of its `terms` [N], which `info` holds too."""
    reward = torch.stack(list(terms.values())).sum(0)
    return Outcome(
        reward, torch.zeros_like(reward, dtype=torch.bool) if terminated is None else terminated, terms | info
    )


def _position(env: Any, data: Fields, body: str | int) -> torch.Tensor:
    return data.xpos[:, env.model.body(body).id]


def _observe_pusher(env: Any, data: Fields) -> torch.Tensor:
    positions = [_position(env, data, body) for body in ("tips_arm", "object", "goal")]
    return torch.cat([data.qpos[:, :7], data.qvel[:, :7], *positions], -1)


def _pusher(env: Any, data: Fields, before: torch.Tensor | None, action: torch.Tensor) -> Outcome:
    tip, cylinder, goal = (_position(env, data, body) for body in ("tips_arm", "object", "goal"))
    return _outcome(
        {
            "reward_dist": -env._reward_dist_weight * (cylinder - goal).norm(dim=-1),
            "reward_ctrl": -env._reward_control_weight * action.square().sum(-1),
            "reward_near": -env._reward_near_weight * (cylinder - tip).norm(dim=-1),
        }
    )


# By the id of the environment, without the module that registers it.
_ON_TENSORS = {
    "Pusher-v5": OnTensors(("qpos", "qvel", "xpos"), _observe_pusher, _pusher),
}


def on_tensors(task: Task) -> OnTensors | None:
    """Return a task's functions on tensors: its own, or those of its environment; None where there are none."""
    return task.on_tensors or _ON_TENSORS.get(task.env_id.rpartition(":")[2])
