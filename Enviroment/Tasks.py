"""The tasks that come with this repository, and how any task is found by its reference."""

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from dataclasses import replace
from types import ModuleType

import numpy as np

from Common.Errors import BadInput, brief
from Enviroment.Task import Camera, Measure, Task

__all__ = ["TASKS", "Camera", "Measure", "Task", "find_task"]


def _pusher_distance(state: np.ndarray) -> np.ndarray:
    # In the table's plane: the disc lies 5 cm below the object's centre, which no policy can change.
    return np.linalg.norm(state[..., 17:19] - state[..., 20:22], axis=-1)


def _reacher_distance(state: np.ndarray) -> np.ndarray:
    return np.linalg.norm(state[..., 8:10], axis=-1)


# The recipe of the longer tasks, as settings of `Train_Teacher_Pusher/Mujoco_main.py`; a task's `training` changes some.
RECIPE = {
    "total_timesteps": 1_500_000,
    "num_envs": 8,
    "gradient_steps": 8,
    "hidden": 256,
    "gamma": 0.99,
    "tau": 0.005,
    "learning_rate": 5e-4,
    "learning_rate_end": 1e-4,
    "learning_starts": 10_000,
}
# A walker's student is given its joints and its trunk's orientation and turning, as encoders and an IMU know them. Height and
# speed it must see: the camera follows the trunk over the ground, never up or down, and the floor moves past. The stride is so
# long that the floor moves by pixels from frame to frame, and so short that it moves by less than half its pattern's period.
SPEED = {"speed": Measure("x_velocity", "m/s")}


TASKS = {
    "Pusher": Task(
        name="Pusher",
        env_id="Pusher-v5",
        proprioception=tuple(range(17)),
        camera=Camera(2.5, (0.0, 0.2, 0.0), 270.0, -90.0, rows=(70, 230), columns=(70, 410)),
        success=lambda state: _pusher_distance(state) < 0.08,  # the radius of the goal's disc
        measures={"distance": Measure(_pusher_distance, "m")},
        # The task's own reward lets a policy hover beside the object for long.
        training_keywords={"reward_dist_weight": 2.0},
        reference="Pusher",
    ),
    "Reacher": Task(
        name="Reacher",
        env_id="Reacher-v5",
        proprioception=(0, 1, 2, 3, 6, 7),
        camera=Camera(0.8, (0.0, 0.0, 0.0), 90.0, -90.0, rows=(120, 360), columns=(0, 480)),
        success=lambda state: _reacher_distance(state) < 0.02,
        measures={"distance": Measure(_reacher_distance, "m")},
        reference="Reacher",
    ),
    "HalfCheetah": Task(
        name="HalfCheetah",
        env_id="HalfCheetah-v5",
        proprioception=(*range(1, 8), *range(10, 17)),
        camera=Camera(3.0, (0.0, 0.0, 0.1), 90.0, -15.0, follow="torso"),
        measures=SPEED,
        frame_size=(64, 64),
        stack_stride=1,  # 0.05 s, in which a good teacher runs 0.6 m; the floor repeats after 1.33 m
        training=RECIPE,
        reference="HalfCheetah",
    ),
    "Walker2d": Task(
        name="Walker2d",
        env_id="Walker2d-v5",
        proprioception=(*range(1, 8), *range(10, 17)),
        camera=Camera(3.0, (0.0, 0.0, 0.7), 90.0, -15.0, follow="torso"),
        measures=SPEED,
        frame_size=(64, 64),
        stack_stride=4,  # of steps of 8 ms
        training=RECIPE | {"learning_rate": 3e-4},
        reference="Walker2d",
    ),
    "Hopper": Task(
        name="Hopper",
        env_id="Hopper-v5",
        proprioception=(*range(1, 5), *range(7, 11)),
        camera=Camera(2.8, (0.0, 0.0, 0.7), 90.0, -15.0, follow="torso"),
        measures=SPEED,
        frame_size=(64, 64),
        stack_stride=4,
        training=RECIPE | {"total_timesteps": 1_000_000, "learning_rate": 3e-4},
        reference="Hopper",
    ),
}


def find_task(reference: str) -> Task:
    """Return the task that a reference names.

    A reference is the name of a task in `TASKS`, `package.module:NAME` for a task in a module that can be imported, or
    `path/to/tasks.py:NAME` for a task in a file, relative to the current folder. The file is executed, once in a process,
    and finds modules beside it. Raises `BadInput` if there is no such task, or if it does not fit.
    """
    where, colon, name = reference.rpartition(":")
    if not colon:
        if reference in TASKS:
            return TASKS[reference]
        if reference.endswith(".py"):
            raise BadInput(f"task {reference}: which task of that file is missing; {reference}:NAME is needed")
        known = f"{', '.join(TASKS)}, package.module:NAME or path/to/tasks.py:NAME"
        raise BadInput(f"task {reference!r} is unknown: {known} is needed")
    if where.endswith(".py") or os.sep in where:
        where = os.path.abspath(os.path.expanduser(where))
        module = _load_file(where)
    else:
        module = _import_module(where)
    task = vars(module).get(name)
    if task is None:
        tasks = [key for key, value in vars(module).items() if isinstance(value, Task)]
        raise BadInput(f"task {reference}: {where} has no {name!r}; the tasks in it: {', '.join(tasks) or 'none'}")
    if not isinstance(task, Task):
        raise BadInput(f"task {reference}: {name} is of type {type(task).__name__}; an Enviroment.Tasks.Task is needed")
    task = replace(task, reference=f"{where}:{name}")
    task.check()
    return task


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failure(name, error) from error
        raise BadInput(f"task module {name}: {error}; a file is given as path/to/tasks.py:NAME") from error
    except (Exception, SystemExit) as error:  # it is foreign code
        raise _failure(name, error) from error


def _load_file(path: str) -> ModuleType:
    """Execute a Python file as a module whose functions and classes can be sent to processes that do not have it."""
    name = f"task_file_{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    if not os.path.isfile(path):
        raise BadInput(f"task file {path}: no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"task file {path}: a Python file, .py, is needed")
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)
    import cloudpickle

    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):  # it is foreign code
            raise _failure(path, error) from error
        raise
    cloudpickle.register_pickle_by_value(module)
    return module


def _failure(where: str, error: Exception | SystemExit) -> BadInput:
    """Return the error of a module that raised while it was imported; that of a file has the line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == where]
    line = f", line {lines[-1]}" if lines else ""
    said = f"it ends Python with status {error.code}" if isinstance(error, SystemExit) else brief(error)
    return BadInput(f"task module {where}{line}: it fails while it is imported: {type(error).__name__}: {said}")
