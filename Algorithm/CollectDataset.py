"""A teacher's episodes, collected into a dataset on disk."""

import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from Algorithm.Config import TeacherNoiseConfig
from Algorithm.Dataset import DATASET_VERSION, SampleWriter, episode_ends, field, to_arrays
from Algorithm.Episodes import run_episodes
from Algorithm.seeds import DATASET_FIRST_SEED
from Common import Parallel
from Common.Files import plain
from Enviroment.World import World
from Models.Base_Model import GaussianPolicy
from Models.Distributions import CorrelatedNoise, Gaussian
from Models.Memory import Observation

Fields = dict[str, torch.Tensor]  # of samples, by name
Act = Callable[[Observation, torch.Tensor], tuple[torch.Tensor, Fields]]


def sample_rounds(
    world: World, first_seed: int, samples: int, act: Act, shared: bool = False, done: tuple[int, int] = (0, 0)
) -> Iterator[Fields]:
    """Run whole episodes, one for each seed from `first_seed` up, until there are `samples` samples.

    How many episodes a round has follows from the mean length of those before it, so that a collection that was cut off
    and continued has the rounds of one that was not.

    Args:
        world: each round runs as many episodes as there are environments, or more where they end early.
        first_seed: of the first episode; all random numbers of a round depend on its first seed alone.
        done: how many samples and episodes of these there are already.
        samples: at least so many are collected, in as few episodes as that takes.
        act: maps observations [N, ...] and bool [N] where episodes begin to actions [N, A] and further fields [N, ...].
        shared: whether several ranks share the episodes of a round, and each of them gets all samples.

    Yields:
        The samples of a round in the order of its episodes, on the world's device: the fields of observations (see
        `Dataset.field`), `action`, `reward`, `terminated`, `episode_start`, `seed`, and the fields of `act`.
    """
    rank, ranks = (Parallel.rank(), Parallel.count()) if shared else (0, 1)
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    limit, (collected, begun) = world.max_episode_steps, done
    while collected < samples:
        length = collected / begun if begun else limit
        # A round takes as long as one of the longest episodes, however short they are.
        most = world.num_envs * ranks * max(1, round(limit / length))
        episodes = min(most, math.ceil((samples - collected) / length))
        first = first_seed + begun
        seeds = torch.arange(first, first + episodes, device=world.device)[rank::ranks]
        with torch.random.fork_rng(devices):
            torch.manual_seed(first + rank)
            joined = _run_round(world, seeds, act)
        if ranks > 1:
            shares = [
                share for share in Parallel.exchange({key: value.cpu() for key, value in joined.items()}) if share
            ]
            joined = {key: torch.cat([share[key] for share in shares]).to(world.device) for key in shares[0]}
        order = joined["seed"].argsort(stable=True)
        ends = episode_ends(joined["episode_start"][order].cpu().numpy())
        order = order[: ends[min(int(ends.searchsorted(samples - collected)), len(ends) - 1)]]
        yield {key: value[order] for key, value in joined.items()}
        collected += len(order)
        begun += episodes


def _run_round(world: World, seeds: torch.Tensor, act: Act) -> Fields:
    """Return the samples of one episode for each seed int [E], step after step; nothing if there are no seeds."""
    extra: Fields = {}

    def watched(obs: Observation, first: torch.Tensor) -> torch.Tensor:
        nonlocal extra
        action, extra = act(obs, first)
        return action

    steps: list[Fields] = []
    for step in run_episodes(world, seeds.tolist(), watched):
        fields = {"seed": seeds[step.running], "action": step.action, "reward": step.reward}
        fields |= {field(key): value for key, value in step.obs.items()}
        fields |= {key: value.to(world.device)[step.environments] for key, value in extra.items()}
        steps.append(fields | {"episode_start": step.first, "terminated": step.terminated})
    return {key: torch.cat([step[key] for step in steps]) for key in steps[0]} if steps else {}


def label(teacher: Gaussian) -> Fields:
    """Return the fields of samples that describe the teacher's policy."""
    return {"mean": teacher.mean, "log_std": teacher.log_std}


def collect_dataset(
    folder: Path,
    world: World,
    teacher: GaussianPolicy,
    samples: int,
    noise: TeacherNoiseConfig | None = None,
    meta: dict[str, Any] | None = None,
    quiet: bool = False,
    overwrite: bool = False,
) -> None:
    """Collect the teacher's episodes from seed 2000 up into `folder`, or continue a collection that was cut off.

    The dataset grows in `folder` + `.partial` and gets its name when it is whole.

    Args:
        folder: the dataset's.
        world: environments with frames.
        teacher: drives and labels.
        samples: at least so many, in whole episodes.
        noise: of the actions taken; the labels have none.
        meta: further facts that the data depend on: task, teacher, render settings.
        quiet: show no progress; `overwrite`: begin anew.

    Raises:
        BadFile: a collection that was cut off is damaged, or was begun with other settings.
        OSError: such as for a full disk; the samples collected so far are kept.
    """
    noise = noise or TeacherNoiseConfig()
    facts = {**vars(noise), "requested_samples": samples, "num_envs": world.num_envs, **(meta or {})}
    actions = CorrelatedNoise(noise.teacher_noise, noise.noise_correlation)

    @torch.no_grad()
    def act(obs: Observation, first: torch.Tensor) -> tuple[torch.Tensor, Fields]:
        policy = teacher.distribution(teacher.to_tensors(obs))
        return policy.action(actions.sample(policy)), label(policy)

    partial = folder.with_name(folder.name + ".partial")
    writer = SampleWriter(partial, plain({"format": "dataset", "version": DATASET_VERSION, **facts}))
    if not overwrite:
        writer.resume()
    done = writer.meta["samples"], writer.meta["episodes"]
    disable = quiet or not sys.stderr.isatty()
    with tqdm(total=samples, initial=done[0], unit="sample", desc=folder.name, disable=disable) as bar:
        for part in sample_rounds(world, DATASET_FIRST_SEED, samples, act, done=done):
            writer.append(to_arrays(part))
            actions.state = None  # a round depends on no earlier one
            bar.update(len(part["seed"]))
    writer.finish()
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
