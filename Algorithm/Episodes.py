"""Whole episodes on given seeds, as evaluation, datasets and DAgger run them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from Enviroment.Vector_env import WorkerVectorEnv
from Models.Utils import FrameStacker

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """One step of the episodes that are under way, L of them.

    Attributes:
        live: int [L], their numbers among the seeds.
        obs: what they began the step with, [L, ...]; `Frame` is the newest frame alone.
        action: [L, A].
        reward: [L].
        ended: bool [L], whether this was an episode's last step.
        final_state: float64 [L, S], the state the step led to; of use where `ended`.
    """

    live: np.ndarray
    obs: Arrays
    action: np.ndarray
    reward: np.ndarray
    ended: np.ndarray
    final_state: np.ndarray


def play(
    env: WorkerVectorEnv, seeds: Sequence[int], stacker: FrameStacker | None, act: Callable[[Arrays], np.ndarray]
) -> Iterator[Step]:
    """Run one episode for each seed, all at once.

    Args:
        env: vector environment with at least as many environments as seeds. Its own episodes are lost.
        seeds: one episode each.
        stacker: puts stacks together for a policy that sees; without one `act` gets single frames.
        act: maps observations [N, ...] of all environments to actions [N, A].

    Yields:
        A `Step` for each step, until the last episode has ended.
    """
    if not seeds:
        return
    spare = env.num_envs - len(seeds)
    obs, _ = env.reset(seed=[*seeds, *[seeds[0]] * spare])
    frames = obs.get("Frame")
    if stacker:
        obs = obs | {"Frame": stacker.reset(obs["Frame"])}
    running = np.arange(env.num_envs) < len(seeds)
    while running.any():
        live = np.flatnonzero(running)
        action = act(obs)
        newest = obs if frames is None else obs | {"Frame": frames}
        obs, reward, terminated, truncated, info = env.step(action)
        done = terminated | truncated
        final = info["final_obs"]["State"] if done.any() else obs["State"]
        yield Step(
            live,
            {key: value[live] for key, value in newest.items()},
            action[live],
            reward[live],
            done[live],
            final[live].astype(np.float64),
        )
        running &= ~done
        frames = obs.get("Frame")
        if stacker:
            obs = obs | {"Frame": stacker.push(obs["Frame"], done)}
