"""Importing this registers `Repeated-v0` with Gymnasium: another environment, each of whose steps makes several of its own."""

from typing import Any

import gymnasium as gym

from Enviroment.Hidden import make_bare
from Enviroment.Snapshot import frames_per_second


class Repeated(gym.Wrapper):
    """Repeats each action, and adds up the rewards; an episode that ends in between ends the step.

    Args:
        env: an environment without a time limit.
        repeat: how many of its steps a step is.
    """

    def __init__(self, env: gym.Env, repeat: int):
        super().__init__(env)
        self._repeat, self.dt = repeat, repeat / frames_per_second(env)

    def step(self, action: Any) -> Any:
        """Return the last observation and `info`, and the sum of the rewards."""
        rewards = 0.0
        for _ in range(self._repeat):
            state, reward, terminated, truncated, info = self.env.step(action)
            rewards += float(reward)
            if terminated or truncated:
                break
        return state, rewards, terminated, truncated, info


def make(of: str, repeat: int, **keywords: Any) -> gym.Env:
    """Return the environment with the id `of`, whose actions are made `repeat` times."""
    return Repeated(make_bare(of, **keywords), repeat)


if "Repeated-v0" not in gym.registry:  # worker processes know the registry of the one that started them
    gym.register("Repeated-v0", entry_point="Enviroment.Repeated:make")
