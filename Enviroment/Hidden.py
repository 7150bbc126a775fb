"""Importing this registers environments in which a student has to remember what it saw at the beginning of an episode.

`Hidden-v0` is another environment, one of whose bodies vanishes from the pictures. `PusherGoals-v0` is one that is worth it.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv
from gymnasium.envs.registration import load_env_creator

from Enviroment.Snapshot import simulation

_OPACITY = 3  # the column of a geom's colour


class Hidden(gym.Wrapper):
    """Draws a body for the first steps of an episode alone; simulation, state and reward stay those of the other environment.

    How many steps there were is told by the simulation's clock, so that a snapshot needs to hold nothing else.

    Args:
        env: an environment of MuJoCo's, without a time limit.
        body: its name in the model.
        after: the observation after so many steps is the first without it.
        held: so many steps of an episode are made without any action, whatever is asked.
    """

    def __init__(self, env: gym.Env, body: str, after: int, held: int = 0):
        super().__init__(env)
        self._model, self._data = simulation(env)  # type: ignore[misc]
        self._geoms = self._model.geom_bodyid == self._model.body(body).id
        self._opacity = self._model.geom_rgba[self._geoms, _OPACITY].copy()
        step = env.get_wrapper_attr("dt")
        self._until, self._held = (after - 0.5) * step, (held - 0.5) * step

    def _draw(self) -> None:
        self._model.geom_rgba[self._geoms, _OPACITY] = self._opacity * (self._data.time < self._until)

    def step(self, action: Any) -> Any:
        """Step the environment, and hide the body if it is time."""
        result = self.env.step(action * (self._data.time > self._held))
        self._draw()
        return result

    def reset(self, **arguments: Any) -> Any:
        """Begin an episode, in which the body is drawn again."""
        result = self.env.reset(**arguments)
        self._draw()
        return result


class PusherGoals(PusherEnv):
    """Pusher, whose goal lies elsewhere in each episode: up to 15 cm along x and 10 cm along y from Pusher's own."""

    def reset_model(self) -> np.ndarray:
        """Begin an episode; the object lies where Pusher's does, 17 cm or more from the goal's centre."""
        super().reset_model()
        goal = self.np_random.uniform((-0.1, -0.15), (0.1, 0.15))  # both bodies slide along y, then along x
        while np.linalg.norm(self.cylinder_pos - goal) <= 0.17:
            self.cylinder_pos = self.np_random.uniform((-0.3, -0.2), (0.0, 0.2))
        qpos = self.data.qpos.copy()
        qpos[-4:] = *self.cylinder_pos, *goal
        self.set_state(qpos, self.data.qvel.copy())
        return self._get_obs()


def make(of: str, body: str, after: int, held: int = 0, **keywords: Any) -> gym.Env:
    """Return the environment with the id `of`, whose `body` is drawn for `after` steps."""
    spec = gym.spec(of)
    create: Any = spec.entry_point
    create = create if callable(create) else load_env_creator(create)
    return Hidden(create(**spec.kwargs | keywords), body, after, held)


if "Hidden-v0" not in gym.registry:  # worker processes know the registry of the one that started them
    gym.register("Hidden-v0", entry_point="Enviroment.Hidden:make")
    gym.register("PusherGoals-v0", entry_point=PusherGoals)
