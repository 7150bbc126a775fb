"""Whole episodes on given seeds, for evaluation, datasets and DAgger."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from Enviroment.World import World
from Models.Memory import Observation


@dataclass(frozen=True)
class EpisodeStep:
    """One step of the L episodes that are running.

    Attributes:
        running: int [L], their numbers among the seeds.
        obs: the observations before the step, [L, ...]; images are single frames.
        action: [L, A].
        reward: float64 [L].
        ended: bool [L], whether this was an episode's last step.
        last_obs: the observations after it of the E episodes that ended, [E, ...].
    """

    running: torch.Tensor
    obs: Observation
    action: torch.Tensor
    reward: torch.Tensor
    ended: torch.Tensor
    last_obs: Observation


def run_episodes(
    world: World, seeds: Sequence[int], act: Callable[[Observation, torch.Tensor], torch.Tensor]
) -> Iterator[EpisodeStep]:
    """Run one episode for each seed, all at once.

    Args:
        world: at least as many environments as seeds; their own episodes are lost.
        seeds: one episode each.
        act: maps the newest observations [N, ...], and bool [N] where episodes begin, to actions [N, A].

    Yields:
        An `EpisodeStep` for each step, until the last episode has ended.
    """
    if not seeds:
        return
    obs = world.reset([*seeds, *[seeds[0]] * (world.num_envs - len(seeds))])
    running = torch.arange(world.num_envs) < len(seeds)
    first = torch.ones(world.num_envs, dtype=torch.bool)
    while running.any():
        live = running.nonzero().flatten()
        action = act(obs, first).to(world.device)
        before = {key: value[live] for key, value in obs.items()}  # the world writes the next ones in the same place
        step = world.step(action)
        first = step.done
        last_obs = {key: value[live[first[live]]] for key, value in step.last_obs.items()}
        yield EpisodeStep(live, before, action[live], step.reward[live], first[live], last_obs)
        running &= ~first
        obs = step.obs
