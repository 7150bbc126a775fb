"""Renders MuJoCo scenes as small grayscale frames, fast, on any headless machine."""

import copy
import importlib
import os
from typing import Literal, get_args

# The software rasterizer stays on its caller's thread: workers render in parallel already.
os.environ.setdefault("LP_NUM_THREADS", "0")

import cv2
import mujoco
import numpy as np

from Enviroment.GL import choose_gl_backend
from Enviroment.Tasks import Camera

Quality = Literal["fast", "full"]
QUALITIES = get_args(Quality)
# `fast` sets these values of the model's `vis.quality`, and turns off these flags of the scene.
FAST = {"shadowsize": 0, "offsamples": 0, "numslices": 10, "numstacks": 6, "numquads": 1}
FAST_OFF = tuple(getattr(mujoco.mjtRndFlag, f"mjRND_{flag}") for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"))


class FrameRenderer:
    """Renders the crop of a camera's view as frames of `size` (rows, columns), from any `MjData` of one model.

    The crop is the camera's frustum, so that only pixels of the frame are drawn. `fast` turns off effects that cost a
    software rasterizer most and help a policy least: shadows, reflection, sky, haze, multisampling, and fine tessellation.
    `full` is MuJoCo's own quality. The model is copied. Raises `NoGLBackend` on a machine without a working OpenGL.
    """

    _current: "FrameRenderer | None" = None

    def __init__(self, model: mujoco.MjModel, camera: Camera, size: tuple[int, int], quality: Quality = "fast"):
        self._model = copy.copy(model)
        vis = self._model.vis
        if quality == "fast":
            for name, value in FAST.items():
                setattr(vis.quality, name, value)
        rows, columns = size
        vis.global_.offwidth, vis.global_.offheight = columns, rows

        self._gl = importlib.import_module(f"mujoco.{choose_gl_backend()}").GLContext(columns, rows)
        self._make_current()
        self._scene = mujoco.MjvScene(self._model, maxgeom=1000)
        if quality == "fast":
            self._scene.flags[list(map(int, FAST_OFF))] = 0
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._viewport = mujoco.MjrRect(0, 0, columns, rows)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.lookat[:] = camera.lookat
        for name in ("distance", "azimuth", "elevation"):
            setattr(self._camera, name, getattr(camera, name))
        self._crop = camera
        self._pixels = np.empty((rows, columns, 3), np.uint8)

    def _make_current(self) -> None:
        if FrameRenderer._current is not self:
            self._gl.make_current()
            FrameRenderer._current = self

    def _set_frustum(self) -> None:
        view = self._crop.view
        (top, bottom), (left, right) = self._crop.rows, self._crop.columns
        for eye in self._scene.camera:
            half = eye.frustum_top  # the square view spans [-half, half] both ways
            eye.frustum_top = half * (1 - 2 * top / view)
            eye.frustum_bottom = half * (1 - 2 * bottom / view)
            eye.frustum_center = half * ((left + right) / view - 1)
            eye.frustum_width = half * (right - left) / view  # MuJoCo reads it as half the width

    def rgb(self, data: mujoco.MjData) -> np.ndarray:
        """Return the scene as uint8 [rows, columns, 3], top row first. The next call overwrites it."""
        self._make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, everything, self._scene)
        self._set_frustum()
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._viewport, self._context)
        return self._pixels[::-1]  # OpenGL's rows run bottom-up

    def frame(self, data: mujoco.MjData, out: np.ndarray | None = None) -> np.ndarray:
        """Return the scene's luma (ITU-R BT.601) as uint8 [rows, columns], written into `out` if it is given."""
        return cv2.cvtColor(self.rgb(data), cv2.COLOR_RGB2GRAY, dst=out)

    def close(self) -> None:
        """Free the GL context; closing twice is harmless."""
        if self._gl is not None:
            self._make_current()
            self._context.free()
            self._gl.free()
            FrameRenderer._current = None
            self._gl = None
