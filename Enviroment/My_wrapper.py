"""Gymnasium wrappers that turn one environment's state into the observations of students and teachers."""

from typing import Any

import gymnasium as gym
import numpy as np

from Enviroment.Renderer import FrameRenderer, Quality
from Enviroment.Snapshot import simulation
from Enviroment.Task import Task
from Enviroment.Views import Views


def observation_space(task: Task, state_size: int, frames: bool) -> gym.spaces.Dict:
    """Return the space of one environment's dictionary observation (see `DictObservation`, `FrameObservation`)."""
    sizes = {"State": state_size, "PartialState": len(task.proprioception)}
    spaces: dict[str, Any] = {key: gym.spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items()}
    if frames:
        spaces["Frame"] = gym.spaces.Box(0, 255, task.frame_size, np.uint8)
    return gym.spaces.Dict(spaces)


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
    """Adds `Frame`, uint8 [rows, columns], the newest frame only. Raises `NoGLBackend` on a machine that cannot render."""

    def __init__(self, env: gym.Env, task: Task, quality: Quality = "fast"):
        super().__init__(env)
        self._renderer = FrameRenderer(task.camera, task.frame_size, quality)
        self._views_differ = task.views != Views()
        state_size = env.observation_space["State"].shape[0]  # type: ignore[index]
        self.observation_space = observation_space(task, state_size, frames=True)

    def observation(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add the frame of the simulation's current state."""
        view = self.get_wrapper_attr("view") if self._views_differ else None
        frame = self._renderer.frame(*simulation(self.env), view=view)  # type: ignore[misc]
        if view:
            self.get_wrapper_attr("sense")("Frame", frame)
        return {**observation, "Frame": frame}

    def close(self) -> None:
        """Free the renderer, then the environment."""
        self._renderer.close()
        super().close()
