"""`Viewed`: an environment each of whose episodes has a `View` of its own."""

import functools
import operator
from collections import deque
from typing import Any

import cv2
import gymnasium as gym
import mujoco
import numpy as np

from Enviroment.Snapshot import arrays, simulation
from Enviroment.Views import STRENGTHS, View, Views

_PARTS = ("ambient", "diffuse", "specular")
_HEADLIGHT = tuple(f"vis.headlight.{part}" for part in _PARTS)
_LIGHTS = (*(f"light_{part}" for part in _PARTS), *_HEADLIGHT)
_CAMERAS = ("cam_pos", "cam_pos0", "cam_poscom0", "cam_quat", "cam_mat0", "cam_fovy", "cam_intrinsic")
_COLOURS = ("geom_rgba", "site_rgba", "mat_rgba")
_PHYSICS = ("body_mass", "body_inertia", "geom_friction", "dof_damping", "dof_dampingpoly")
_SHIFTED = (*_LIGHTS, "light_dir", "light_dir0", *_CAMERAS, *_COLOURS, *_PHYSICS)
_DEFAULT_COLOUR = np.array((0.5, 0.5, 0.5, 1.0))  # of a geom or a site with a material, it means the material's
_NORMALS = 1 << 20


class Viewed(gym.Wrapper):
    """Draws a `View` for each episode, shifts the model by it, and delays actions; `sense` alters rendered frames.

    The seed of a reset is the view's seed. The views of resets without a seed follow from the last one that was given, by a
    generator of this wrapper's own: the environment's random numbers are as without views.
    """

    def __init__(self, env: gym.Env, views: Views, edge: bool = False):
        super().__init__(env)
        self._views, self._edge = views, edge
        self._seeds = np.random.default_rng()
        self._own: dict[str, np.ndarray] = {}  # arrays of the model as the environment has them
        self._scratch: mujoco.MjData | None = None
        self._begin(0)

    def show(self, views: Views) -> None:
        """Draw the views of the episodes that begin from now on from these."""
        self._views = views

    def _begin(self, seed: int) -> None:
        self.view = View(self._views, seed, self._edge)
        self._sensor = np.random.default_rng((seed, len(STRENGTHS)))  # of noise and dropped frames
        space: Any = self.env.action_space
        none = np.clip(0, space.low, space.high).astype(space.dtype)
        self._actions = deque([none] * self.view.delayed_actions)
        self._true: dict[str, deque[np.ndarray]] = {}  # the latest rendered frames by camera, where frames come late
        self._delivered: dict[str, np.ndarray] = {}  # the latest frame by camera, where frames are dropped

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode with the view of `seed`, or with the next one."""
        if seed is not None:
            self._seeds = np.random.default_rng((seed, len(STRENGTHS) + 1))
        self._put(self._own)  # environments may set colours at a reset, which are shifted again
        result = self.env.reset(seed=seed, options=options)
        self._begin(int(self._seeds.integers(2**31)) if seed is None else seed)
        self._shift()
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step with the action, or with the one that is due; the first ones are zeros, clipped to the bounds."""
        if self.view.delayed_actions:
            self._actions.append(np.array(action))
            action = self._actions.popleft()
        return self.env.step(action)

    def sense(self, camera: str, frame: np.ndarray, depth: bool = False) -> None:
        """Turn a frame as rendered, uint8 [..., rows, columns], into what a camera delivers, in place.

        It is to be called once for each camera after every step and reset. Frames of `depth` have noise, delays and drops,
        but neither brightness nor contrast.
        """
        view = self.view
        if view.delayed_frames:
            true = self._true.setdefault(camera, deque(maxlen=view.delayed_frames + 1))
            true.append(frame.copy())
            frame[...] = true[0]
        gain, offset = (1.0, 0.0) if depth else (view.contrast, 128 * (1 - view.contrast) + view.brightness)
        if view.noise or gain != 1 or offset:
            self._alter(frame, gain, offset)
        if view.dropped:
            if camera in self._delivered and self._sensor.random() < view.dropped:
                frame[...] = self._delivered[camera]
            self._delivered[camera] = frame.copy()

    def _alter(self, frame: np.ndarray, gain: float, offset: float) -> None:
        seen, noise = frame.reshape(-1, frame.shape[-1]), None
        if self.view.noise:
            start = self._sensor.integers(_NORMALS)
            noise = _normals(frame.size)[start : start + frame.size].reshape(seen.shape)
        other = seen if noise is None else noise
        frame[...] = cv2.addWeighted(seen, gain, other, self.view.noise, offset, dtype=cv2.CV_8U).reshape(frame.shape)

    def _model(self) -> mujoco.MjModel:
        return simulation(self.env)[0]  # type: ignore[index]

    def _put(self, values: dict[str, Any]) -> None:
        """Set arrays of the model by name."""
        for name, value in values.items():
            operator.attrgetter(name)(self._model())[...] = value

    def _shift(self) -> None:
        """Shift the model, which has the environment's own values, by the episode's view."""
        model, data = simulation(self.env)  # type: ignore[misc]
        views = self._views
        names = set(_SHIFTED) | (arrays(model).keys() if views.mass else set())
        before = {name: operator.attrgetter(name)(model).copy() for name in names}
        shift_lights(model, self.view)
        shift_cameras(model, self.view)
        shift_colours(model, self.view)
        if views.mass:
            self._scratch = self._scratch or mujoco.MjData(model)  # or the environment's would lose its state
        if views.mass or views.friction or views.damping:
            shift_physics(model, self.view, self._scratch)
            mujoco.mj_forward(model, data)
        mujoco.mj_camlight(model, data)
        self._own = {
            n: value for n, value in before.items() if not np.array_equal(value, operator.attrgetter(n)(model))
        }

    def view_state(self) -> dict[str, Any]:
        """Return what `restore_view` needs beside the model's arrays, as plain values and arrays."""
        return {
            "seed": self.view.seed,
            "seeds": self._seeds.bit_generator.state,
            "sensor": self._sensor.bit_generator.state,
            "own": self._own,
            "headlight": {name: operator.attrgetter(name)(self._model()) for name in _HEADLIGHT},
            "actions": list(self._actions),
            "true": {camera: list(frames) for camera, frames in self._true.items()},
            "delivered": self._delivered,
        }

    def restore_view(self, state: dict[str, Any]) -> None:
        """Continue from `view_state`, which was JSON in between; the model's arrays are as they were."""
        self._begin(state["seed"])
        self._seeds.bit_generator.state, self._sensor.bit_generator.state = state["seeds"], state["sensor"]
        self._own = {name: np.array(value) for name, value in state["own"].items()}
        self._put(state["headlight"])
        self._actions = deque(np.array(action, self.env.action_space.dtype) for action in state["actions"])
        for camera, frames in state["true"].items():
            images = (np.array(frame, np.uint8) for frame in frames)
            self._true[camera] = deque(images, maxlen=self.view.delayed_frames + 1)
        self._delivered = {camera: np.array(frame, np.uint8) for camera, frame in state["delivered"].items()}


