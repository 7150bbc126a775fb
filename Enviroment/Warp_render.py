"""Renders the cameras of a task in N worlds at once, by MuJoCo Warp's ray caster, as frames on the device."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp

from Enviroment.Renderer import floor_period
from Enviroment.Task import Camera
from Enviroment.Warp_kernels import depth_frames, gray_frames, rgb_frames

HEADLIGHT = "the headlight"  # the light and the cameras that `with_cameras` adds to a model
_EYE = "the camera "


def initialize() -> None:
    """Initialize Warp without its words: on a machine without a GPU its library writes a warning."""
    wp.config.log_level = wp.LOG_ERROR
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as stack:
        if not torch.cuda.is_available():
            kept = os.dup(2)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
            os.dup2(nowhere.fileno(), 2)
        wp.init()


def with_cameras(path: str, own: mujoco.MjModel, names: Sequence[str]) -> mujoco.MjModel:
    """Return an environment's model, from the file at `path`, with a camera for each name and a light for the headlight.

    MuJoCo Warp's headlight is the same in all worlds; a light can have another strength in each. The arrays that the
    environment has changed since it read the file are those of its `own` model.
    """
    spec = mujoco.MjSpec.from_file(path)
    for name in names:
        spec.worldbody.add_camera(name=_EYE + name)
    head, directional = own.vis.headlight, mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    colours = {part: getattr(head, part) for part in ("ambient", "diffuse", "specular")}
    spec.worldbody.add_light(name=HEADLIGHT, type=directional, active=bool(head.active), castshadow=False, **colours)
    model = spec.compile()
    for name in dir(own):
        value = getattr(own, name) if not name.startswith("_") else None
        if isinstance(value, np.ndarray) and value.shape == getattr(model, name).shape:
            getattr(model, name)[...] = value
    for field in ("timestep", "gravity", "disableflags", "iterations", "tolerance"):
        setattr(model.opt, field, getattr(own.opt, field))
    model.vis.headlight.active = 0
    # MuJoCo's renderer multiplies a highlight by the texture that it falls on; Warp would add it.
    model.mat_specular[model.mat_texid[:, mujoco.mjtTextureRole.mjTEXROLE_RGB.value] >= 0] = 0
    return model


def samples(model: mujoco.MjModel) -> int:
    """Return how many rays a pixel has along each axis: 2 where a plane has a texture, which Warp reads without a filter."""
    materials = model.geom_matid[model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE.value]
    textures = model.mat_texid[materials[materials >= 0], mujoco.mjtTextureRole.mjTEXROLE_RGB.value]
    return 2 if (textures >= 0).any() else 1


def pose(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return the place [3] of a free camera's eye, and its axes [3, 3] as columns: to the right, up and backwards."""
    (sin_a, sin_e), (cos_a, cos_e) = (f(np.radians((camera.azimuth, camera.elevation))) for f in (np.sin, np.cos))
    forward = np.array((cos_e * cos_a, cos_e * sin_a, sin_e))
    up = np.array((-sin_e * cos_a, -sin_e * sin_a, cos_e))
    return camera.lookat - camera.distance * forward, np.stack([np.cross(forward, up), up, -forward], axis=1)


def rays(camera: Camera, fovy: float, samples: int = 1) -> np.ndarray:
    """Return the unit vectors, in the camera's axes, through the pixels of its crop; `fovy` in degrees.

    They are [samples² * rows * columns, 3]: one ray for each pixel after the other, then the next one for each.
    """
    (top, bottom), (left, right) = camera.rows, camera.columns
    rows, columns = camera.size
    half = np.tan(np.radians(fovy) / 2)
    part = (np.arange(samples) + 0.5) / samples
    y = half * (1 - 2 * (top + (np.arange(rows) + part[:, None]) * (bottom - top) / rows) / camera.view)
    x = half * (2 * (left + (np.arange(columns) + part[:, None]) * (right - left) / columns) / camera.view - 1)
    through = np.stack(np.broadcast_arrays(x[:, None], y[:, None, :, None], -1.0), axis=-1).reshape(-1, 3)
    return through / np.linalg.norm(through, axis=1, keepdims=True)


