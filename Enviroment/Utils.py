"""The doors to this room: `make_env`, `make_vector_env`, `find_backend`, `make_world` and `resumes_exactly`."""

from contextlib import closing
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv

from Common.Errors import BadInput, BadSetting, brief
from Enviroment.GL import choose_gl_backend
from Enviroment.My_wrapper import DictObservation, FrameObservation
from Enviroment.On_tensors import on_tensors
from Enviroment.Renderer import Quality
from Enviroment.Snapshot import arrays, first_step, restores_exactly
from Enviroment.Task import Task
from Enviroment.Vector_env import WorkerVectorEnv, WorkerWorld
from Enviroment.World import World

_BY_WORKERS = ("texture", "dropped_frames", "delayed_frames", "delayed_actions")  # views that Warp does not show


def make_env(task: Task, frames: bool = True, render_quality: Quality = "fast") -> gym.Env:
    """Make one environment of a task.

    Its observation is `{"State": float32 [S], "PartialState": float32 [P]}` and a frame of each camera that the task is seen
    by, by its name, such as `"Frame": uint8 [rows, columns]`; `rgb` is uint8 [3, rows, columns]. Without `frames` nothing is
    rendered. Raises as `make_vector_env` does.
    """
    if frames:
        choose_gl_backend()
    task.check()
    env = task.make()
    task.check_environment(env, frames)
    env = DictObservation(env, task)
    return FrameObservation(env, task, render_quality) if frames else env


def make_vector_env(
    task: Task,
    num_envs: int,
    num_workers: int = 0,
    seed: int | None = None,
    frames: bool = True,
    render_quality: Quality = "fast",
) -> WorkerVectorEnv:
    """Make a Gymnasium vector environment of `num_envs` environments, stepped by `num_workers` processes (0: one per core).

    Observations are `make_env`'s with a leading [N]. An episode that ends restarts in the same step, and its last
    observation is in `info["final_obs"]`. States and rewards are those of `gymnasium.make(task.env_id)`, bit for bit, for
    any number of workers. `seed` seeds the first `reset()`: environment i gets `seed + i`.

    The workers start in the background. One that cannot start is a `WorkerError` of the first call.

    Raises:
        NoGLBackend: frames are wanted and this machine cannot render.
        ValueError: `num_envs` or `num_workers` is too small.
        BadInput: the task does not fit, or cannot be sent to the workers.
    """
    if frames:
        choose_gl_backend()
    return WorkerVectorEnv(WorkerWorld(task, num_envs, num_workers, frames, render_quality), seed)


def find_backend(name: str, task: Task, device: torch.device | str, render_quality: Quality = "fast") -> str:
    """Return the backend of a name: `workers`, `warp` (MuJoCo Warp), or the one of these that `auto` stands for.

    `auto` is Warp on a GPU where Warp is installed and can simulate the task. Raises `BadSetting` for `warp` where it is not
    installed or cannot simulate the task.
    """
    if name == "workers" or (name == "auto" and torch.device(device).type != "cuda"):
        return "workers"
    reason: str | None = "mujoco-warp is not installed (pip install -e .[warp])"
    if render_quality == "full":
        reason = "it draws no shadows and reflections, which render_quality full asks for"
    elif find_spec("mujoco_warp") is not None:
        reason = _unfit_for_warp(task)
    if reason is None:
        return "warp"
    if name == "auto":
        return "workers"
    raise BadSetting(f"backend warp: {reason}; --backend workers simulates any task")


def _unfit_for_warp(task: Task) -> str | None:
    """Return why a task cannot be simulated by Warp, None if it can."""
    if on_tensors(task) is None:
        return f"{task.env_id} has no observation and reward on tensors (Enviroment/On_tensors.py)"
    varied = task.views.table()
    if alone := [name for name in _BY_WORKERS if name in varied]:
        return f"it does not show views with {alone[0]}"
    if varied and (named := [name for name, camera in task.seen.items() if camera.name]):
        return f"it does not show views of {named[0]}, a camera of the model's own"
    with closing(task.make()) as env:
        inner: Any = env.unwrapped
        if not isinstance(inner, MujocoEnv):
            return f"{task.env_id} is not one of Gymnasium's MujocoEnv"
        before = {name: value.copy() for name, value in arrays(inner.model).items()}
        inner.reset(seed=0)
        changed = [name for name, value in arrays(inner.model).items() if not np.array_equal(value, before[name])]
        if changed or inner.model.nmocap:
            return f"{task.env_id} sets {changed[0] if changed else 'mocap bodies'} when it is reset, and not its state alone"
    return None


def make_world(
    task: Task,
    num_envs: int,
    num_workers: int = 0,
    frames: bool = True,
    render_quality: Quality = "fast",
    backend: str = "workers",
    device: torch.device | str = "cpu",
) -> World:
    """Make a world of `num_envs` environments.

    Args:
        backend: `workers` steps Gymnasium's environments in worker processes; the other arguments, values and errors are
            those of `make_vector_env`. `warp` simulates and renders on the `device` (see `WarpWorld`), what `find_backend` allows.
        device: of the tensors of `warp`; those of `workers` lie on the CPU.
    """
    if backend not in ("workers", "warp"):
        raise ValueError(f"{backend=}: workers or warp is needed")
    if backend == "warp":
        find_backend(backend, task, device, render_quality)
        from Enviroment.Warp_world import WarpWorld  # loads Warp, which takes a while

        return WarpWorld(task, num_envs, frames, torch.device(device))
    return make_vector_env(task, num_envs, num_workers, frames=frames, render_quality=render_quality).world


def resumes_exactly(task: Task) -> bool:
    """Return whether an environment goes on from a saved state as it would have without the interruption.

    It does not where it keeps something in Python that is neither a number nor an array among its attributes. Raises
    `BadInput` for an environment that fails in its first steps, and for success and measures that do not work on its states
    or its `info`.
    """
    name = f"task {task.reference or task.name}"
    try:
        info, state = first_step(task.make())
        exact = restores_exactly(task.make)
    except BadInput:
        raise
    except Exception as error:  # it is foreign code
        message = f"{name}: its environment fails in its first steps: {type(error).__name__}: {brief(error)}"
        raise BadInput(message) from error
    for key in task.info_keys:
        if key not in info:
            known = ", ".join(map(str, info)) or "nothing"
            raise BadInput(f"{name}: success or a measure is {key!r} of info, and a step's info has {known}")
    try:
        measured = task.measured(np.stack([state, state]), {})
    except Exception as error:  # as above
        message = f"{name}: success or a measure fails for states [..., S]: {type(error).__name__}: {brief(error)}"
        raise BadInput(message) from error
    for what, value in measured.items():
        if np.shape(value) != (2,):
            raise BadInput(
                f"{name}: {what} of states [2, S] has shape {list(np.shape(value))}, not [2]; use state[..., i]"
            )
    return exact
