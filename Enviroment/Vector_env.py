"""`WorkerWorld`: a world over worker processes and shared memory; `WorkerVectorEnv`: the same with Gymnasium's API."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import batch_space

from Common.Errors import NonFinite
from Common.Machine import cores
from Enviroment.My_wrapper import observation_space
from Enviroment.Renderer import Quality
from Enviroment.Simulations import INFO, LAST, Simulations, pack
from Enviroment.Snapshot import time_limit
from Enviroment.Task import Task
from Enviroment.Views import Views
from Enviroment.Workers import SharedArrays, Workers
from Enviroment.World import Step

Arrays = dict[str, np.ndarray]


class WorkerWorld:
    """A `World` whose environments are shared out over worker processes, each with the renderers for its share.

    Observations are `State` float32 [N, S], `PartialState` float32 [N, P] and, with frames, those of each camera that the
    task is seen by, by its name, uint8 [N, rows, columns] or [N, 3, rows, columns]. They are views of the memory that the
    workers write, without a copy. Numbers do not depend on how many workers there are. `World` describes the methods,
    `make_vector_env` the arguments and errors.
    """

    def __init__(self, task: Task, num_envs: int, num_workers: int, frames: bool, render_quality: Quality):
        if num_envs < 1 or num_workers < 0:
            raise ValueError(f"{num_envs=}, {num_workers=}: at least 1 environment, workers 0 or more")
        task.check()
        with contextlib.closing(task.make()) as env:
            task.check_environment(env, frames)
            made: Any = env
            self.spec, self.max_episode_steps = made.spec, time_limit(env)._max_episode_steps  # type: ignore[union-attr]
            self.spaces = observation_space(task, made.observation_space.shape[0], frames)
            self.action_space = made.action_space
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        shared = SharedArrays(self._fields(task.info_keys))
        self.arrays = shared.arrays()
        tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        self._obs = {key: tensors[key] for key in self.spaces}
        self._last_obs = {key: tensors[LAST + key] for key in self.spaces}
        self._outcome = tensors["reward"], tensors["terminated"], tensors["truncated"]
        self._info = {key: tensors[INFO + key] for key in task.info_keys}
        self._queue: deque[int] | None = None
        packed = pack(task, self.spec.id)
        parts = np.array_split(np.arange(num_envs), min(num_envs, num_workers or cores()))
        arguments = [(packed, part.tolist(), shared, frames, render_quality) for part in parts]
        self.workers = Workers(Simulations, arguments, "environment worker")

    def _fields(self, info_keys: Sequence[str]) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return shape and dtype of every shared array."""
        fields: dict[str, tuple[Any, Any]] = {
            prefix + key: (space.shape, space.dtype) for prefix in ("", LAST) for key, space in self.spaces.items()
        }
        fields |= {"action": (self.action_space.shape, np.float32), "reward": ((), np.float64)}
        fields |= {name: ((), np.bool_) for name in ("terminated", "truncated", "unstable")}
        fields |= {INFO + key: ((), np.float64) for key in info_keys}
        return {name: ((self.num_envs, *shape), dtype) for name, (shape, dtype) in fields.items()}

    def reset(self, seeds: Sequence[int | None]) -> dict[str, torch.Tensor]:
        """Start endless episodes in every environment."""
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments: give one for each")
        self._queue = None
        self._begin({i: None if seed is None else int(seed) for i, seed in enumerate(seeds)})
        return dict(self._obs)

    def start(self, seeds: Sequence[int]) -> dict[str, torch.Tensor]:
        """Start one episode for each seed."""
        self._queue = deque(map(int, seeds))
        self._call("rest")
        self._take(range(self.num_envs))
        return dict(self._obs)

    def _take(self, environments: Iterable[int]) -> None:
        """Start the queue's next episodes in some environments."""
        assert self._queue is not None
        if self._queue:
            self._begin({i: self._queue.popleft() for i in environments if self._queue})

    def _begin(self, seeds: dict[int, int | None]) -> None:
        self._call("reset", seeds, self._queue is not None)

    def step(self, actions: torch.Tensor) -> Step:
        """Step every environment; raises `WorkerError` as well, for a worker that died, hangs, or raised."""
        self.advance(actions.detach().numpy())
        return Step(dict(self._obs), *self._outcome, dict(self._last_obs), dict(self._info))

    def advance(self, actions: np.ndarray) -> None:
        """Step every environment; the result is in `arrays`."""
        if actions.shape != self.arrays["action"].shape:
            raise ValueError(f"actions have shape {actions.shape}: {self.arrays['action'].shape} is needed")
        self._check_open("step")
        self.arrays["action"][...] = actions
        self._check_finite("action")
        if self._queue is not None:  # those that rest write nothing
            for name in ("reward", "terminated", "truncated"):
                self.arrays[name][...] = 0
        self.workers.step()
        if self.arrays["unstable"].any():
            n = int(self.arrays["unstable"].argmax())
            raise NonFinite(f"the physics of environment {n} became unstable, and MuJoCo reset them in mid-episode")
        self._check_finite("reward", "State", LAST + "State")
        if self._queue is not None:
            self._take(np.flatnonzero(self.arrays["terminated"] | self.arrays["truncated"]).tolist())

    def state(self) -> list[str]:
        """Return one snapshot for each environment."""
        return [snapshot for share in self._call("state") for snapshot in share]

    def restore(self, state: Sequence[str]) -> None:
        """Put every environment back where `state` found it."""
        if len(state) != self.num_envs:
            raise ValueError(f"{len(state)} snapshots for {self.num_envs} environments: give one for each")
        self._queue = None
        self._call("restore", list(state))

    def stagger(self, first: int = 0, total: int | None = None) -> None:
        """Spread the ends of the running episodes evenly over the time limit."""
        limit, total = self.max_episode_steps, total or self.num_envs
        self._call("set_elapsed", [(first + i) * limit // total for i in range(self.num_envs)])

    def show(self, views: Views) -> None:
        """Draw the views of the episodes that begin from now on from these; the world's task has to have some."""
        self._call("show", views)

    @contextlib.contextmanager
    def rendering(self, wanted: bool) -> Iterator[None]:
        """Render no frames in here unless they are `wanted`."""
        self._call("set_rendering", wanted)
        try:
            yield
        finally:
            if not self.workers.closed:
                self._call("set_rendering", True)

    def close(self) -> None:
        """Stop the workers."""
        self.workers.close()

    def _call(self, command: str, *arguments: Any) -> list[Any]:
        self._check_open(command)
        return self.workers.call(command, *arguments)

    def _check_open(self, command: str) -> None:
        if self.workers.closed:
            raise gym.error.ClosedEnvironmentError(f"{command}() after close()")

    def _check_finite(self, *names: str) -> None:
        for name in names:
            values = self.arrays[name].reshape(self.num_envs, -1)
            if not np.isfinite(values).all():
                n = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
                raise NonFinite(f"{name.removeprefix(LAST)} of environment {n} is not finite")


class WorkerVectorEnv(gym.vector.VectorEnv):
    """A `WorkerWorld` as a `gymnasium.vector.VectorEnv`, whose arrays are copies.

    Autoreset is SAME_STEP: where `terminated | truncated`, the observation is the new episode's first, and row i of
    `info["final_obs"]` (valid where `info["_final_obs"]`) is the old episode's last. The world is closed with this; `seed`
    is that of the first `reset()`.
    """

    single_observation_space: gym.spaces.Dict  # type: ignore[assignment]
    single_action_space: gym.spaces.Box  # type: ignore[assignment]

    def __init__(self, world: WorkerWorld, seed: int | None = None):
        self.world = world
        self.num_envs = world.num_envs
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
        self.spec = world.spec
        self.single_observation_space, self.single_action_space = world.spaces, world.action_space
        self.observation_space = batch_space(world.spaces, world.num_envs)
        self.action_space = batch_space(world.action_space, world.num_envs)
        self._seed = seed

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Start a new episode in every environment; returns observations [N, ...] and an empty `info`.

        An integer seeds environment i with `seed + i`, a sequence of N seeds them one by one. `options` are ignored.
        """
        if seed is None:
            seed, self._seed = self._seed, None
        if seed is None or isinstance(seed, int | np.integer):
            seed = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        self.world.reset(seed)
        return self._copies(), {}

    def step(self, actions: np.ndarray) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment with `actions` float [N, A]; raises as `WorkerWorld.step` does."""
        self.world.advance(np.asarray(actions))
        reward, terminated, truncated = (self.world.arrays[key].copy() for key in ("reward", "terminated", "truncated"))
        done = terminated | truncated
        info = {"final_obs": self._copies(LAST), "_final_obs": done} if done.any() else {}
        return self._copies(), reward, terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """Close the world."""
        self.world.close()

    def _copies(self, prefix: str = "") -> Arrays:
        return {key: self.world.arrays[prefix + key].copy() for key in self.single_observation_space}
