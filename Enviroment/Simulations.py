"""A worker process's share of a world's environments. Nothing here imports PyTorch."""

import copy
from collections.abc import Sequence
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from Common.Errors import BadInput, brief
from Enviroment.Renderer import FrameRenderer, Quality
from Enviroment.Snapshot import restore, snapshot, time_limit
from Enviroment.Tasks import Task
from Enviroment.Workers import SharedArrays

LAST = "last_"  # prefix of the arrays that hold ended episodes' last observations


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
    """One worker's environments, and the renderer they share.

    It steps plain environments one after the other, so the result does not depend on the number of workers.

    Args:
        packed: the task, from `pack`.
        indices: the numbers of its environments among the world's N, which are their rows in the arrays.
        shared: `action`, `reward`, `terminated`, `truncated`, each observation key, and each key after `LAST`, [N, ...].
        frames, quality: whether to render, and how.
    """

    def __init__(self, packed: bytes, indices: Sequence[int], shared: SharedArrays, frames: bool, quality: Quality):
        task, spec = cloudpickle.loads(packed)
        gym.registry[spec.id] = spec
        self._proprioception = list(task.proprioception)
        self._arrays = shared.arrays()
        self._envs: dict[int, Any] = {i: task.make() for i in indices}
        self._rendering = True
        self._renderer: FrameRenderer | None = None
        if frames:
            self._renderer = FrameRenderer(
                self._envs[indices[0]].unwrapped.model, task.camera, task.frame_size, quality
            )

    def _write(self, env: Any, i: int, observation: np.ndarray, prefix: str = "") -> None:
        state = self._arrays[prefix + "State"][i]
        state[:] = observation
        self._arrays[prefix + "PartialState"][i] = state[self._proprioception]
        if self._renderer is not None and self._rendering:
            self._renderer.frame(env.unwrapped.data, out=self._arrays[prefix + "Frame"][i])

    def reset(self, seeds: Sequence[int | None]) -> None:
        """Start a new episode in each environment, with its own of the N seeds."""
        for i, env in self._envs.items():
            self._write(env, i, env.reset(seed=seeds[i])[0])

    def step(self) -> None:
        """Step each environment with its action; start a new episode where one ended."""
        arrays = self._arrays
        for i, env in self._envs.items():
            observation, arrays["reward"][i], terminated, truncated, _info = env.step(arrays["action"][i])
            arrays["terminated"][i], arrays["truncated"][i] = terminated, truncated
            if terminated or truncated:
                self._write(env, i, observation, LAST)
                observation = env.reset()[0]
            self._write(env, i, observation)

    def set_rendering(self, wanted: bool) -> None:
        """Begin or stop to render."""
        self._rendering = wanted

    def set_elapsed(self, steps: Sequence[int]) -> None:
        """Set how many steps of its time limit each of the N environments has used."""
        for i, env in self._envs.items():
            time_limit(env)._elapsed_steps = steps[i]  # type: ignore[assignment]

    def state(self) -> list[str]:
        """Return a snapshot of each environment."""
        return [snapshot(env) for env in self._envs.values()]

    def restore(self, state: Sequence[str]) -> None:
        """Put each environment back where its own of the N snapshots was taken."""
        for i, env in self._envs.items():
            restore(env, state[i])

    def close(self) -> None:
        """Free the renderer and the environments."""
        if self._renderer is not None:
            self._renderer.close()
        for env in self._envs.values():
            env.close()
