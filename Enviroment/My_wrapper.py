"""Gymnasium wrappers that turn one environment's state into the observations of students and teachers."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from Enviroment.Renderer import FrameRenderer, Quality, renderers
from Enviroment.Snapshot import simulation
from Enviroment.Task import Task
from Enviroment.Views import Views


def observation_space(task: Task, state_size: int, frames: bool) -> gym.spaces.Dict:
    """Return the space of one environment's dictionary observation (see `DictObservation`, `FrameObservation`)."""
    sizes = {"State": state_size, "PartialState": len(task.proprioception)}
    spaces: dict[str, Any] = {key: gym.spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items()}
    if frames:
        spaces |= {name: gym.spaces.Box(0, 255, camera.shape, np.uint8) for name, camera in task.seen.items()}
    return gym.spaces.Dict(spaces)


def write_frames(
    env: gym.Env, renderers: Mapping[str, FrameRenderer], frames: Mapping[str, np.ndarray], views_differ: bool
) -> None:
    """Write the frame of an environment's current state that each camera delivers into `frames`, by the camera's name.

    It is to be called once after every step and reset of an environment whose `views_differ` (see `Viewed.sense`).
    """
    view = env.get_wrapper_attr("view") if views_differ else None
    for name, renderer in renderers.items():
        renderer.frame(*simulation(env), out=frames[name], view=view)  # type: ignore[misc]
        if view:
            env.get_wrapper_attr("sense")(name, frames[name], renderer.shows_depth)


class DictObservation(gym.ObservationWrapper):
    """Turns the state [S] into a dictionary: `State` float32 [S], and `PartialState` float32 [P], its proprioception."""

    def __init__(self, env: gym.Env, task: Task):
        super().__init__(env)
        self._proprioception = list(task.proprioception)
        self.observation_space = observation_space(task, env.observation_space.shape[0], frames=False)  # type: ignore[index]

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Return the dictionary of a state [S]."""
        state = observation.astype(np.float32)
        return {"State": state, "PartialState": state[self._proprioception]}


class FrameObservation(gym.ObservationWrapper):
    """Adds the newest frame of each camera by its name, uint8 [rows, columns], of `rgb` [3, rows, columns].

    Raises `NoGLBackend` on a machine that cannot render.
    """

    def __init__(self, env: gym.Env, task: Task, quality: Quality = "fast"):
        super().__init__(env)
        self._renderers = renderers(task.seen, quality)
        self._views_differ = task.views != Views()
        state_size = env.observation_space["State"].shape[0]  # type: ignore[index]
        self.observation_space = observation_space(task, state_size, frames=True)

    def observation(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add the frames of the simulation's current state."""
        frames = {name: np.empty(renderer.shape, np.uint8) for name, renderer in self._renderers.items()}
        write_frames(self.env, self._renderers, frames, self._views_differ)
        return observation | frames

    def close(self) -> None:
        """Free the renderers, then the environment."""
        for renderer in self._renderers.values():
            renderer.close()
        super().close()
