"""Takes a snapshot of one environment and restores it exactly."""

import json
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

_SIMULATION = mujoco.mjtState.mjSTATE_INTEGRATION


def time_limit(env: gym.Env) -> gym.wrappers.TimeLimit:
    """Return the wrapper that counts an environment's steps and ends its episodes."""
    while not isinstance(env, gym.wrappers.TimeLimit):
        assert isinstance(env, gym.Wrapper), "the environment has no time limit to restore"
        env = env.env
    return env


def snapshot(env: gym.Env) -> str:
    """Return an environment's simulation state, random generator and step count, as JSON."""
    inner: Any = env.unwrapped
    simulation = np.empty(mujoco.mj_stateSize(inner.model, _SIMULATION))
    mujoco.mj_getState(inner.model, inner.data, simulation, _SIMULATION)
    state = {"simulation": simulation.tolist(), "rng": inner.np_random.bit_generator.state}
    return json.dumps(state | {"elapsed_steps": time_limit(env)._elapsed_steps})


def restore(env: gym.Env, saved: str) -> None:
    """Put an environment back where a snapshot was taken. It continues from there bit for bit."""
    state = json.loads(saved)
    inner: Any = env.unwrapped
    simulation = np.array(state["simulation"])
    env.reset()
    mujoco.mj_setState(inner.model, inner.data, simulation, _SIMULATION)
    mujoco.mj_forward(inner.model, inner.data)
    # The forward pass has changed the solver's warm start, from which the next step begins.
    mujoco.mj_setState(inner.model, inner.data, simulation, _SIMULATION)
    inner.np_random.bit_generator.state = state["rng"]
    time_limit(env)._elapsed_steps = state["elapsed_steps"]
