"""Everything that distinguishes one task from another, as data, and how a task is found by its reference."""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from Common.Command_line import NAME
from Common.Errors import BadInput, brief
from Common.Files import plain

if TYPE_CHECKING:
    import gymnasium as gym  # late elsewhere: a command line that only looks for a task starts without it


@dataclass(frozen=True)
class Camera:
    """A free MuJoCo camera and the part of its square view that a student sees, in metres and degrees.

    `rows` and `columns` are [first, last) pixels of a `view` x `view` picture. Only that crop is ever rendered.
    """

    distance: float
    lookat: tuple[float, float, float]
    azimuth: float
    elevation: float
    view: int = 480
    rows: tuple[int, int] = (0, 480)
    columns: tuple[int, int] = (0, 480)


@dataclass(frozen=True)
class Task:
    """Everything that environment, renderer, models and evaluation need to know of a task."""

    name: str  # of the task's folder under `Results/`
    env_id: str  # Gymnasium's; the observation is the teacher's `State`
    proprioception: tuple[int, ...]  # indices of the state entries that a student is given beside its frames
    camera: Camera
    success_distance: Callable[[np.ndarray], np.ndarray]  # maps states [..., S] to the distance [...] in metres
    success_radius: float  # in metres; an episode whose last state is nearer than this is a success
    frame_size: tuple[int, int] = (64, 128)  # rows and columns
    stack: int = 4  # how many frames a student sees at once
    stack_stride: int = 2  # environment steps from one frame of the stack to the next
    reference: str = ""  # from which `find_task` finds it in any folder; empty for a task that was built by hand

    def rendering(self, quality: str) -> dict[str, Any]:
        """Return everything that decides what a student sees, as plain values."""
        seen = {"frame_size": self.frame_size, "stack": self.stack, "stack_stride": self.stack_stride}
        return plain({"quality": quality, **asdict(self.camera), **seen})

    def make(self, **keywords: Any) -> "gym.Env":
        """Make one environment by `gymnasium.make`, with further keywords of it or of the environment.

        Raises `BadInput` if there is no such environment, or if a package that it needs is missing.
        """
        import gymnasium

        try:
            return gymnasium.make(self.env_id, **{"disable_env_checker": True, **keywords})
        except (gymnasium.error.Error, ModuleNotFoundError) as error:
            raise BadInput(f"{self._label}: environment {self.env_id!r} cannot be made: {brief(error)}") from error

    def check(self) -> None:
        """Raise `BadInput` for the first of the task's own values that does not fit."""
        try:
            wrong = next(self._violations(), None)
        except (TypeError, ValueError, AttributeError) as error:
            wrong = f"one of its fields has a wrong type: {brief(error)}"
        if wrong is not None:
            raise BadInput(f"{self._label}: {wrong}")

    def check_environment(self, env: "gym.Env", frames: bool = False) -> None:
        """Raise `BadInput` unless this project can use the task's environment, and render `frames` if they are wanted."""
        for wrong in self._misfits(env, frames):
            raise BadInput(f"{self._label}: environment {self.env_id!r} {wrong}")

    @property
    def _label(self) -> str:
        return f"task {self.reference or self.name}"

    def _violations(self) -> Iterator[str]:
        if not (isinstance(self.name, str) and re.fullmatch(NAME, self.name)):
            yield f"its name {self.name!r} has to be a folder's name, of letters, digits and _ . + -"
        if not (isinstance(self.env_id, str) and self.env_id):
            yield f"its env_id {self.env_id!r} has to be the id of a Gymnasium environment"
        if not all(isinstance(index, int) and index >= 0 for index in self.proprioception):
            yield f"its proprioception {self.proprioception} has to be indices of state entries, from 0 up"
        if not isinstance(self.camera, Camera):
            yield f"its camera is of type {type(self.camera).__name__}; an Enviroment.Tasks.Camera is needed"
        for first, last in (self.camera.rows, self.camera.columns):
            if not 0 <= first < last <= self.camera.view:
                yield f"its camera's crop {first} to {last} has to lie within the view, 0 to {self.camera.view}"
        if not callable(self.success_distance):
            yield f"its success_distance {self.success_distance!r} has to be a function of states"
        if not self.success_radius > 0:
            yield f"its success_radius {self.success_radius} has to be more than 0"
        if min(*self.frame_size, self.stack, self.stack_stride) < 1:
            yield "its frame_size, stack and stack_stride have to be at least 1"

    def _misfits(self, env: "gym.Env", frames: bool) -> Iterator[str]:
        from gymnasium.spaces import Box

        state, action, simulation = env.observation_space, env.action_space, env.unwrapped
        if not (isinstance(state, Box) and len(state.shape) == 1):
            yield f"observes {state}; a Box with one axis is needed"
        elif max(self.proprioception, default=0) >= state.shape[0]:
            yield f"observes {state.shape[0]} numbers; proprioception needs entry {max(self.proprioception)}"
        if not (isinstance(action, Box) and len(action.shape) == 1 and action.is_bounded()):
            yield f"acts in {action}; a Box with one axis and finite bounds is needed"
        if env.spec is None or env.spec.max_episode_steps is None:
            yield "has no time limit; register it with max_episode_steps"
        if frames and not (hasattr(simulation, "model") and hasattr(simulation, "data")):
            yield "has no MuJoCo model and data, which frames are rendered from"


def _pusher_distance(state: np.ndarray) -> np.ndarray:
    # In the table's plane: the disc lies 5 cm below the object's centre, which no policy can change.
    return np.linalg.norm(state[..., 17:19] - state[..., 20:22], axis=-1)


def _reacher_distance(state: np.ndarray) -> np.ndarray:
    return np.linalg.norm(state[..., 8:10], axis=-1)


TASKS = {
    "Pusher": Task(
        name="Pusher",
        env_id="Pusher-v5",
        proprioception=tuple(range(17)),
        camera=Camera(2.5, (0.0, 0.2, 0.0), 270.0, -90.0, rows=(70, 230), columns=(70, 410)),
        success_distance=_pusher_distance,
        success_radius=0.08,
        reference="Pusher",
    ),
    "Reacher": Task(
        name="Reacher",
        env_id="Reacher-v5",
        proprioception=(0, 1, 2, 3, 6, 7),
        camera=Camera(0.8, (0.0, 0.0, 0.0), 90.0, -90.0, rows=(120, 360), columns=(0, 480)),
        success_distance=_reacher_distance,
        success_radius=0.02,
        reference="Reacher",
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
