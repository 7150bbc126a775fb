"""`Views`: what pictures and physics may differ in from episode to episode; `View`: how one episode differs.

Domain randomization: of pictures, Tobin et al. 2017, https://arxiv.org/abs/1703.06907; of physics, Peng et al. 2018,
https://arxiv.org/abs/1710.06537.
"""

import os
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from Common.Command_line import check_name
from Common.Errors import BadInput, BadSetting
from Common.Files import ROOT

# Three strengths of every shift, by which a student is examined.
STRENGTHS: dict[str, tuple[float, float, float]] = {
    "camera_position": (0.01, 0.02, 0.04),
    "camera_angle": (1.0, 2.0, 4.0),
    "camera_distance": (0.02, 0.035, 0.05),
    "light": (0.2, 0.28, 0.35),
    "light_direction": (10.0, 20.0, 40.0),
    "light_colour": (0.05, 0.1, 0.2),
    "colour": (0.1, 0.18, 0.25),
    "texture": (0.1, 0.2, 0.4),
    "brightness": (10.0, 15.0, 20.0),
    "contrast": (0.1, 0.2, 0.3),
    "noise": (5.0, 10.0, 15.0),
    "dropped_frames": (0.05, 0.1, 0.2),
    "delayed_frames": (1, 2, 3),
    "mass": (0.1, 0.2, 0.4),
    "friction": (0.1, 0.2, 0.4),
    "damping": (0.1, 0.2, 0.4),
    "delayed_actions": (1, 2, 3),
}
_BELOW_ONE = (
    *("camera_distance", "light", "light_colour", "colour", "texture", "contrast", "dropped_frames"),
    *("mass", "friction", "damping"),
)  # at 1 there would be no light, no mass or no new frame

PATTERNS = ("checker", "gradient", "grid", "dots")
PATTERN_SIZES = (4, 8, 16)  # how often they repeat in two metres; floors move below a robot by whole metres
_MOST, _MOST_STEPS = 1000, 100


@dataclass(frozen=True)
class Views:
    """The distribution of what may differ from episode to episode: nothing, unless it is given.

    A length, an angle or a number of gray levels is half the range of a uniform distribution around the task's own value. A
    share is half the range of a factor around 1. Counts, the noise and the probability of a drop are drawn from 0 up.
    """

    camera_position: float = 0.0  # metres, along each axis
    camera_angle: float = 0.0  # degrees, of azimuth and of elevation
    camera_distance: float = 0.0  # share; of the field of view where the camera is the model's own
    light: float = 0.0  # share of the strength of all lights
    light_direction: float = 0.0  # degrees, about x and about y; a model's headlight has no direction
    light_colour: float = 0.0  # share of red, green and blue of all lights
    colour: float = 0.0  # share of red, green and blue of every geom, site and material
    texture: float = 0.0  # the largest contrast of a pattern, on every geom without a texture, in steps of 0.05
    brightness: float = 0.0  # gray levels of 255
    contrast: float = 0.0  # share, around the middle gray
    noise: float = 0.0  # the largest standard deviation in gray levels; the noise is new in every frame
    dropped_frames: float = 0.0  # the largest probability that a frame is the one before it once more
    delayed_frames: int = 0  # steps that frames come late, at most
    mass: float = 0.0  # share of mass and inertia of every body
    friction: float = 0.0  # share of the friction of every geom
    damping: float = 0.0  # share of the damping of every joint
    delayed_actions: int = 0  # steps that actions come late, at most

    @property
    def physical(self) -> bool:
        """Whether states differ, and not only pictures."""
        return bool(self.mass or self.friction or self.damping or self.delayed_actions)

    def table(self) -> dict[str, float]:
        """Return the ranges by name, without those that are 0."""
        return {name: value for name, value in vars(self).items() if value}


_LISTED = ("camera_position", "camera_angle", "camera_distance", "light", "colour", "brightness", "noise")
VIEWS = {
    "none": Views(),
    "small": Views(**{name: STRENGTHS[name][0] for name in _LISTED}),  # type: ignore[arg-type]
    "large": Views(**{name: STRENGTHS[name][2] for name in _LISTED}),  # type: ignore[arg-type]
}


