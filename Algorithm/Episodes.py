"""Whole episodes on given seeds, for evaluation, datasets and DAgger."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from Enviroment.World import World
from Models.Memory import Observation


@dataclass(frozen=True)
class EpisodeStep:
    """One step of the L episodes that are running, on the world's device.

    Attributes:
        running: int [L], their numbers among the seeds.
        environments: int [L], the environments they run in.
        first: bool [L], whether this was an episode's first step.
        obs: the observations before the step, [L, ...]; images are single frames.
        action: [L, A].
        reward: float64 [L].
        terminated: bool [L], whether the episode ended in a terminal state.
        ended: bool [L], whether this was an episode's last step.
        last_obs: the observations after it of the E episodes that ended, [E, ...].
        info: float64 [E] by key, of their last step.
    """

    running: torch.Tensor
    environments: torch.Tensor
    first: torch.Tensor
    obs: Observation
    action: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    ended: torch.Tensor
    last_obs: Observation
    info: dict[str, torch.Tensor]


def run_episodes(
    world: World, seeds: Sequence[int], act: Callable[[Observation, torch.Tensor], torch.Tensor]
) -> Iterator[EpisodeStep]:
    """Run one episode for each seed, as many at once as there are environments; each that ends makes place for the next.

    Args:
        world: its own episodes are lost.
        seeds: one episode each.
        act: maps the newest observations [N, ...], and bool [N] where episodes begin, to actions [N, A].

    Yields:
        An `EpisodeStep` for each step, until the last episode has ended.
    """
    obs, device = world.start(seeds), world.device
    number = torch.arange(world.num_envs, device=device)  # of the episode in each environment
    number[len(seeds) :] = -1
    started = min(world.num_envs, len(seeds))
    first = torch.ones(world.num_envs, dtype=torch.bool, device=device)
    while (live := (number >= 0).nonzero().flatten()).numel():
        action = act(obs, first).to(device)
        before = {key: value[live] for key, value in obs.items()}  # the world writes the next ones in the same place
        step = world.step(action)
        done = step.done.clone()
        ended = done.nonzero().flatten()
        last_obs = {key: value[ended] for key, value in step.last_obs.items()}
        info = {key: value[ended] for key, value in step.info.items()}
        outcome = step.reward[live], step.terminated[live], done[live]
        yield EpisodeStep(number[live], live, first[live], before, action[live], *outcome, last_obs, info)
        number[ended] = -1
        following = torch.arange(started, min(started + len(ended), len(seeds)), device=device)
        number[ended[: len(following)]] = following
        started += len(following)
        obs, first = step.obs, done
