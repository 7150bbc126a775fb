"""`Views`: what pictures and physics may differ in from episode to episode; `View`: how one episode differs."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import mujoco
import numpy as np

from Enviroment.Task import Camera

# Three strengths of every shift, by which a student is examined. Domain randomization: Tobin et al. 2017,
# https://arxiv.org/abs/1703.06907.
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


@dataclass(frozen=True)
class Views:
    """The distribution of what may differ from episode to episode: nothing, unless it is given.

    An angle or a length is half the range of a uniform distribution around the task's own value, a share is that of its own
    value, and counts are drawn from 0 up.
    """

    camera_position: float = 0.0  # metres, along each axis
    camera_angle: float = 0.0  # degrees, of azimuth and elevation
    camera_distance: float = 0.0  # share
    light: float = 0.0  # share of every light's strength
    light_direction: float = 0.0  # degrees
    light_colour: float = 0.0  # share, of each colour
    colour: float = 0.0  # share, of each colour of every body
    texture: float = 0.0  # share of the size of every texture's pattern
    brightness: float = 0.0  # gray levels of 255
    contrast: float = 0.0  # share, around the middle gray
    noise: float = 0.0  # the largest standard deviation, in gray levels; new in every frame
    dropped_frames: float = 0.0  # the largest probability that a frame is the one before it once more
    delayed_frames: int = 0  # steps that frames come late, at most
    mass: float = 0.0  # share, of every body
    friction: float = 0.0  # share, of every body
    damping: float = 0.0  # share, of every joint
    delayed_actions: int = 0  # steps that actions come late, at most


_LISTED = ("camera_position", "camera_angle", "camera_distance", "light", "colour", "brightness", "noise")
VIEWS = {
    "none": Views(),
    "small": Views(**{name: STRENGTHS[name][0] for name in _LISTED}),
    "large": Views(**{name: STRENGTHS[name][2] for name in _LISTED}),
}


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


class View:
    """How one episode differs, wholly decided by `views` and `seed`.

    At its `edge` every shift is as large as it can be, in a random direction.
    """

    def __init__(self, views: Views, seed: int, edge: bool = False):
        self.views, self.seed, self._edge = views, seed, edge
        self._rng = np.random.default_rng(seed)
        draw = self._draw
        # In this order, whatever the ranges are, so that a range has no influence on another's draws.
        self.offset = views.camera_position * draw(3, direction=True)  # metres [3]
        self.turn = views.camera_angle * draw(2, direction=True)  # degrees [2]: azimuth, elevation
        self.zoom = 1 + views.camera_distance * draw()
        self.light = 1 + views.light * draw()
        self.light_turn = math.radians(views.light_direction) * draw(2, direction=True)  # about x and y
        self.light_colour = 1 + views.light_colour * draw(3)
        self.brightness = views.brightness * draw()
        self.contrast = 1 + views.contrast * draw()
        self.noise = views.noise * self._share()
        self.dropped = views.dropped_frames * self._share()
        self.delay = round(views.delayed_frames * self._share())
        self.action_delay = round(views.delayed_actions * self._share())
        self.sensor = np.random.default_rng((seed, 1))  # of noise and dropped frames

    def _draw(self, size: int | tuple[int, ...] = 1, direction: bool = False) -> Any:
        """Draw numbers in [-1, 1]; at the edge signs, or a vector of length 1."""
        drawn = self._rng.uniform(-1, 1, size)
        if self._edge:
            drawn = _unit(drawn) if direction else np.sign(drawn)
        return float(drawn[0]) if size == 1 else drawn

    def _share(self) -> float:
        """Draw a number in [0, 1]; at the edge 1."""
        drawn = float(self._rng.uniform())
        return 1.0 if self._edge else drawn

    def pose(self, camera: Camera) -> Camera:
        """Return a free camera as it stands in this episode."""
        x, y, z = np.add(camera.lookat, self.offset)
        return replace(
            camera,
            lookat=(x, y, z),
            azimuth=camera.azimuth + self.turn[0],
            elevation=camera.elevation + self.turn[1],
            distance=camera.distance * self.zoom,
        )

    def paint(self, model: mujoco.MjModel) -> None:
        """Change the model's lights and colours, which have to be its own before."""
        strength = self.light * self.light_colour
        headlight = model.vis.headlight
        for light in (model.light_ambient, model.light_diffuse, model.light_specular):
            light *= strength
        for light in (headlight.ambient, headlight.diffuse, headlight.specular):
            light *= strength
        for colours in (model.geom_rgba, model.mat_rgba):
            drawn = np.reshape(self._draw((len(colours), 3)), (-1, 3))
            colours[:, :3] = (colours[:, :3] * (1 + self.views.colour * drawn)).clip(0, 1)

    def sense(self, frame: np.ndarray) -> None:
        """Add brightness, contrast and noise to a frame uint8 [...], in place."""
        seen = (frame - np.float32(128)) * self.contrast + (128 + self.brightness)
        if self.noise:
            seen += self.noise * self.sensor.standard_normal(frame.shape, np.float32)
        np.rint(seen, out=seen)
        frame[...] = seen.clip(0, 255)
