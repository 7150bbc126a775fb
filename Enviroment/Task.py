"""`Task`: everything that distinguishes one task from another, as data."""

import contextlib
import importlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from Common.Command_line import NAME
from Common.Errors import BadInput, BadSetting, brief
from Common.Files import plain
from Enviroment.Views import VIEWS, Views

if TYPE_CHECKING:
    import gymnasium as gym  # late elsewhere: a command line that only looks for a task starts without it

    from Enviroment.On_tensors import OnTensors


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


Kind = Literal["gray", "rgb", "depth"]
KINDS = get_args(Kind)
# What else tensors are called where observations are: a camera cannot have these names.
TAKEN = {"State", "PartialState", "action", "reward", "terminated", "truncated", "unstable", "indices"}
TAKEN |= {"mean", "log_std", "weights", "Memory", "First", "Features"}


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
    size: tuple[int, int] = (64, 128)  # rows and columns of its frames
    frames: Kind = "gray"
    depth_range: tuple[float, float] | None = (
        None  # of `depth`: from 0 to 255; half to 1.5 times `distance` unless given
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a frame: [rows, columns], of `rgb` [3, rows, columns]."""
        return (3, *self.size) if self.frames == "rgb" else self.size

    @property
    def depths(self) -> tuple[float, float]:
        """The distances along the line of sight, in metres, that are 0 and 255 in a frame of depth."""
        return self.depth_range or (0.5 * self.distance, 1.5 * self.distance)

    def description(self) -> dict[str, Any]:
        """Return everything that decides what its frames show."""
        values = asdict(self) | {"depth_range": self.depths}
        unused = {"depth_range"} if self.frames != "depth" else set()
        unused |= {key for key in ("follow", "name") if not values[key]}
        return {key: value for key, value in values.items() if key not in unused}


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
    cameras: Mapping[
        str, Camera
    ]  # by name, the key of its observation; students see the first unless others are chosen
    success: Value | None = None  # whether an episode's last state is a success
    measures: Mapping[str, Measure] = field(default_factory=dict)  # by name
    stack: int = 4  # how many frames a student sees at once, unless `--stack` says otherwise
    stack_stride: int = 2  # environment steps from one frame of the stack to the next
    max_episode_steps: int | None = None  # the time limit; without it that of the environment's registration
    keywords: Mapping[str, Any] = field(default_factory=dict)  # of the environment
    training_keywords: Mapping[str, Any] = field(default_factory=dict)  # more of them, where a teacher is trained
    training: Mapping[str, Any] = field(default_factory=dict)  # the recipe: settings of `Mujoco_main.py` by name
    views: Views = VIEWS["none"]  # what may differ from episode to episode
    edge: bool = False  # whether every shift of `views` has its full size
    on_tensors: "OnTensors | None" = None  # of an environment that `Enviroment/On_tensors.py` does not know
    reference: str = ""  # from which `find_task` finds it in any folder; empty for a task that was built by hand
    chosen: tuple[str, ...] = ()  # the cameras that students see, if not the first; `seen_by` sets it
    frames: str = "own"  # the kind of their frames, if not each camera's own; `seen_by` sets it

    @property
    def seen(self) -> dict[str, Camera]:
        """The cameras that students see, by name, with the frames that they see."""
        chosen = self.chosen or tuple(self.cameras)[:1]
        seen = {name: camera for name, camera in self.cameras.items() if name in chosen}
        if self.frames == "own":
            return seen
        return {name: replace(camera, frames=self.frames) for name, camera in seen.items()}  # type: ignore[arg-type]

    def seen_by(self, cameras: Sequence[str] = (), frames: str = "own") -> "Task":
        """Return the task as students see it through some cameras, by default the first, whose frames are of one kind.

        `frames` is `gray`, `rgb`, `depth`, or `own` for each camera's own. Raises `BadInput` for an unknown name, and where a
        camera cannot show such frames.
        """
        for name in cameras:
            if name not in self.cameras:
                raise BadSetting(f"cameras {name}: {self.name} has {', '.join(self.cameras)}")
            if list(cameras).count(name) > 1:
                raise BadSetting(f"cameras {name}: it is given twice")
        task = replace(self, chosen=tuple(name for name in self.cameras if name in cameras), frames=frames)
        task.check()
        # What is chosen anyway is no choice, so that its files have the usual names.
        own = replace(self, chosen=(), frames="own").seen
        same_kinds = all(camera.frames == self.cameras[name].frames for name, camera in task.seen.items())
        return replace(
            task, chosen=task.chosen if task.seen.keys() != own.keys() else (), frames="own" if same_kinds else frames
        )

    def seen_as(self, rendering: Mapping[str, Any]) -> "Task":
        """Return the task seen by the cameras of a `rendering`, with frames of their kinds; raises as `seen_by`."""
        cameras = rendering.get("cameras", {"Frame": {"frames": "gray"}})  # older files have that one only
        try:
            kinds = {str(name): str(camera["frames"]) for name, camera in cameras.items()}
        except (AttributeError, KeyError, TypeError):
            raise BadInput(f"{self._label}: cameras are not described by {str(cameras)[:100]}") from None
        same = len(set(kinds.values())) == 1
        return self.seen_by(tuple(kinds), next(iter(kinds.values())) if same else "own")

    @property
    def selection(self) -> str:
        """What names of files add for cameras or frames other than the task's own, such as `_side_wrist_rgb`."""
        return "".join(f"_{part}" for part in (*self.chosen, self.frames) if part != "own")

    @property
    def flags(self) -> str:
        """The same as flags of a command line, each word followed by a space."""
        cameras = f"--cameras {' '.join(self.chosen)} " if self.chosen else ""
        return cameras + (f"--frames {self.frames} " if self.frames != "own" else "")

    def rendering(self, quality: str) -> dict[str, Any]:
        """Return everything that decides what a student sees, as plain values."""
        cameras: dict[str, Any] = {name: camera.description() for name, camera in self.seen.items()}
        stacks = {"stack": self.stack, "stack_stride": self.stack_stride}
        if cameras.keys() == {"Frame"} and cameras["Frame"]["frames"] == "gray":  # in the form of older files
            camera = {key: value for key, value in cameras["Frame"].items() if key not in ("frames", "size")}
            return plain({"quality": quality, **camera, "frame_size": cameras["Frame"]["size"], **stacks})
        return plain({"quality": quality, "cameras": cameras, **stacks})

    def make(self, **keywords: Any) -> "gym.Env":
        """Make one environment by `gymnasium.make`, with further keywords of it or of the environment.

        Observations of several numbers or arrays are flattened by Gymnasium's `flatten`: a dictionary's entries in the order
        of its space, which is that of their sorted names. `Viewed` shows the views. Raises `BadInput` if there is no such
        environment, if a package that it needs is missing, or if it fails while it is made.
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
        yield from self._bad_cameras()
        if not (self.success is None or callable(self.success) or isinstance(self.success, str)):
            yield f"its success {self.success!r} has to be a function of states, a key of info, or None"
        for name, measure in self.measures.items():
            if not (isinstance(measure, Measure) and (callable(measure.value) or isinstance(measure.value, str))):
                yield f"its measure {name!r} has to be an Enviroment.Tasks.Measure of a function of states or a key of info"
        for name in ("keywords", "training_keywords", "training"):
            if not isinstance(getattr(self, name), Mapping):
                yield f"its {name} {getattr(self, name)!r} has to be a dictionary"
        if min(self.stack, self.stack_stride, self.max_episode_steps or 1) < 1:
            yield "its stack, stack_stride and max_episode_steps have to be at least 1"
        if self.on_tensors is not None:
            from Enviroment.On_tensors import OnTensors  # late, since it loads PyTorch

            if not isinstance(self.on_tensors, OnTensors):
                yield f"its on_tensors is of type {type(self.on_tensors).__name__}; an OnTensors is needed"

    def _bad_cameras(self) -> Iterator[str]:
        if not (isinstance(self.cameras, Mapping) and self.cameras):
            yield f"its cameras {self.cameras!r} have to be a dictionary of Enviroment.Tasks.Camera by name"
        for name, camera in {**self.cameras, **self.seen}.items():
            if not (str(name).isidentifier() and name not in TAKEN and not name.startswith(("last_", "info_"))):
                yield f"a camera cannot be called {name!r}: a word such as Frame, side or wrist is needed"
            if not isinstance(camera, Camera):
                yield f"its camera {name} is of type {type(camera).__name__}; an Enviroment.Tasks.Camera is needed"
            for first, last in (camera.rows, camera.columns):
                if not 0 <= first < last <= camera.view:
                    yield f"camera {name}: its crop {first} to {last} has to lie within the view, 0 to {camera.view}"
            if camera.name and camera.follow:
                yield f"camera {name} is the model's {camera.name!r} and follows {camera.follow!r}; only one is possible"
            if min(camera.size) < 1 or len(camera.size) != 2:
                yield f"camera {name}: its size {camera.size} has to be rows and columns, each at least 1"
            if camera.frames not in KINDS:
                yield f"camera {name}: its frames {camera.frames!r} have to be {', '.join(KINDS[:-1])} or {KINDS[-1]}"
            near, far = camera.depths
            if camera.frames == "depth" and not 0 <= near < far:
                yield f"camera {name}: its depth_range {near:g} to {far:g} has to be two distances in metres, the nearer first"

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
            model = found[0]
            known = {
                "camera": [model.camera(i).name for i in range(model.ncam)],
                "body": [model.body(i).name for i in range(model.nbody)],
            }
            for camera in self.seen.values():
                for kind, name in (("camera", camera.name), ("body", camera.follow)):
                    if name and name not in known[kind]:
                        names = ", ".join(filter(None, known[kind])) or "none with a name"
                        yield f"has no {kind} {name!r}; its model has {names}"


def _holds_images(space: "gym.Space") -> bool:
    parts = getattr(space, "spaces", None)
    if parts is not None:
        return any(map(_holds_images, parts.values() if isinstance(parts, Mapping) else parts))
    return space.dtype == np.uint8 and len(space.shape or ()) >= 2
