"""A `gymnasium.vector.VectorEnv` over worker processes; states and frames travel through shared memory."""

import contextlib
import ctypes
import multiprocessing as mp
import os
import select
import signal
import sys
import traceback
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from Common.Errors import NonFinite, RunError
from Common.Machine import cores
from Enviroment.My_wrapper import observation_space
from Enviroment.Renderer import FrameRenderer, Quality
from Enviroment.Snapshot import restore, snapshot, time_limit
from Enviroment.Tasks import Task

START_TIMEOUT_S = 120.0  # starting a worker imports MuJoCo, which takes a while on a loaded machine
SLOW_START_S = 20.0
SLOW_S, HUNG_S = 5.0, 60.0  # a worker that has not answered for so long is named, and given up


class WorkerError(RunError):
    """An environment worker died, hung or raised; the message says which and why."""


class _Shared:
    """Named arrays in anonymous shared memory: they vanish with the last process that holds them, however it ends."""

    def __init__(self, context, fields: dict[str, tuple[tuple[int, ...], Any]]):
        self._fields = {
            name: (context.RawArray(ctypes.c_uint8, int(np.prod(shape)) * np.dtype(dtype).itemsize), shape, dtype)
            for name, (shape, dtype) in fields.items()
        }

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.frombuffer(raw, dtype).reshape(shape) for name, (raw, shape, dtype) in self._fields.items()}


class _Share:
    """One worker's environments and the one renderer they have in common."""

    def __init__(self, task: Task, indices: Sequence[int], shared: _Shared, frames: bool, quality: Quality):
        self._indices = indices
        self._proprioception = list(task.proprioception)
        self._arrays = shared.arrays()
        self._envs = [gym.make(task.env_id, disable_env_checker=True) for _ in indices]
        self._rendering = True
        self._renderer = (
            FrameRenderer(self._envs[0].unwrapped.model, task.camera, task.frame_size, quality) if frames else None  # type: ignore[attr-defined]
        )

    def _write(self, env: gym.Env, i: int, observation: np.ndarray, final: bool = False) -> None:
        prefix = "final_" if final else ""
        state = self._arrays[prefix + "State"][i]
        state[:] = observation
        self._arrays[prefix + "PartialState"][i] = state[self._proprioception]
        if self._renderer is not None and self._rendering:
            self._renderer.frame(env.unwrapped.data, out=self._arrays[prefix + "Frame"][i])  # type: ignore[attr-defined]

    def reset(self, seeds: Sequence[int | None]) -> None:
        for env, i in zip(self._envs, self._indices):
            self._write(env, i, env.reset(seed=seeds[i])[0])

    def step(self) -> None:
        arrays = self._arrays
        for env, i in zip(self._envs, self._indices):
            observation, arrays["reward"][i], terminated, truncated, _info = env.step(arrays["action"][i])
            arrays["terminated"][i], arrays["truncated"][i] = terminated, truncated
            if terminated or truncated:
                self._write(env, i, observation, final=True)
                observation = env.reset()[0]
            self._write(env, i, observation)

    def set_rendering(self, rendering: bool) -> None:
        self._rendering = rendering

    def stagger(self, elapsed: Sequence[int]) -> None:
        for env, i in zip(self._envs, self._indices):
            time_limit(env)._elapsed_steps = elapsed[i]  # type: ignore[assignment]

    def get_state(self, _: None) -> list[str]:
        return [snapshot(env) for env in self._envs]

    def set_state(self, snapshots: Sequence[str]) -> None:
        for env, i in zip(self._envs, self._indices):
            restore(env, snapshots[i])

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        for env in self._envs:
            env.close()


# What goes through a pipe begins with a byte. A step is that byte alone, there and back: it is most of what is said, and
# packing and unpacking a message takes as long as several steps of an environment.
_STEP, _MESSAGE = b"s", b"m"


def _say(connection: Connection, message: tuple[str, Any] | None) -> None:
    """Send a message, or, without one, that it is about a step."""
    os.write(connection.fileno(), _STEP if message is None else _MESSAGE)
    if message is not None:
        connection.send(message)


def _hear(connection: Connection) -> tuple[str, Any] | None:
    """Receive what `_say` sent."""
    kind = os.read(connection.fileno(), 1)
    if not kind:
        raise EOFError
    return None if kind == _STEP else connection.recv()