class WarpRenderer:
    """Renders one camera in all worlds.

    Args:
        name, camera: as the task has it. A camera of the model's own keeps its place there.
        model: from `with_cameras`; `warp_model`, `data`: the same on the device.

    Attributes:
        frames: uint8 [N, *camera.shape], which each call overwrites.
        eye, axes: float [N, 3] and [N, 3, 3], the free camera's pose in each world, before it follows its body. Axes to the
            right and up that are longer than 1 make the picture's angle wider.
    """

    def __init__(self, name: str, camera: Camera, model: mujoco.MjModel, warp_model: Any, data: Any):
        self._camera, self._model, self._data, n = camera, warp_model, data, data.nworld
        self._number = model.camera(camera.name or _EYE + name).id
        fovy = model.cam_fovy[self._number] if camera.name else model.vis.global_.fovy
        rows, columns = camera.size
        depth = camera.frames == "depth"
        each = 1 if depth else samples(model)
        self._context = mjw.create_render_context(
            *(model, n, (columns, rows), not depth, depth, False),
            cam_active=[self._number],
            use_fast_math=False,
            samples_per_pixel=each,
        )
        self._context.ray.assign(rays(camera, float(fovy), each).astype(np.float32))
        self.frames = torch.zeros((n, *camera.shape), dtype=torch.uint8, device=wp.device_to_torch(data.qpos.device))
        self.eye, self.axes = (
            torch.from_numpy(part).to(self.frames.device, torch.float32).expand(n, *part.shape).clone()
            for part in pose(camera)
        )
        self._places, self._turns = wp.to_torch(data.cam_xpos), wp.to_torch(data.cam_xmat)
        self._lights, self._bodies = wp.to_torch(data.light_xdir), wp.to_torch(data.xpos)
        self._headlight = model.light(HEADLIGHT).id
        self._followed = model.body(camera.follow).id if camera.follow else 0
        self._floors = _Floors(model, data, self._followed)

    def aim(self) -> None:
        """Put camera, headlight and floors where they belong, as PyTorch operations."""
        if not self._camera.name:
            self._places[:, self._number] = self.eye
            if self._followed:
                self._places[:, self._number, :2] += self._bodies[:, self._followed, :2]
            self._turns[:, self._number] = self.axes
        self._lights[:, self._headlight] = -self._turns[:, self._number, :, 2]
        self._floors.put()

    def draw(self, look: Any) -> None:
        """Cast the rays and write `frames`, as Warp's launches; `look` has Warp arrays [N]: gain, offset, noise, seed."""
        mjw.refit_bvh(self._model, self._data, self._context)
        mjw.render(self._model, self._data, self._context)
        pixels = self._camera.size[0] * self._camera.size[1]
        out = wp.from_torch(self.frames)
        if self._camera.frames == "depth":
            inputs = [self._context.depth_data, *self._camera.depths, look.noise, look.seed]
            wp.launch(depth_frames, (self._data.nworld, pixels), inputs, [out])
        else:
            inputs = [self._context.rgb_data, look.gain, look.offset, look.noise, look.seed]
            wp.launch(
                gray_frames if self._camera.frames == "gray" else rgb_frames, (self._data.nworld, pixels), inputs, [out]
            )


class _Floors:
    """Level planes, moved below the body that a camera follows by whole periods of their texture, as `Renderer` does."""

    def __init__(self, model: mujoco.MjModel, data: Any, followed: int):
        found = {geom: floor_period(model, geom) for geom in range(model.ngeom)}
        periods = {geom: period for geom, period in found.items() if period is not None}
        planes = list(periods)
        device = wp.device_to_torch(data.qpos.device)
        self._planes = torch.tensor(planes, dtype=torch.int64, device=device)
        parts = np.array(model.geom_pos[planes, :2]), np.array(list(periods.values())).reshape(-1, 2)
        self._own, self._periods = (torch.from_numpy(part).to(device, torch.float32) for part in parts)
        self._places = wp.to_torch(data.geom_xpos)
        self._body = wp.to_torch(data.xpos)[:, followed, None, :2] if followed else self._own

    def put(self) -> None:
        """Put them there, or where they are in the model: another camera may have moved them."""
        steps = ((self._body - self._own) / self._periods).round()
        self._places[:, self._planes, :2] = self._own + steps * self._periods
