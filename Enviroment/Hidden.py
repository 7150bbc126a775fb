"""Importing this registers `Hidden-v0` with Gymnasium: another environment, one of whose bodies vanishes from the pictures.

A student has to remember where it was. An arm that may move at once would tell by its posture, so it can be held for a while.
"""

from typing import Any

import gymnasium as gym
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


def make_bare(of: str, **keywords: Any) -> gym.Env:
    """Return the environment with the id `of` as its own code makes it, without a time limit or other wrappers."""
    spec = gym.spec(of)
    create: Any = spec.entry_point
    create = create if callable(create) else load_env_creator(create)
    return create(**spec.kwargs | keywords)


def make(of: str, body: str, after: int, held: int = 0, **keywords: Any) -> gym.Env:
    """Return the environment with the id `of`, whose `body` is drawn for `after` steps."""
    return Hidden(make_bare(of, **keywords), body, after, held)


if "Hidden-v0" not in gym.registry:  # worker processes know the registry of the one that started them
    gym.register("Hidden-v0", entry_point="Enviroment.Hidden:make")
