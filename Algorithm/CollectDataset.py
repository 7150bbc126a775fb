"""A teacher's episodes, collected into a dataset on disk."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from Algorithm.Config import TeacherNoiseConfig
from Algorithm.Episodes import Arrays, play
from Algorithm.seeds import DATASET_FIRST_SEED
from Algorithm.Utils import DATASET_VERSION, FIELDS, check_samples, crc32, episode_ends, read_samples, spaces
from Common import Parallel
from Common.Errors import BadFile
from Common.Files import sync, write_text
from Common.Settings import differences
from Enviroment.Vector_env import WorkerVectorEnv
from Models.Base_Model import GaussianPolicy, LastingNoise, SquashedGaussian
from Models.Utils import FrameStacker


def collect(
    env: WorkerVectorEnv,
    first_seed: int,
    samples: int,
    act: Callable[[Arrays], tuple[np.ndarray, Arrays]],
    stacker: FrameStacker | None = None,
    shared: bool = False,
) -> Iterator[Arrays]:
    """Run whole episodes, one for each seed from `first_seed` up, until there are `samples` samples.

    Args:
        env: vector environment; what is yielded at a time is a round of as many episodes.
        first_seed: of the first episode; all random numbers of a round depend on its first seed alone.
        samples: at least so many are collected, in no more episodes than that takes.
        act: maps observations [N, ...] to actions [N, A] and whatever else is to be kept of the step, [N, ...] each.
        stacker: for an `act` that sees.
        shared: several ranks share the episodes, and each of them gets all samples; a round is one of all their environments.

    Yields:
        Samples in the order of the episodes: `frame`, `state`, `proprioception`, `action`, `reward`, `episode_start`,
        `seed`, and what `act` adds.
    """
    assert env.spec is not None
    assert env.spec.max_episode_steps is not None
    extra: Arrays = {}
    rank, ranks = (Parallel.rank(), Parallel.count()) if shared else (0, 1)
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []

    def watched(obs: Arrays) -> np.ndarray:
        nonlocal extra
        action, extra = act(obs)
        return action

    while samples > 0:
        episodes = min(env.num_envs * ranks, -(-samples // env.spec.max_episode_steps))
        seeds = np.arange(first_seed, first_seed + episodes)[rank::ranks]
        steps: list[Arrays] = []
        with torch.random.fork_rng(devices):
            torch.manual_seed(first_seed + rank)
            for step in play(env, seeds.tolist(), stacker, watched):
                steps.append(
                    {
                        "seed": seeds[step.live],
                        "episode_start": np.full(len(step.live), not steps),
                        "action": step.action,
                        "reward": step.reward,
                        **{FIELDS[key]: value for key, value in step.obs.items()},
                        **{key: value[step.live] for key, value in extra.items()},
                    }
                )
        if shared:
            steps = [step for share in Parallel.exchange(steps) for step in share]
        joined = {key: np.concatenate([step[key] for step in steps]) for key in steps[0]}
        order = np.argsort(joined["seed"], kind="stable")
        ends = episode_ends(joined["episode_start"][order])
        order = order[: ends[min(int(np.searchsorted(ends, samples)), len(ends) - 1)]]
        yield {key: value[order] for key, value in joined.items()}
        samples -= len(order)
        first_seed += episodes


def label(teacher: SquashedGaussian) -> Arrays:
    """Return what a sample keeps of the teacher's policy."""
    return {"mean": teacher.mean.cpu().numpy(), "log_std": teacher.log_std.cpu().numpy()}


