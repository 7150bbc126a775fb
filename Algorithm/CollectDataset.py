"""A teacher's episodes, collected into a dataset on disk."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from Algorithm.Config import TeacherNoiseConfig
from Algorithm.Dataset import DATASET_VERSION, FIELDS, Arrays, SampleWriter, episode_ends
from Algorithm.Episodes import run_episodes
from Algorithm.seeds import DATASET_FIRST_SEED
from Common import Parallel
from Common.Files import plain
from Enviroment.World import World
from Models.Base_Model import CorrelatedNoise, GaussianPolicy, SquashedGaussian
from Models.Memory import Observation

Act = Callable[[Observation, torch.Tensor], tuple[torch.Tensor, dict[str, torch.Tensor]]]


def sample_rounds(world: World, first_seed: int, samples: int, act: Act, shared: bool = False) -> Iterator[Arrays]:
    """Run whole episodes, one for each seed from `first_seed` up, until there are `samples` samples.

    Args:
        world: each round runs as many episodes as there are environments.
        first_seed: of the first episode; all random numbers of a round depend on its first seed alone.
        samples: at least so many are collected, in as few episodes as that takes.
        act: maps observations [N, ...] and bool [N] where episodes begin to actions [N, A] and further fields [N, ...].
        shared: whether several ranks share the episodes of a round, and each of them gets all samples.

    Yields:
        The samples of a round in the order of its episodes: `frame`, `state`, `proprioception`, `action`, `reward`,
        `episode_start`, `seed`, and the fields of `act`.
    """
    rank, ranks = (Parallel.rank(), Parallel.count()) if shared else (0, 1)
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    while samples > 0:
        episodes = min(world.num_envs * ranks, -(-samples // world.max_episode_steps))
        seeds = np.arange(first_seed, first_seed + episodes)[rank::ranks]
        with torch.random.fork_rng(devices):
            torch.manual_seed(first_seed + rank)
            steps = _run_round(world, seeds, act)
        if shared:
            steps = [step for share in Parallel.exchange(steps) for step in share]
        joined = {key: np.concatenate([step[key] for step in steps]) for key in steps[0]}
        order = np.argsort(joined["seed"], kind="stable")
        ends = episode_ends(joined["episode_start"][order])
        order = order[: ends[min(int(np.searchsorted(ends, samples)), len(ends) - 1)]]
        yield {key: value[order] for key, value in joined.items()}
        samples -= len(order)
        first_seed += episodes


def _run_round(world: World, seeds: np.ndarray, act: Act) -> list[Arrays]:
    """Return the samples of one episode for each seed, step by step."""
    extra: dict[str, torch.Tensor] = {}

    def watched(obs: Observation, first: torch.Tensor) -> torch.Tensor:
        nonlocal extra
        action, extra = act(obs, first)
        return action

    steps: list[Arrays] = []
    for step in run_episodes(world, seeds.tolist(), watched):
        fields = {"action": step.action, "reward": step.reward}
        fields |= {FIELDS[key]: value for key, value in step.obs.items()}
        fields |= {key: value.cpu()[step.running] for key, value in extra.items()}
        sample = {"seed": seeds[step.running.numpy()], "episode_start": np.full(len(step.running), not steps)}
        steps.append(sample | {name: value.cpu().numpy() for name, value in fields.items()})
    return steps


def label(teacher: SquashedGaussian) -> dict[str, torch.Tensor]:
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
    def act(obs: Observation, first: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        policy = teacher.distribution(teacher.to_tensors(obs))
        return policy.action(actions.sample(policy)), label(policy)

    partial = folder.with_name(folder.name + ".partial")
    writer = SampleWriter(partial, plain({"format": "dataset", "version": DATASET_VERSION, **facts}))
    if not overwrite:
        writer.resume()
    first_seed = DATASET_FIRST_SEED + writer.meta["episodes"]
    disable = quiet or not sys.stderr.isatty()
    with tqdm(total=samples, initial=writer.meta["samples"], unit="sample", desc=folder.name, disable=disable) as bar:
        for part in sample_rounds(world, first_seed, samples - writer.meta["samples"], act):
            writer.append(part)
            actions.state = None  # a round depends on no earlier one
            bar.update(len(part["seed"]))
    writer.finish()
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