@functools.cache
def _normals(size: int) -> np.ndarray:
    """Return normal numbers, of which any `size` in a row are a frame's noise: drawing them anew takes ten times as long."""
    return np.random.default_rng(0).standard_normal(_NORMALS + size, np.float32)


def _rotation(about_x: float, about_y: float) -> np.ndarray:
    """Return the rotation [3, 3] about x, then about y, by angles in radians."""
    (sx, sy), (cx, cy) = np.sin((about_x, about_y)), np.cos((about_x, about_y))
    return np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])


def shift_lights(model: mujoco.MjModel, view: View) -> None:
    """Shift strength, colour and direction of all lights, the headlight's among them."""
    for name in _LIGHTS:
        light = operator.attrgetter(name)(model)
        light *= view.light
    for directions in (model.light_dir, model.light_dir0) if view.light_turn.any() else ():
        directions[...] = directions @ _rotation(*view.light_turn).T


def shift_cameras(model: mujoco.MjModel, view: View) -> None:
    """Shift the model's own cameras: their place, where they look, and their field of view."""
    if not model.ncam:
        return
    for places in (model.cam_pos, model.cam_pos0, model.cam_poscom0):
        places += view.offset
    model.cam_fovy *= view.zoom
    model.cam_intrinsic[:, :2] /= view.zoom  # focal lengths, of cameras that have these
    if view.turn.any():
        azimuth, elevation = np.radians(view.turn)
        turn, turned = _rotation(elevation, azimuth), np.empty(4)
        own = np.empty(4)
        mujoco.mju_mat2Quat(own, turn.reshape(-1))
        model.cam_mat0[...] = (model.cam_mat0.reshape(-1, 3, 3) @ turn).reshape(-1, 9)
        for quaternion in model.cam_quat:
            mujoco.mju_mulQuat(turned, quaternion, own)
            quaternion[...] = turned


def shift_colours(model: mujoco.MjModel, view: View) -> None:
    """Shift the colour of every geom, site and material."""
    if not view.views.colour:
        return
    counts = model.ngeom, model.nsite, model.nmat
    factors = np.split(1 + view.draw("colour", (sum(counts), 3)), np.cumsum(counts)[:-1])
    materials = model.geom_matid, model.site_matid, np.full(model.nmat, -1)
    for name, factor, material in zip(_COLOURS, factors, materials):
        colours = getattr(model, name)
        shown = (material < 0) | (colours != _DEFAULT_COLOUR).any(1)
        colours[shown, :3] = (colours[shown, :3] * factor[shown]).clip(0, 1)


def shift_physics(model: mujoco.MjModel, view: View, scratch: mujoco.MjData | None) -> None:
    """Shift masses, friction and damping; `scratch` is needed for masses, and is overwritten."""
    mass = 1 + view.draw("mass", model.nbody)
    model.body_mass *= mass
    model.body_inertia *= mass[:, None]
    model.geom_friction *= 1 + view.draw("friction", model.ngeom)[:, None]
    damping = 1 + view.draw("damping", model.njnt)[model.dof_jntid]
    model.dof_damping *= damping
    model.dof_dampingpoly *= damping[:, None]
    if scratch is not None:
        mujoco.mj_setConst(model, scratch)
