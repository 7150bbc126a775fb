"""Evaluation of any policy on given seeds: returns, success, agreement with the teacher; and the video of an episode."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch

from Enviroment.Tasks import Task
from Enviroment.Vector_env import WorkerVectorEnv
from Models.Base_Model import GaussianPolicy
from Models.Utils import FrameStacker

Arrays = dict[str, np.ndarray]


class Policy(Protocol):
    """Whatever acts: a student, a teacher, or one of the two below."""

    def act(self, obs: Arrays, deterministic: bool = True) -> np.ndarray:
        """Return actions float32 [N, A] for observations with a leading [N]."""
        ...


class ZeroPolicy:
    """Stands still: the zero of the normalized return."""

    def __init__(self, action_space: gym.spaces.Box):
        self._size = action_space.shape[0]

    def act(self, obs: Arrays, deterministic: bool = True) -> np.ndarray:
        """Return zeros [N, A]."""
        return np.zeros((len(obs["State"]), self._size), np.float32)


class RandomPolicy:
    """Acts uniformly within the bounds."""

    def __init__(self, action_space: gym.spaces.Box, seed: int = 0):
        self._low, self._high = action_space.low, action_space.high
        self._random = np.random.default_rng(seed)

    def act(self, obs: Arrays, deterministic: bool = True) -> np.ndarray:
        """Return uniform actions [N, A]."""
        return self._random.uniform(self._low, self._high, (len(obs["State"]), len(self._low))).astype(np.float32)


@dataclass(frozen=True)
class Evaluation:
    """One episode for each seed.

    Attributes:
        seeds: the environments' seeds, [E].
        returns: undiscounted, [E].
        success: whether the last state was a success, bool [E].
        final_distance: the task's distance at the last state in metres, [E].
        action_accuracy: 1 - mean squared difference to the teacher's actions in [-1, 1]; NaN without a teacher.
        entropy: of the policy on the visited states in nats; NaN for a policy without one.
    """

    seeds: tuple[int, ...]
    returns: np.ndarray
    success: np.ndarray
    final_distance: np.ndarray
    action_accuracy: float
    entropy: float

    def normalized_return(self, zero: "Evaluation", teacher: "Evaluation") -> float:
        """Return (R - R_zero) / (R_teacher - R_zero) of the mean returns, all on the same seeds."""
        assert self.seeds == zero.seeds == teacher.seeds
        return float((self.returns.mean() - zero.returns.mean()) / (teacher.returns.mean() - zero.returns.mean()))


@dataclass
class Recording:
    """What `evaluate` saw of the first seed's episode: `stacks` uint8 [t, stack, rows, columns], `actions` [t, A]."""

    stacks: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)


@torch.no_grad()
@torch.random.fork_rng(devices=[])
def evaluate(
    policy: Policy,
    env: WorkerVectorEnv,
    task: Task,
    seeds: Iterable[int],
    *,
    teacher: Policy | None = None,
    driver: Policy | None = None,
    deterministic: bool = True,
    recording: Recording | None = None,
) -> Evaluation:
    """Run one episode for each seed and score `policy` on it.

    Args:
        policy: the policy that is scored.
        env: any vector environment of the task; with frames if the policy sees. Its own episodes are lost.
        task: the task.
        seeds: one episode each, in as many rounds as the environments need.
        teacher: what the policy's actions are compared with on every visited state.
        driver: who acts; the policy itself unless given (the teacher, to score the policy on the teacher's states).
        deterministic: whether the policy's (or the driver's) action is its mean.
        recording: filled with the episode of the first seed.
    """
    torch.manual_seed(0)  # in a forked generator: an evaluation repeats itself and leaves training's numbers alone
    seeds = tuple(seeds)
    n = env.num_envs
    space = env.single_action_space
    assert isinstance(space, gym.spaces.Box)
    half_range = (space.high - space.low) / 2
    stacker = FrameStacker(task.stack, task.stack_stride) if "Frame" in env.single_observation_space.keys() else None  # type: ignore[attr-defined]
    returns, distances, squares, entropies = np.zeros(len(seeds)), np.zeros(len(seeds)), [], []

    for start in range(0, len(seeds), n):
        batch = seeds[start : start + n]
        obs, _ = env.reset(seed=[*batch, *[batch[0]] * (n - len(batch))])
        if stacker:
            obs["Frame"] = stacker.reset(obs["Frame"])
        running = np.arange(n) < len(batch)
        rows = np.arange(start, start + len(batch))
        while running.any():
            if isinstance(policy, GaussianPolicy):
                pi = policy.distribution(policy.to_tensors(obs))
                action = pi.action(pi.mean if deterministic else pi.sample()).cpu().numpy()
                entropies.append(pi.entropy().cpu().numpy()[running])
            else:
                action = policy.act(obs, deterministic)
            if teacher is not None:
                squares.append((((action - teacher.act(obs)) / half_range)[running] ** 2).mean(-1))
            if driver is not None:
                action = driver.act(obs, deterministic)
            if recording is not None and start == 0 and running[0]:
                recording.actions.append(action[0].copy())
                if stacker:
                    recording.stacks.append(obs["Frame"][0].copy())
            obs, reward, terminated, truncated, info = env.step(action)
            returns[rows] += (reward * running)[: len(batch)]
            done = terminated | truncated
            ended = np.flatnonzero(done & running)
            if ended.size:
                distances[start + ended] = task.success_distance(info["final_obs"]["State"][ended].astype(np.float64))
                running[ended] = False
            if stacker:
                obs["Frame"] = stacker.push(obs["Frame"], done)

    return Evaluation(
        seeds=seeds,
        returns=returns,
        success=distances < task.success_radius,
        final_distance=distances,
        action_accuracy=1 - float(np.concatenate(squares).mean()) if squares else float("nan"),
        entropy=float(np.concatenate(entropies).mean()) if entropies else float("nan"),
    )


def parse_seeds(text: str) -> Sequence[int]:
    """Read `1900-1999` (both included) or `1900,1907`.

    Raises:
        ValueError: it is neither.
    """
    try:
        seeds: list[int] = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
        if not seeds or min(seeds) < 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"seeds {text!r}: give them as 1900-1999 or 1900,1907") from None
    return seeds
