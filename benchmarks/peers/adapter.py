"""What every peer is given: a task as our students see it, our teacher's data, and the record of its training.

A peer's script has a function `train` of a `Job`, and `main` runs it. Lines that end in `# measured` serve the record alone, and
are no lines of user code.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common  # noqa: F401, isort: skip  # this repository, and how threads wait, before PyTorch is loaded
import gymnasium as gym
import numpy as np
import torch
from common import Arrays, Stacked, as_channels

from Algorithm.Dataset import episode_ages, field, open_dataset
from Algorithm.Policies import open_teacher
from Algorithm.seeds import OD_TEST_SEEDS, training_seed
from Algorithm.Test_model import StudentTest
from Enviroment.Tasks import Task, find_task
from Enviroment.Utils import make_env, make_world
from Models.Memory import FrameStack, FrameStacks, Memory


class PeerPolicy:
    """A peer's function of observations [N, ...] as a `Policy` for our evaluation; its actions are clipped to the bounds."""

    def __init__(self, task: Task, bounds: gym.spaces.Box, act: Callable[[Arrays], np.ndarray]):
        self.inputs = self.images = tuple(task.seen)
        self._task, self._bounds, self._act = task, bounds, act

    def memory(self, num_envs: int) -> Memory:
        """Return the frame stacks of our students."""
        return FrameStacks(FrameStack(self._task.stack, self._task.stack_stride), self.images, num_envs)

    def act(self, obs: Any, deterministic: bool = True) -> np.ndarray:
        """Return the peer's actions, float32 [N, A]."""
        arrays = {key: value.numpy() for key, value in obs.items()}
        actions = self._act(arrays | {key: as_channels(arrays[key], 1) for key in self.images})
        return actions.clip(self._bounds.low, self._bounds.high)


@dataclass(frozen=True)
class Checkpoint:
    """A row of a peer's file.

    Attributes:
        collected: environment steps whose observations it was given, those of the teacher's data among them.
        seen: samples that went into gradients, each as often as it did.
        seconds: of training and of collecting its data, without evaluation.
        normalized_return, success: on the OD seeds; no success where the task knows none.
    """

    collected: int
    seen: int
    updates: int
    seconds: float
    normalized_return: float
    success: float | None


class Finished(Exception):
    """The time of a peer is up."""


class Job:
    """A peer's training: a task, a seed, its data and its minutes, and the file of its checkpoints.

    `act` has to be set to the peer's deterministic policy, a function of observations [N, ...] as `Stacked` has them, and
    `record` to be called as it trains.
    """

    act: Callable[[Arrays], np.ndarray]

    def __init__(self, arguments: argparse.Namespace):
        self.given, self.seed = arguments, training_seed("training", arguments.seed)
        self.task = find_task(arguments.task)
        self.teacher = open_teacher(None, self.task)
        self._world = make_world(self.task, arguments.episodes)
        seeds = range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + arguments.episodes)
        self._test = StudentTest(self._world, self.task, self.teacher, {"OD": seeds})
        self._due, self._marked = 0.0, False
        self._started = time.perf_counter() - arguments.data_seconds

    def make_env(self, state: bool = False) -> Any:
        """Make one environment, with the teacher's `State` if that is wanted."""
        return Stacked(make_env(self.task), self.task, state)

    def demonstrations(self, share: float = 1) -> tuple[Arrays, np.ndarray, np.ndarray]:
        """Return a share of the dataset: observations [N, ...] with `State`, the teacher's mean actions float32 [N, A],
        and bool [N] where episodes begin."""
        data = open_dataset(self.given.data)
        fields = data.prefix(int(share * self.given.frames)).fields
        starts = fields["episode_start"]
        stack = FrameStack(self.task.stack, self.task.stack_stride)
        rows = (torch.arange(len(starts))[:, None] - stack.steps_back(episode_ages(starts))).numpy()
        obs = {key: np.asarray(fields[field(key)]) for key in ("State", "PartialState") if field(key) in fields}
        obs |= {camera: as_channels(fields[field(camera)][rows], 1) for camera in self.task.seen}
        mean = torch.tensor(fields["mean"])
        return obs, self.teacher.gaussian(mean, mean).action(mean).numpy(), starts

    def record(self, collected: int, seen: int, updates: int) -> None:
        """Write a checkpoint where one is due: every `every` seconds, at the sample mark, and at the end.

        Raises `Finished` at the end. The arguments are a `Checkpoint`'s.
        """
        now = time.perf_counter()
        seconds = now - self._started
        ended, marked = seconds >= 60 * self.given.minutes, seen >= self.given.samples
        if seconds >= self._due or ended or marked > self._marked:
            found = self._test(PeerPolicy(self.task, self._world.action_space, self.act))  # type: ignore[arg-type]
            scores = [found.get(f"test/OD/{name}") for name in ("normalized_return", "success")]
            self.write(asdict(Checkpoint(collected, seen, updates, seconds, *scores)))  # type: ignore[arg-type]
            self._due, self._marked = seconds + self.given.every, marked
            self._started += time.perf_counter() - now
        if ended:
            raise Finished

    def write(self, row: dict[str, Any]) -> None:
        """Append a row to the file."""
        with self.given.output.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Close the environments of the evaluation."""
        self._world.close()


def main(train: Callable[[Job], object]) -> None:
    """Train a peer, called by `run.py`."""
    parser = argparse.ArgumentParser()
    for name, kind in {"task": str, "seed": int, "frames": int, "samples": int, "episodes": int}.items():
        parser.add_argument(f"--{name}", type=kind)
    for name in ("minutes", "every", "data_seconds"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("data", "output", "scratch"):
        parser.add_argument(f"--{name}", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    with contextlib.closing(Job(arguments)) as job, contextlib.suppress(Finished):
        train(job)