class View:
    """How one episode differs, wholly decided by `views` and `seed`. Each range has random numbers of its own.

    At its `edge` every shift has its full size, in a random direction.
    """

    def __init__(self, views: Views, seed: int, edge: bool = False):
        self.views, self.seed, self._edge = views, seed, edge
        self._poses: dict[Any, Any] = {}
        self._patterns: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self.offset = self.draw("camera_position", 3, direction=True)  # metres [3]
        self.turn = self.draw("camera_angle", 2, direction=True)  # degrees [2]: azimuth, elevation
        self.zoom = 1 + float(self.draw("camera_distance", 1)[0])
        self.light = (1 + self.draw("light", 1)) * (1 + self.draw("light_colour", 3))  # factor of each colour [3]
        self.light_turn = np.radians(self.draw("light_direction", 2, direction=True))  # about x and y [2]
        self.contrast = 1 + float(self.draw("contrast", 1)[0])
        self.brightness = float(self.draw("brightness", 1)[0]) + 128 * (1 - self.contrast)  # of black
        self.noise = self._share("noise")
        self.dropped = self._share("dropped_frames")
        self.delayed_frames = self._count("delayed_frames")
        self.delayed_actions = self._count("delayed_actions")

    def generator(self, name: str) -> np.random.Generator:
        """Return new random numbers of a range."""
        return np.random.default_rng((self.seed, list(STRENGTHS).index(name)))

    def draw(self, name: str, size: int | tuple[int, int], direction: bool = False) -> np.ndarray:
        """Draw shifts of a range, uniform in [-range, range]; at the edge +-range, or a vector of that length."""
        limit = getattr(self.views, name)
        if not limit:
            return np.zeros(size)
        drawn = self.generator(name).uniform(-1, 1, size)
        if self._edge:
            drawn = drawn / np.linalg.norm(drawn) if direction else np.sign(drawn)
        return limit * drawn

    def _share(self, name: str) -> float:
        """Draw from 0 up to a range; at the edge the range."""
        limit = getattr(self.views, name)
        return float(limit * self.generator(name).uniform()) if limit and not self._edge else float(limit)

    def _count(self, name: str) -> int:
        """Draw an integer from 0 up to a range, which is included; at the edge the range."""
        limit = getattr(self.views, name)
        return int(self.generator(name).integers(limit + 1)) if limit and not self._edge else limit

    def pose(self, camera: Any) -> Any:
        """Return a free `Camera` as it stands in this episode; one of the model's own is moved in the model."""
        if camera.name:
            return camera
        if camera not in self._poses:
            self._poses[camera] = replace(
                camera,
                lookat=tuple(map(float, np.add(camera.lookat, self.offset))),
                azimuth=camera.azimuth + float(self.turn[0]),
                elevation=camera.elevation + float(self.turn[1]),
                distance=camera.distance * self.zoom,
            )
        return self._poses[camera]

    def patterns(self, geoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the pattern of each geom: its number in `PATTERNS`, its contrast, and a number in `PATTERN_SIZES`, [geoms]."""
        if self._patterns is None:
            random, limit = self.generator("texture"), self.views.texture
            contrast = np.full(geoms, limit) if self._edge else random.uniform(0, limit, geoms)
            looks, sizes = (random.integers(len(names), size=geoms) for names in (PATTERNS, PATTERN_SIZES))
            self._patterns = looks, contrast, sizes
        return self._patterns


def find_views(reference: str) -> Views:
    """Return the views that a reference names: `none`, `small`, `large`, or the path of a TOML file of ranges.

    The file has `range = number` for fields of `Views`, and may name one of the others as `base`, from which it differs.
    Raises `BadSetting` if there are no such views, or if a range is wrong.
    """
    if reference in VIEWS:
        return VIEWS[reference]
    if not reference.endswith(".toml"):
        raise BadSetting(f"views {reference!r}: {', '.join(VIEWS)} or the path of a .toml file is needed")
    check_name("views", views_name(reference))
    try:
        content = tomllib.loads(_found(reference).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSetting(f"views {reference}: {error.strerror if isinstance(error, OSError) else error}") from None
    base = content.pop("base", "none")
    try:
        if base not in [*VIEWS]:  # it may be anything
            raise BadInput(f"base {base!r}: one of {', '.join(VIEWS)} is needed")
        _check_ranges(content)
    except BadInput as error:
        raise BadSetting(f"views {reference}: {error}") from None
    found = replace(VIEWS[base], **content)
    if found == Views():
        raise BadSetting(f"views {reference}: nothing varies in it; none is the name of such views")
    return found


def whole_reference(reference: str) -> str:
    """Return a reference that names the same views in any folder: of a file in the repository its path in there."""
    return reference if reference in VIEWS else os.path.abspath(_found(reference)).removeprefix(f"{ROOT}{os.sep}")


def _found(reference: str) -> Path:
    """Return the file of a reference, which counts from the current folder, or else from the repository."""
    path = os.path.expanduser(reference)
    return Path(path) if os.path.exists(path) else ROOT / path


def views_name(reference: str) -> str:
    """Return the name of views for names of runs and datasets: of a file its own, without the folder and `.toml`."""
    return Path(reference).name.removesuffix(".toml")


def _check_ranges(content: dict[str, Any]) -> None:
    known = {field.name: field.type for field in fields(Views)}
    for name, value in content.items():
        if name not in known:
            raise BadInput(f"{name} is unknown: base, {', '.join(known)} are possible")
        whole = known[name] is int
        if type(value) is not int and (whole or type(value) is not float):
            raise BadInput(f"{name} is {value!r}: {'an integer' if whole else 'a number'} is needed")
        most = _MOST_STEPS if whole else _MOST
        if not 0 <= value <= most:
            raise BadInput(f"{name} is {value}: a number from 0 to {most} is needed")
        if name in _BELOW_ONE and value >= 1:
            raise BadInput(f"{name} is {value}: a share below 1 is needed")
