"""Takes a snapshot of one environment and restores it, and tells whether that is exact."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

_SIMULATION = mujoco.mjtState.mjSTATE_INTEGRATION
# What a step leaves computed, of the state before its last integration: Ant's next reward starts from its torso's `xpos`.
_COMPUTED = (
    "xpos",
    "xquat",
    "xmat",
    "xipos",
    "geom_xpos",
    "geom_xmat",
    "site_xpos",
    "site_xmat",
    "subtree_com",
    "cfrc_ext",
)
_LARGEST = 10_000  # numbers of an array of the model that a snapshot holds, where an environment changes it


def simulation(env: gym.Env) -> tuple[mujoco.MjModel, mujoco.MjData] | None:
    """Return an environment's MuJoCo model and data: of Gymnasium's interface or DeepMind Control's; None without them."""
    inner: Any = env.unwrapped
    found = getattr(inner, "model", None), getattr(inner, "data", None)
    if physics := getattr(getattr(inner, "_env", None), "physics", None):
        found = physics.model.ptr, physics.data.ptr
    return found if isinstance(found[0], mujoco.MjModel) and isinstance(found[1], mujoco.MjData) else None  # type: ignore[return-value]


def frames_per_second(env: gym.Env) -> int:
    """Return how many steps of an environment make a second, at least 1."""
    seconds = env.get_wrapper_attr("dt") if env.has_wrapper_attr("dt") else None
    return max(1, round(1 / seconds if seconds else env.metadata.get("render_fps") or 30))


def time_limit(env: gym.Env) -> gym.wrappers.TimeLimit | None:
    """Return the wrapper that counts an environment's steps and ends its episodes, None without one."""
    while not isinstance(env, gym.wrappers.TimeLimit):
        if not isinstance(env, gym.Wrapper):
            return None
        env = env.env
    return env


def arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Return a model's arrays by name, but for the largest, such as textures."""
    found = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray) and value.size <= _LARGEST}


def _holders(env: gym.Env) -> list[Any]:
    """Return the objects whose attributes are an environment's state in Python: itself, and DeepMind Control's inside."""
    inner: Any = env.unwrapped
    held = getattr(inner, "_env", None)
    return [holder for holder in (inner, held, getattr(held, "_task", None)) if hasattr(holder, "__dict__")]


def _numbers(holder: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(holder).items():
        numeric = isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size <= _LARGEST
        if numeric or isinstance(value, bool | int | float | np.generic):
            yield name, value


def _random_state(env: gym.Env) -> Any:
    generator: Any = env.unwrapped.np_random
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state(False)


def _set_random_state(env: gym.Env, state: Any) -> None:
    generator: Any = env.unwrapped.np_random
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def snapshot(env: gym.Env, original: mujoco.MjModel) -> str:
    """Return an environment's state as JSON.

    It holds the simulation's state, the values by which the model differs from the `original` that a fresh environment has, the
    random generator, the step count, the numbers and arrays that the environment keeps as attributes, and its view's state.
    """
    model, data = simulation(env)  # type: ignore[misc]
    state = np.empty(mujoco.mj_stateSize(model, _SIMULATION))
    mujoco.mj_getState(model, data, state, _SIMULATION)
    before, limit = arrays(original), time_limit(env)
    changed = {
        name: value
        for name, value in arrays(model).items()
        if name in before and value.shape == before[name].shape and not np.array_equal(value, before[name])
    }
    state_of_all = {
        "simulation": state,
        "computed": {name: getattr(data, name) for name in _COMPUTED},
        "model": changed,
        "rng": _random_state(env),
        "elapsed_steps": limit._elapsed_steps if limit else None,
        "python": [dict(_numbers(holder)) for holder in _holders(env)],
    }
    if env.has_wrapper_attr("view_state"):
        state_of_all["view"] = env.get_wrapper_attr("view_state")()
    return json.dumps(state_of_all, default=lambda value: value.tolist())


def restore(env: gym.Env, saved: str, original: mujoco.MjModel) -> None:
    """Put an environment back where `snapshot` was called; `original` is the same as there."""
    state = json.loads(saved)
    env.reset()
    model, data = simulation(env)  # type: ignore[misc]
    before = arrays(original)
    for name, value in arrays(model).items():
        if name in before and value.shape == before[name].shape:
            value[...] = state.get("model", {}).get(name, before[name])
    if "view" in state:
        env.get_wrapper_attr("restore_view")(state["view"])
    for holder, numbers in zip(_holders(env), state.get("python", [])):
        _set_numbers(holder, numbers)
    simulated = np.array(state["simulation"])
    mujoco.mj_setState(model, data, simulated, _SIMULATION)
    mujoco.mj_forward(model, data)
    # The forward pass has changed the solver's warm start, from which the next step begins.
    mujoco.mj_setState(model, data, simulated, _SIMULATION)
    for name, value in state.get("computed", {}).items():  # older snapshots have none
        getattr(data, name)[...] = np.reshape(value, getattr(data, name).shape)
    _set_random_state(env, state["rng"])
    if limit := time_limit(env):
        limit._elapsed_steps = state["elapsed_steps"]


def _set_numbers(holder: Any, numbers: dict[str, Any]) -> None:
    for name, value in _numbers(holder):
        if name not in numbers:
            continue
        if not isinstance(value, np.ndarray):
            setattr(holder, name, type(value)(numbers[name]))
        elif value.shape == np.shape(numbers[name]) and value.flags.writeable:
            value[...] = numbers[name]  # in place, since others may hold it as well


def first_step(env: gym.Env) -> tuple[dict[str, Any], np.ndarray]:
    """Return the `info` and the state of an environment's first step, and close it."""
    env.reset(seed=0)
    env.action_space.seed(0)
    state, _, _, _, info = env.step(env.action_space.sample())
    env.close()
    return info, np.asarray(state, np.float64)


def restores_exactly(make: Any, steps: int = 5) -> bool:
    """Return whether an environment that `make` makes continues exactly from a snapshot: some steps and another reset."""
    first, second = make(), make()
    try:
        model, _ = simulation(first)  # type: ignore[misc]
        original = copy.copy(model)
        first.action_space.seed(0)
        actions = [first.action_space.sample() for _ in range(2 * steps)]
        first.reset(seed=0)
        for action in actions[:steps]:
            first.step(action)
        second.reset(seed=1)
        saved = snapshot(first, original)
        restore(second, saved, original)
        return _course(first, actions[steps:]) == _course(second, actions[steps:])
    finally:
        first.close()
        second.close()


def _course(env: gym.Env, actions: list[Any]) -> list[Any]:
    """Return everything that an environment yields for some actions and a reset, as bytes and numbers."""
    course: list[Any] = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        course += [np.asarray(observation).tobytes(), float(reward), terminated, truncated]
        if terminated or truncated:
            course.append(np.asarray(env.reset()[0]).tobytes())
    return [*course, np.asarray(env.reset()[0]).tobytes()]
