"""What the benchmarks share: candidates measured in turn, each in a process of its own, where their time goes, what others' students
see, our student that they train, and the machine they ran on."""

import functools
import multiprocessing as mp
import os
import platform
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed
import Common  # noqa: F401, isort: skip  # settles how threads wait before PyTorch is loaded
import gymnasium as gym
import numpy as np
import torch

from Common.Machine import cores, keep_freed_memory, resolve_precision
from Enviroment.My_wrapper import observation_space
from Enviroment.Tasks import Task
from Enviroment.Views import VIEWS
from Models.Base_Model import ActorCritic
from Models.Memory import FrameStack
from Models.Model_Pusher import get_Teacher_model, make_student

Arrays = dict[str, np.ndarray]


def as_channels(stack: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return a stack of frames, [..., stack, (3,) rows, columns] from `axis`, with all its frames as channels of one image."""
    return stack.reshape(*stack.shape[:axis], -1, *stack.shape[-2:])


class Stacked(gym.Wrapper):
    """An environment of `make_env` as a student sees it: `PartialState`, and the frames of each camera.

    These are uint8 [stack, rows, columns], of `rgb` [stack * 3, rows, columns], oldest first.

    Args:
        state: whether the observation has the teacher's `State` as well.
    """

    def __init__(self, env: gym.Env, task: Task, state: bool = False):
        super().__init__(env)
        assert isinstance(env.observation_space, gym.spaces.Dict)
        self._vectors = ["State"] * state + ["PartialState"] * bool(task.proprioception)
        self._stride, length = task.stack_stride, FrameStack(task.stack, task.stack_stride).history + 1
        self._frames: dict[str, deque[np.ndarray]] = {camera: deque(maxlen=length) for camera in task.seen}
        spaces = {key: env.observation_space[key] for key in self._vectors}
        for name, camera in task.seen.items():
            shape = as_channels(np.empty((task.stack, *camera.shape), np.uint8)).shape
            spaces[name] = gym.spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = gym.spaces.Dict(spaces)

    def reset(self, **named: Any) -> Any:
        """Fill the stacks with the first frames."""
        obs, info = self.env.reset(**named)
        for camera, frames in self._frames.items():
            frames += [obs[camera]] * (frames.maxlen or 0)
        return self._seen(obs), info

    def step(self, action: np.ndarray) -> Any:
        """Add the newest frames."""
        obs, *rest = self.env.step(action)
        for camera, frames in self._frames.items():
            frames.append(obs[camera])
        return self._seen(obs), *rest

    def _seen(self, obs: Arrays) -> Arrays:
        stacks = {name: as_channels(np.stack([*frames][:: self._stride])) for name, frames in self._frames.items()}
        return {key: obs[key] for key in self._vectors} | stacks


class Apart:
    """A candidate in a process of its own, until the context ends: calling it makes one call there.

    Args:
        build: called there with an `ExitStack`, closed at the end, and `arguments`; returns what is measured.
        stock: the process has PyTorch's own settings of threads and the C library's of memory, as a script of its own would.
    """

    def __init__(self, build: Callable[..., Callable[..., Any]], *arguments: Any, stock: bool = False):
        context = mp.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments, stock))
        with patch.dict(os.environ, {"GOMP_SPINCOUNT": "300000"} if stock else {}):  # GNU OpenMP's own
            self._process.start()
        theirs.close()

    def __call__(self, *arguments: Any) -> Any:
        """Make one call; returns its result."""
        self._connection.send(arguments)
        return self._connection.recv()

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Any, build: Callable[..., Callable[..., Any]], arguments: Sequence[Any], stock: bool) -> None:
    if not stock:
        keep_freed_memory()
    with ExitStack() as open_things:
        call = build(open_things, *arguments)
        while True:
            try:
                arguments = connection.recv()
            except EOFError:
                return
            connection.send(call(*arguments))


def in_turn(candidates: Mapping[str, Callable[[], Any]], repeats: int, calls: int = 1) -> dict[str, float]:
    """Return the median seconds of a call of each candidate, measured one after the other, `repeats` times over.

    Taking turns lets a machine's noise fall on all alike. Every candidate is called once beforehand.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    for _ in range(repeats):
        for name, call in candidates.items():
            time.sleep(0.05)  # until the threads of the one before have come to rest
            started = time.perf_counter()
            for _ in range(calls):
                call()
            seconds[name].append((time.perf_counter() - started) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Profile:
    """Seconds spent in some methods, until `close`; time within another part counts there alone.

    Args:
        parts: the class and name of each method, and the name of its part.
        wait: is called before each reading of the clock, such as to wait for a GPU.
    """

    def __init__(self, parts: Sequence[tuple[Any, str, str]], wait: Callable[[], object] = lambda: None):
        self.seconds: dict[str, float] = {}
        self._wait, self._inner = wait, [0.0]
        self._before = [(owner, name, getattr(owner, name)) for owner, name, _ in parts]
        for (owner, name, part), (*_, function) in zip(parts, self._before):
            setattr(owner, name, self._timed(function, part))

    def close(self) -> None:
        """Leave the methods as they were."""
        for owner, name, function in self._before:
            setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._wait()
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self._wait()
                seconds = time.perf_counter() - started
                own = seconds - self._inner.pop()
                self._inner[-1] += seconds
                self.seconds[part] = self.seconds.get(part, 0.0) + own

        return timed


def untrained_student(task: Task, mode: str, device: torch.device) -> ActorCritic:
    """Return a student on a device, in the precision it trains in there; it subtracts the background where no views differ."""
    with closing(task.make()) as env:
        state, actions = env.observation_space.shape, env.action_space
    assert state is not None
    assert isinstance(actions, gym.spaces.Box)
    space = observation_space(task, state[0], frames=mode != "State")
    statistics = get_Teacher_model().statistics
    student = make_student(
        mode,
        space,
        actions,
        task.proprioception,
        statistics,
        task.stack,
        stride=task.stack_stride,
        background=task.views == VIEWS["none"],
    ).to(device)
    student.precision = resolve_precision("auto", device)
    return student


def machine() -> dict[str, Any]:
    """Describe the processor, and the versions that matter."""
    import mujoco

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "mujoco": mujoco.__version__,
    }
