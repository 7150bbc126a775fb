"""`Task`: everything that distinguishes one task from another, as data."""

import contextlib
import importlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from Common.Command_line import NAME
from Common.Errors import BadInput, brief
from Common.Files import plain
from Enviroment.Views import VIEWS, Views

if TYPE_CHECKING:
    import gymnasium as gym  # late elsewhere: a command line that only looks for a task starts without it


@contextlib.contextmanager
def _no_deprecations(module: str) -> Iterator[None]:
    """Keep MuJoCo from writing, for every environment that is made, that its model's file is old.

    The `module` is imported before, since DeepMind Control sets a function for warnings as well.
    """
    if module:
        importlib.import_module(module)
    import mujoco

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(
        lambda text: None if "deprecated" in text else logging.getLogger("mujoco").warning(text)
    )
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


@dataclass(frozen=True)
class Camera:
    """A MuJoCo camera and the part of its square view that a student sees, in metres and degrees.

    It is free, or free and following a body, or one of the model's own. `rows` and `columns` are [first, last) pixels of a
    `view` x `view` picture. Only that crop is ever rendered.
    """

    distance: float = 0.0  # from `lookat`
    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    azimuth: float = 90.0
    elevation: float = -90.0
    view: int = 480
    rows: tuple[int, int] = (0, 480)
    columns: tuple[int, int] = (0, 480)
    follow: str = ""  # a body; x and y of `lookat` are then counted from it
    name: str = ""  # a camera of the model, whose pose and field of view take the place of the free camera's


# A function that maps states [..., S] to values [...], or the key of an environment's `info`.
Value = Callable[[np.ndarray], Any] | str


@dataclass(frozen=True)
class Measure:
    """A number of the task's own, of a state. Tables give it at an episode's last state, films at every one."""

    value: Value
    unit: str = ""


