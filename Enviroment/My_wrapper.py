"""Gymnasium wrappers that turn one environment's state into the observations of students and teachers."""

import gymnasium as gym
import numpy as np

from Enviroment.Renderer import FrameRenderer, Quality
from Enviroment.Tasks import Task


def observation_space(task: Task, state_size: int, frames: bool) -> gym.spaces.Dict:
    """Return the space of one environment's dictionary observation (see `DictObservation`, `FrameObservation`)."""
    spaces: dict[str, gym.Space] = {
        "State": gym.spaces.Box(-np.inf, np.inf, (state_size,), np.float32),
        "PartialState": gym.spaces.Box(-np.inf, np.inf, (len(task.proprioception),), np.float32),
    }
    if frames:
        spaces["Frame"] = gym.spaces.Box(0, 255, task.frame_size, np.uint8)
    return gym.spaces.Dict(spaces)


class DictObservation(gym.ObservationWrapper):
    """Turns the state [S] into a dictionary: `State` float32 [S], and `PartialState` float32 [P], its proprioception."""

    def __init__(self, env: gym.Env, task: Task):
        super().__init__(env)
        self._proprioception = list(task.proprioception)
        shape = env.observation_space.shape
        assert shape is not None
        self.observation_space = observation_space(task, shape[0], frames=False)

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Return the dictionary of a state [S]."""
        state = observation.astype(np.float32)
        return {"State": state, "PartialState": state[self._proprioception]}


class FrameObservation(gym.ObservationWrapper):
    """Adds `Frame`, uint8 [rows, columns], the newest frame only; `Models.Utils` makes stacks.

    Raises:
        NoGLBackend: this machine has no working OpenGL.
    """

    def __init__(self, env: gym.Env, task: Task, quality: Quality = "fast"):
        super().__init__(env)
        self._renderer = FrameRenderer(env.unwrapped.model, task.camera, task.frame_size, quality)  # type: ignore[attr-defined]
        assert isinstance(env.observation_space, gym.spaces.Dict)
        state = env.observation_space["State"].shape
        assert state is not None
        self.observation_space = observation_space(task, state[0], frames=True)

    def observation(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add the frame of the simulation's current state."""
        return {**observation, "Frame": self._renderer.frame(self.env.unwrapped.data)}  # type: ignore[attr-defined]

    def close(self) -> None:
        """Free the renderer, then the environment."""
        self._renderer.close()
        super().close()