def _worker(connection: Connection, *arguments: Any) -> None:
    # A batch system's SIGTERM, like Ctrl-C, may come to all processes of a job: it is the parent's to handle, which still
    # needs its workers to save, and then closes them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    share = None
    try:
        share = _Share(*arguments)
        _say(connection, ("done", None))
        while True:
            message = _hear(connection)
            if message is None:
                share.step()
                _say(connection, None)
            else:
                command, argument = message
                _say(connection, ("done", getattr(share, command)(argument)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        if share is not None:
            share.close()
    except Exception:
        _say(connection, ("error", traceback.format_exc()))


def _end(workers: Sequence[Any], connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.close()  # a worker that waits for a command leaves; one that works leaves after it
    for worker in workers:
        worker.join(5)
        if worker.is_alive():
            worker.kill()
            worker.join()


class WorkerVectorEnv(gym.vector.VectorEnv):
    """`num_envs` environments shared out over worker processes, each with one renderer for its share.

    Every worker steps plain `gymnasium.make(task.env_id)` environments one after the other, so what comes out does not
    depend on how many workers there are. Autoreset is SAME_STEP: where `terminated | truncated`, the observation is the
    new episode's first, and row i of `info["final_obs"]` (valid where `info["_final_obs"]`) the old one's last.

    Made by `Enviroment.Utils.make_vector_env`, which describes the arguments.
    """

    single_observation_space: gym.spaces.Dict  # type: ignore[assignment]
    single_action_space: gym.spaces.Box  # type: ignore[assignment]

    def __init__(
        self, task: Task, num_envs: int, num_workers: int, seed: int | None, frames: bool, render_quality: Quality
    ):
        self._closed = True  # until there is something to close
        if num_envs < 1 or num_workers < 0:
            raise ValueError(
                f"num_envs={num_envs}, num_workers={num_workers}: at least 1 environment, workers 0 or more"
            )
        self._workers: list[Any] = []
        self._connections: list[Connection] = []
        self._pollers: list[Any] = []  # of `select.poll`, one for each connection
        self._seed = seed
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}

        plain = gym.make(task.env_id, disable_env_checker=True)
        assert plain.observation_space.shape is not None
        self.single_observation_space = observation_space(task, plain.observation_space.shape[0], frames)
        assert isinstance(plain.action_space, gym.spaces.Box)
        self.single_action_space = plain.action_space
        self.spec = plain.spec
        plain.close()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        context = mp.get_context("spawn")
        observations = {
            prefix + name: ((num_envs, *space.shape), space.dtype)  # type: ignore[misc]
            for prefix in ("", "final_")
            for name, space in self.single_observation_space.items()
        }
        shared = _Shared(
            context,
            {
                **observations,
                "action": (self.action_space.shape, np.float32),  # type: ignore[dict-item]
                "reward": ((num_envs,), np.float64),
                "terminated": ((num_envs,), np.bool_),
                "truncated": ((num_envs,), np.bool_),
            },
        )
        self._arrays = shared.arrays()
        count = min(num_envs, num_workers or cores())
        self._shares = [share.tolist() for share in np.array_split(np.arange(num_envs), count)]
        self._closed, self._starting = False, True  # the workers come up while the caller does something else
        # Before `multiprocessing` ends what is still there by SIGTERM at exit, which workers ignore, and waits for it.
        self._end = weakref.finalize(self, _end, self._workers, self._connections)
        try:
            for share in self._shares:
                ours, theirs = context.Pipe()
                worker = context.Process(
                    target=_worker, args=(theirs, task, share, shared, frames, render_quality), daemon=True
                )
                worker.start()
                theirs.close()  # so that a worker's death ends our end of the pipe
                self._workers.append(worker)
                self._connections.append(ours)
                self._pollers.append(select.poll())
                self._pollers[-1].register(ours, select.POLLIN)
        except BaseException:
            self.close()
            raise

    @property
    def num_workers(self) -> int:
        """How many processes step the environments."""
        return len(self._shares)

    def _death(self, number: int) -> WorkerError:
        self._workers[number].join(5)
        return WorkerError(f"environment worker {number} died (exit code {self._workers[number].exitcode})")

    def _wait(self, number: int, poller: Any) -> None:
        """Wait for a worker's answer; name one that is slow, give up one that hangs."""
        slow, limit = (SLOW_START_S, START_TIMEOUT_S) if self._starting else (SLOW_S, HUNG_S)
        if poller.poll(1000 * slow):
            return
        print(f"environment worker {number} has not answered for {slow:g} s", file=sys.stderr, flush=True)
        if not poller.poll(1000 * (limit - slow)):
            raise WorkerError(f"environment worker {number} hangs: no answer for {limit:g} s")

    def _gather(self) -> list[Any]:
        results = []
        for number, (connection, poller) in enumerate(zip(self._connections, self._pollers)):
            try:
                self._wait(number, poller)
                status, result = _hear(connection) or ("done", None)
            except (EOFError, OSError):
                raise self._death(number) from None
            if status == "error":
                raise WorkerError(f"environment worker {number} failed:", str(result))
            results.append(result)
        return results

    def _call(self, command: str | None, argument: Any = None) -> list[Any]:
        """Have every worker do what `command` says, or, without one, step; returns what each answers."""
        if self._closed:
            raise gym.error.ClosedEnvironmentError(f"{command or 'step'}() after close()")
        try:
            if self._starting:
                self._gather()
                self._starting = False
            for number, connection in enumerate(self._connections):
                try:
                    _say(connection, None if command is None else (command, argument))
                except (BrokenPipeError, ConnectionResetError):
                    raise self._death(number) from None
            return self._gather()
        except BaseException:
            self.close()
            raise

    def _observation(self, prefix: str = "") -> dict[str, np.ndarray]:
        return {name: self._arrays[prefix + name].copy() for name in self.single_observation_space.spaces}

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start a new episode everywhere; an integer seeds environment i with `seed + i`, a sequence one by one."""
        if seed is None:
            seed, self._seed = self._seed, None
        if seed is None or isinstance(seed, int | np.integer):
            seed = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds for {self.num_envs} environments: give one for each")
        self._call("reset", list(seed))
        return self._observation(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment with `actions` float [N, A], in the units of the action space.

        Raises:
            NonFinite: an action, a reward or a state is infinite or not a number.
            WorkerError: a worker died, hangs, or failed.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions have shape {actions.shape}: {self.action_space.shape} is needed")
        self._arrays["action"][...] = actions
        self._check_finite("action")
        self._call(None)
        self._check_finite("reward", "State", "final_State")
        terminated, truncated = self._arrays["terminated"].copy(), self._arrays["truncated"].copy()
        done = terminated | truncated
        info = {"final_obs": self._observation("final_"), "_final_obs": done} if done.any() else {}
        return self._observation(), self._arrays["reward"].copy(), terminated, truncated, info

    def _check_finite(self, *names: str) -> None:
        for name in names:
            values = self._arrays[name].reshape(self.num_envs, -1)
            if not np.isfinite(values).all():
                n = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
                raise NonFinite(f"{name.removeprefix('final_')} of environment {n} is not finite")

    @contextlib.contextmanager
    def rendering(self, wanted: bool) -> Iterator[None]:
        """Without frames `wanted`, render none in here: what `Frame` then holds means nothing."""
        self._call("set_rendering", wanted)
        try:
            yield
        finally:
            if not self._closed:
                self._call("set_rendering", True)

    def stagger(self, first: int = 0, total: int | None = None) -> None:
        """Let the running episodes end evenly spread over the time limit, so that every rollout meets every phase.

        These environments are number `first` and so on of `total`, which are all there are unless given.
        """
        assert self.spec is not None
        assert self.spec.max_episode_steps is not None
        limit, total = self.spec.max_episode_steps, total or self.num_envs
        self._call("stagger", [(first + i) * limit // total for i in range(self.num_envs)])

    def get_state(self) -> list[str]:
        """Return one snapshot for each environment, from which `set_state` goes on bit for bit."""
        return [snapshot for share in self._call("get_state") for snapshot in share]

    def set_state(self, snapshots: Sequence[str]) -> None:
        """Put every environment where `get_state` found it; the next call is `step`, the observation was the caller's.

        Raises:
            ValueError: they are not as many.
        """
        if len(snapshots) != self.num_envs:
            raise ValueError(f"{len(snapshots)} snapshots for {self.num_envs} environments")
        self._call("set_state", list(snapshots))

    def close(self, **kwargs: Any) -> None:
        """Stop the workers, whatever state they are in; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._end()