@dataclass(frozen=True)
class Task:
    """Everything that environment, renderer, models and evaluation need to know of a task."""

    name: str  # of the task's folder under `Results/`
    env_id: str  # Gymnasium's, or `module:id` for one that importing a module registers
    proprioception: tuple[int, ...]  # indices of the state entries that a student is given beside its frames
    camera: Camera
    success: Value | None = None  # whether an episode's last state is a success
    measures: Mapping[str, Measure] = field(default_factory=dict)  # by name
    frame_size: tuple[int, int] = (64, 128)  # rows and columns
    stack: int = 4  # how many frames a student sees at once, unless `--stack` says otherwise
    stack_stride: int = 2  # environment steps from one frame of the stack to the next
    max_episode_steps: int | None = None  # the time limit; without it that of the environment's registration
    keywords: Mapping[str, Any] = field(default_factory=dict)  # of the environment
    training_keywords: Mapping[str, Any] = field(default_factory=dict)  # more of them, where a teacher is trained
    training: Mapping[str, Any] = field(default_factory=dict)  # the recipe: settings of `Mujoco_main.py` by name
    views: Views = VIEWS["none"]  # what may differ from episode to episode
    edge: bool = False  # whether every shift of `views` has its full size
    reference: str = ""  # from which `find_task` finds it in any folder; empty for a task that was built by hand

    def rendering(self, quality: str) -> dict[str, Any]:
        """Return everything that decides what a student sees, as plain values."""
        camera = asdict(self.camera)
        for key in ("follow", "name"):  # older files do not have them
            if not camera[key]:
                del camera[key]
        seen = {"frame_size": self.frame_size, "stack": self.stack, "stack_stride": self.stack_stride}
        return plain({"quality": quality, **camera, **seen})

    def make(self, **keywords: Any) -> "gym.Env":
        """Make one environment by `gymnasium.make`, with further keywords of it or of the environment.

        Observations of several numbers or arrays are flattened by Gymnasium's `flatten`: a dictionary's entries in the order
        of its space, which is that of their sorted names. Views are shown by `Viewed`. Raises `BadInput` if there is no such environment, if a package
        that it needs is missing, or if it fails while it is made.
        """
        import gymnasium

        from Enviroment.Snapshot import simulation
        from Enviroment.Viewed import Viewed

        limit = {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}
        try:
            with _no_deprecations(self.env_id.rpartition(":")[0]):
                env = gymnasium.make(self.env_id, **{"disable_env_checker": True, **limit, **self.keywords, **keywords})
        except Exception as error:  # it is foreign code
            raise BadInput(f"{self._label}: environment {self.env_id!r} cannot be made: {brief(error)}") from error
        if len(env.observation_space.shape or ()) != 1 and not _holds_images(env.observation_space):
            env = gymnasium.wrappers.FlattenObservation(env)
        if self.views == Views() or simulation(env) is None:  # which `check_environment` refuses
            return env
        return Viewed(env, self.views, self.edge)

    @property
    def info_keys(self) -> tuple[str, ...]:
        """The keys of the environment's `info` that success and measures need."""
        values = [self.success, *(measure.value for measure in self.measures.values())]
        return tuple(dict.fromkeys(value for value in values if isinstance(value, str)))

    def measured(self, state: np.ndarray, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return the measures by name, and `success` if the task has one, of states float [..., S] and values of `info`.

        Those for which `info` lacks the key, as it may at a reset, are left out.
        """
        values: dict[str, Any] = {name: measure.value for name, measure in self.measures.items()}
        if self.success is not None:
            values["success"] = self.success
        known = {name: value for name, value in values.items() if not isinstance(value, str) or value in info}
        return {name: info[value] if isinstance(value, str) else value(state) for name, value in known.items()}

    def caption(self, state: np.ndarray, info: Mapping[str, Any]) -> str:
        """Return the measures of one state as words, for films."""
        values = self.measured(state, info).items()
        return "".join(
            f"   {name} {value:.2f} {self.measures[name].unit}".rstrip() for name, value in values if name != "success"
        )

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
        if self.camera.name and self.camera.follow:
            yield f"its camera is the model's {self.camera.name!r} and follows {self.camera.follow!r}; only one is possible"
        if not (self.success is None or callable(self.success) or isinstance(self.success, str)):
            yield f"its success {self.success!r} has to be a function of states, a key of info, or None"
        for name, measure in self.measures.items():
            if not (isinstance(measure, Measure) and (callable(measure.value) or isinstance(measure.value, str))):
                yield f"its measure {name!r} has to be an Enviroment.Tasks.Measure of a function of states or a key of info"
        for name in ("keywords", "training_keywords", "training"):
            if not isinstance(getattr(self, name), Mapping):
                yield f"its {name} {getattr(self, name)!r} has to be a dictionary"
        if min(*self.frame_size, self.stack, self.stack_stride, self.max_episode_steps or 1) < 1:
            yield "its frame_size, stack, stack_stride and max_episode_steps have to be at least 1"

    def _misfits(self, env: "gym.Env", frames: bool) -> Iterator[str]:
        from gymnasium.spaces import Box

        from Enviroment.Snapshot import simulation, time_limit

        state, action = env.observation_space, env.action_space
        if not (isinstance(state, Box) and len(state.shape) == 1):
            yield f"observes {state}; numbers, and no images, are needed"
        elif max(self.proprioception, default=0) >= state.shape[0]:
            yield f"observes {state.shape[0]} numbers; proprioception needs entry {max(self.proprioception)}"
        if not (isinstance(action, Box) and len(action.shape) == 1 and action.is_bounded()):
            yield f"acts in {action}; a Box with one axis and finite bounds is needed"
        if time_limit(env) is None:
            yield "has no time limit; give the task max_episode_steps"
        found = simulation(env)
        if found is None:
            yield "has no MuJoCo model and data (its attributes `model` and `data`)"
        elif frames:
            for kind, name in (("camera", self.camera.name), ("body", self.camera.follow)):
                names = [
                    getattr(found[0], kind)(i).name
                    for i in range(getattr(found[0], "ncam" if kind == "camera" else "nbody"))
                ]
                if name and name not in names:
                    yield f"has no {kind} {name!r}; its model has {', '.join(filter(None, names)) or 'none with a name'}"


def _holds_images(space: "gym.Space") -> bool:
    parts = getattr(space, "spaces", None)
    if parts is not None:
        return any(map(_holds_images, parts.values() if isinstance(parts, Mapping) else parts))
    return space.dtype == np.uint8 and len(space.shape or ()) >= 2
