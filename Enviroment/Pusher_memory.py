"""Importing this registers `PusherMemory-v0` with Gymnasium: a student has to remember what it saw at the beginning."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv

_OPACITY = 3  # the column of a geom's colour


class PusherMemoryEnv(PusherEnv):
    """Pusher, whose goal lies elsewhere in each episode, and is drawn for the first steps alone.

    Where the goal is, the state says all the time. How many steps there were is told by the simulation's clock, so that a
    snapshot needs to hold nothing else.

    Args:
        shown: the observation after so many steps is the first without the goal.
        spread: how far the goal lies at most from Pusher's own along x and y, in m.
        keywords: of Pusher.
    """

    def __init__(self, shown: int = 10, spread: tuple[float, float] = (0.15, 0.1), **keywords: Any):
        super().__init__(**keywords)
        self._goal = self.model.geom_bodyid == self.model.body("goal").id
        self._opacity = self.model.geom_rgba[self._goal, _OPACITY].copy()
        self._until, self._spread = (shown - 0.5) * self.dt, spread

    def _draw(self) -> None:
        self.model.geom_rgba[self._goal, _OPACITY] = self._opacity * (self.data.time < self._until)

    def step(self, action: np.ndarray) -> Any:
        """Step the simulation, and hide the goal if it is time."""
        result = super().step(action)
        self._draw()
        return result

    def reset_model(self) -> np.ndarray:
        """Begin an episode; the object lies where Pusher's does, 17 cm or more from the goal's centre."""
        super().reset_model()
        y, x = 1, 0  # the order of both bodies' slides
        goal = self.np_random.uniform(-np.array(self._spread), self._spread)[[y, x]]
        while np.linalg.norm(self.cylinder_pos - goal) <= 0.17:
            self.cylinder_pos = self.np_random.uniform((-0.3, -0.2), (0.0, 0.2))
        qpos, qvel = self.data.qpos.copy(), self.data.qvel.copy()
        qpos[-4:] = *self.cylinder_pos, *goal
        self.set_state(qpos, qvel)
        self._draw()
        return self._get_obs()


if "PusherMemory-v0" not in gym.registry:  # worker processes know the registry of the one that started them
    gym.register("PusherMemory-v0", entry_point=PusherMemoryEnv)