def collect_dataset(
    folder: Path,
    env: WorkerVectorEnv,
    teacher: GaussianPolicy,
    samples: int,
    noise: float = TeacherNoiseConfig.teacher_noise,
    correlation: float = TeacherNoiseConfig.noise_correlation,
    meta: dict[str, Any] | None = None,
    quiet: bool = False,
    overwrite: bool = False,
) -> None:
    """Collect the teacher's episodes from seed 2000 up into `folder`, or go on with a collection that was cut off.

    The dataset grows in `folder` + `.partial` and gets its name when it is whole.

    Args:
        folder: the dataset's.
        env: vector environment with frames.
        teacher: drives and labels.
        samples: at least so many, in whole episodes.
        noise: the actions taken have the teacher's standard deviation times this; labels are its policy all the same.
        correlation: of that noise from one step to the next.
        meta: what the data depend on besides: task, teacher, render settings.
        quiet: show no progress.
        overwrite: begin anew.

    Raises:
        BadFile: what was cut off is damaged, or was begun with other settings.
        OSError: the disk is full, or the like; what was collected can be gone on with.
    """
    meta = {
        "format": "dataset",
        "version": DATASET_VERSION,
        "teacher_noise": noise,
        "noise_correlation": correlation,
        "requested_samples": samples,
        "num_envs": env.num_envs,
        **(meta or {}),
    }

    lasting = LastingNoise(noise, correlation)

    @torch.no_grad()
    def act(obs: Arrays) -> tuple[np.ndarray, Arrays]:
        policy = teacher.distribution(teacher.to_tensors(obs))
        return policy.action(lasting.sample(policy)).cpu().numpy(), label(policy)

    partial = folder.with_name(folder.name + ".partial")
    writer = SampleWriter(partial, json.loads(json.dumps(meta)))
    if not overwrite:
        writer.go_on()
    first_seed = DATASET_FIRST_SEED + writer.meta["episodes"]
    disable = quiet or not sys.stderr.isatty()
    with tqdm(total=samples, initial=writer.meta["samples"], unit="sample", desc=folder.name, disable=disable) as bar:
        for part in collect(env, first_seed, samples - writer.meta["samples"], act):
            writer.append(part)
            lasting.state = None  # a round depends on none before it
            bar.update(len(part["seed"]))
    writer.finish()
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


class SampleWriter:
    """Appends samples to one `.npy` file for each field; `meta.json` says how much of them is whole, and its checksums."""

    def __init__(self, folder: Path, meta: dict[str, Any]):
        self.folder = folder
        self.meta = meta | {"complete": False, "samples": 0, "episodes": 0, "crc32": {}}

    def go_on(self) -> None:
        """Go on with what lies in the folder, if anything does.

        Raises:
            BadFile: it is damaged, or has other settings.
        """
        try:
            before = json.loads((self.folder / "meta.json").read_text())
            unlike = differences(
                before, self.meta, self.meta.keys() - {"samples", "episodes", "crc32", "complete", "versions"}
            )
            if unlike:
                raise BadFile(f"{self.folder}: begun with other settings: {unlike}; --overwrite begins anew")
            self.go_back(int(before["samples"]), int(before["episodes"]), dict(before["crc32"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, BadFile):
                raise
            raise BadFile(f"{self.folder / 'meta.json'}: damaged; --overwrite begins anew") from error

    def go_back(self, samples: int, episodes: int, checksums: dict[str, int]) -> None:
        """Forget what came after the first `samples`.

        Raises:
            BadFile: they are not there, or not what was written.
        """
        if samples:
            check_samples(self.folder, read_samples(self.folder, samples, tuple(checksums)), checksums)
        self.meta |= {"samples": samples, "episodes": episodes, "crc32": checksums}

    def append(self, samples: Arrays) -> None:
        """Add whole episodes."""
        count, checksums = self.meta["samples"], self.meta["crc32"]
        if not count:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.meta["crc32"] = {name: crc32(values, checksums.get(name, 0)) for name, values in samples.items()}
        for name, values in samples.items():
            path = self.folder / f"{name}.npy"
            with path.open("r+b" if count else "w+b") as file:
                # NumPy pads a header so that its first axis can grow in place. It comes last: cut before, the old is whole.
                header = _header((count + len(values), *values.shape[1:]), values.dtype)
                file.seek(len(header) + values[:1].nbytes * count)
                file.write(np.ascontiguousarray(values).data)
                file.truncate()
                sync(file)
                file.seek(0)
                file.write(header)
                sync(file)
        self.meta["samples"] += len(samples["seed"])
        self.meta["episodes"] += int(samples["episode_start"].sum())
        self._write_meta()

    def finish(self) -> None:
        """Say that nothing is missing, and what there is."""
        fields = {path.stem: np.load(path, mmap_mode="r") for path in sorted(self.folder.glob("*.npy"))}
        self.meta["complete"] = True
        self.meta["spaces"] = spaces(fields)
        self.meta["episode_starts"] = np.flatnonzero(fields["episode_start"]).tolist()
        self._write_meta()

    def _write_meta(self) -> None:
        write_text(self.folder / "meta.json", json.dumps(self.meta, indent=2) + "\n")


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()
