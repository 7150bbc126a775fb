"""A worker process's share of a world's environments. Nothing here imports PyTorch."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle
import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.registration import load_env_creator

from Common.Errors import BadInput, brief
from Enviroment.My_wrapper import write_frames
from Enviroment.Renderer import Quality, renderers
from Enviroment.Snapshot import restore, simulation, snapshot, time_limit
from Enviroment.Task import Task
from Enviroment.Views import Views
from Enviroment.Workers import SharedArrays

LAST = "last_"  # prefix of the arrays that hold ended episodes' last observations
INFO = "info_"  # prefix of the arrays that hold values of the environments' `info`
_BAD = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC")]


def pack(task: Task, spec_id: str) -> bytes:
    """Return a task, and the environment that is registered as `spec_id`, for a process that has imported neither.

    Raises `BadInput` if something that the task refers to cannot be pickled.
    """
    spec = copy.copy(gym.registry[spec_id])
    spec.vector_entry_point = None  # workers make single environments
    by_value = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    if isinstance(spec.entry_point, str) and spec.entry_point.partition(":")[0] in by_value:
        spec.entry_point = load_env_creator(spec.entry_point)  # type: ignore[assignment]
    try:
        return cloudpickle.dumps((task, spec))
    except Exception as error:  # an object may raise anything when it is pickled
        message = f"task {task.reference or task.name}: cannot be sent to worker processes: {brief(error)}"
        raise BadInput(message) from error


class Simulations:
    """One worker's environments, and the renderers they share, one for each camera.

    It steps plain environments one after the other, so the result does not depend on the number of workers.

    Args:
        packed: the task, from `pack`.
        indices: the numbers of its environments among the world's N, which are their rows in the arrays.
        shared: `action`, `reward`, `terminated`, `truncated`, `unstable`, each observation key, each key after `LAST`, and
            each key of `info` after `INFO`, [N, ...].
        frames, quality: whether to render, and how.
    """

    def __init__(self, packed: bytes, indices: Sequence[int], shared: SharedArrays, frames: bool, quality: Quality):
        task, spec = cloudpickle.loads(packed)
        gym.registry[spec.id] = spec
        self._proprioception, self._info_keys = list(task.proprioception), task.info_keys
        self._arrays = shared.arrays()
        self._envs: dict[int, Any] = {i: task.make() for i in indices}
        self._views_differ = task.views != Views()
        self._original = copy.copy(simulation(self._envs[indices[0]])[0])  # type: ignore[index]
        self._resting: set[int] = set()
        self._queued = False
        self._rendering = True
        self._renderers = renderers(task.seen, quality) if frames else {}
        for renderer in self._renderers.values():  # or fail now
            renderer.rgb(*simulation(self._envs[indices[0]]))  # type: ignore[misc]

    def _write(self, env: Any, i: int, observation: np.ndarray, prefix: str = "") -> None:
        state = self._arrays[prefix + "State"][i]
        state[:] = observation
        self._arrays[prefix + "PartialState"][i] = state[self._proprioception]
        if self._renderers and self._rendering:
            frames = {name: self._arrays[prefix + name][i] for name in self._renderers}
            write_frames(env, self._renderers, frames, self._views_differ)

    def reset(self, seeds: Mapping[int, int | None], queued: bool) -> None:
        """Start a new episode in each environment that has a seed.

        `queued` environments rest when their episode has ended, and are not stepped. Others start the next one at once.
        """
        self._queued = queued
        for i, env in self._envs.items():
            if i in seeds:
                self._resting.discard(i)
                self._write(env, i, env.reset(seed=seeds[i])[0])

    def rest(self) -> None:
        """Step no environment before it is reset."""
        self._resting = set(self._envs)

    def step(self) -> None:
        """Step each environment with its action; start a new episode where one ended."""
        arrays = self._arrays
        for i, env in self._envs.items():
            if i in self._resting:
                continue
            observation, arrays["reward"][i], terminated, truncated, info = env.step(arrays["action"][i])
            arrays["terminated"][i], arrays["truncated"][i] = terminated, truncated
            arrays["unstable"][i] = _was_reset(env)
            for key in self._info_keys:
                arrays[INFO + key][i] = info[key]
            if terminated or truncated:
                self._write(env, i, observation, LAST)
                if self._queued:
                    self._resting.add(i)
                    continue
                observation = env.reset()[0]
            self._write(env, i, observation)

    def set_rendering(self, wanted: bool) -> None:
        """Begin or stop to render."""
        self._rendering = wanted

    def show(self, views: Views) -> None:
        """Draw the views of the episodes that begin from now on from these; the task has to have some."""
        for env in self._envs.values():
            env.show(views)

    def set_elapsed(self, steps: Sequence[int]) -> None:
        """Set how many steps of its time limit each of the N environments has used."""
        for i, env in self._envs.items():
            time_limit(env)._elapsed_steps = steps[i]  # type: ignore[union-attr]

    def state(self) -> list[str]:
        """Return a snapshot of each environment."""
        return [snapshot(env, self._original) for env in self._envs.values()]

    def restore(self, state: Sequence[str]) -> None:
        """Put each environment back where its own of the N snapshots was taken."""
        self._resting, self._queued = set(), False
        for i, env in self._envs.items():
            restore(env, state[i], self._original)

    def close(self) -> None:
        """Free the renderers and the environments."""
        for renderer in self._renderers.values():
            renderer.close()
        for env in self._envs.values():
            env.close()


def _was_reset(env: Any) -> bool:
    """Return whether MuJoCo has reset an environment's physics since its episode began, since it was no longer finite."""
    counts = simulation(env)[1].warning.number  # type: ignore[index]
    return bool(counts[_BAD[0]] or counts[_BAD[1]] or counts[_BAD[2]])
