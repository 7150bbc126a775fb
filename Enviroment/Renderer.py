"""Renders MuJoCo scenes as small frames in gray, colour or depth, fast, on any headless machine."""

import copy
import importlib
import os
import weakref
import zlib
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

# The software rasterizer stays on its caller's thread: workers render in parallel already.
os.environ.setdefault("LP_NUM_THREADS", "0")

import cv2
import mujoco
import numpy as np

from Enviroment.GL import choose_gl_backend
from Enviroment.Patterns import Patterns
from Enviroment.Task import Camera
from Enviroment.Views import View

Quality = Literal["fast", "full"]
QUALITIES = get_args(Quality)
# `fast` sets these values of the model's `vis.quality`, and turns off these flags of the scene.
FAST = {"shadowsize": 0, "offsamples": 0, "numslices": 10, "numstacks": 6, "numquads": 1}
PLANE_CELLS = 20  # and a plane's half size has at most so many cells
FAST_OFF = tuple(getattr(mujoco.mjtRndFlag, f"mjRND_{flag}") for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"))


class _Drawing:
    """OpenGL's and MuJoCo's side of drawing the models of one kind: geometry and textures that lie on the graphics card."""

    current: "_Drawing | None" = None  # whose OpenGL context this process has made current

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int], quality: Quality):
        model = copy.copy(model)
        if quality == "fast":
            for name, value in FAST.items():
                setattr(model.vis.quality, name, value)
            # A plane is a grid: Hopper's floor of 40 m has a vertex in every 12 cm.
            planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE.value
            sizes = model.geom_size[planes]
            model.geom_size[planes, 2] = np.maximum(sizes[:, 2], sizes[:, :2].max(1, initial=0) / PLANE_CELLS)
        rows, columns = size
        model.vis.global_.offwidth, model.vis.global_.offheight = columns, rows
        self._gl = importlib.import_module(f"mujoco.{choose_gl_backend()}").GLContext(columns, rows)
        self.make_current()
        self.scene = mujoco.MjvScene(model, maxgeom=1000)
        if quality == "fast":
            self.scene.flags[list(map(int, FAST_OFF))] = 0
        self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self.context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value  # the way in which it is most precise
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context)
        self.patterns: Patterns | None = None

    def make_current(self) -> None:
        if _Drawing.current is not self:
            self._gl.make_current()
            _Drawing.current = self

    def close(self) -> None:
        self.make_current()
        if self.patterns is not None:
            self.patterns.close()
        self.context.free()
        self._gl.free()
        _Drawing.current = None


def _kind(model: mujoco.MjModel) -> int:
    """Return a number that models share if they differ in nothing that lies on the graphics card."""
    uploaded = (model.mesh_vert, model.mesh_face, model.hfield_data, model.tex_data, model.geom_type, model.geom_dataid)
    number = zlib.crc32(np.array([model.nmesh, model.ntex, model.nmat, model.ngeom, model.nskin]).tobytes())
    for values in uploaded:
        number = zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, number)
    return number


def floor_period(model: mujoco.MjModel, geom: int) -> np.ndarray | None:
    """Return after how many metres [2] the texture of a level plane repeats; None for any other geom.

    Infinite planes, which MuJoCo itself moves, are none.
    """
    level = model.geom_bodyid[geom] == 0 and np.array_equal(model.geom_quat[geom], (1, 0, 0, 0))
    size, material = model.geom_size[geom, :2], model.geom_matid[geom]
    if model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_PLANE or not (level and size.all()):
        return None
    if material < 0:
        return np.ones(2)
    if model.mat_texuniform[material]:
        return 2 / model.mat_texrepeat[material]  # two of its units, whatever a unit of a plane is
    return 2 * size / model.mat_texrepeat[material]


def _extend_floors(model: mujoco.MjModel, scene: mujoco.MjvScene, place: np.ndarray) -> None:
    """Move the planes of a scene below a place, by whole periods of their texture, so that no robot walks off a drawn floor.

    MuJoCo's physics have no end of a plane, but its pictures do.
    """
    for geom in scene.geoms[: scene.ngeom]:
        if geom.type != mujoco.mjtGeom.mjGEOM_PLANE or geom.objtype != mujoco.mjtObj.mjOBJ_GEOM:
            continue
        period = floor_period(model, geom.objid)
        if period is not None:
            own = model.geom_pos[geom.objid, :2]
            geom.pos[:2] = own + np.round((place[:2] - own) / period) * period


class _Drawings:
    """The drawings of all kinds of models, each as large as the largest of some cameras' frames, which share them."""

    def __init__(self, cameras: Iterable[Camera], quality: Quality):
        choose_gl_backend()
        rows, columns = zip(*(camera.size for camera in cameras))
        self._size, self._quality = (max(rows), max(columns)), quality
        self._drawings: dict[int, _Drawing] = {}
        self._kinds: weakref.WeakKeyDictionary[mujoco.MjModel, int] = weakref.WeakKeyDictionary()

    def of(self, model: mujoco.MjModel) -> _Drawing:
        kind = self._kinds.get(model)
        if kind is None:
            kind = self._kinds[model] = _kind(model)
        if kind not in self._drawings:
            self._drawings[kind] = _Drawing(model, self._size, self._quality)
        return self._drawings[kind]

    def close(self) -> None:
        while self._drawings:
            self._drawings.popitem()[1].close()


def renderers(cameras: Mapping[str, Camera], quality: Quality = "fast") -> dict[str, "FrameRenderer"]:
    """Return a renderer for each camera, by its name; they share what lies on the graphics card."""
    drawings = _Drawings(cameras.values(), quality)
    return {name: FrameRenderer(camera, quality, drawings) for name, camera in cameras.items()}


class FrameRenderer:
    """Renders the crop of a camera's view as its frames, of any models, each with its own look.

    The crop is the camera's frustum, so that only pixels of the frame are drawn. `fast` turns off effects that cost a
    software rasterizer most and help a policy least: shadows, reflection, sky, haze, multisampling, and fine tessellation.
    `full` is MuJoCo's own quality. `drawings` are those of other renderers, to be shared. Raises `NoGLBackend` on a machine
    without a working OpenGL.
    """

    def __init__(self, camera: Camera, quality: Quality = "fast", drawings: _Drawings | None = None):
        self._own, self._drawings = camera, drawings or _Drawings([camera], quality)
        self.shape, self.shows_depth = camera.shape, camera.frames == "depth"
        rows, columns = camera.size
        self._viewport = mujoco.MjrRect(0, 0, columns, rows)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED if camera.name else mujoco.mjtCamera.mjCAMERA_FREE
        self._posed: Camera | None = None  # the pose that `_camera` has
        self._pixels = np.empty((rows, columns, 3), np.uint8)
        self._depths = np.empty((rows, columns), np.float32)

    def _aim(self, model: mujoco.MjModel, data: mujoco.MjData, view: View | None) -> np.ndarray | None:
        """Point the camera, and return the position of the body that it moves with, if there is one."""
        body, pose = 0, self._own if view is None else view.pose(self._own)
        if pose is not self._posed:
            self._posed = pose
            self._camera.lookat[:] = pose.lookat
            for name in ("distance", "azimuth", "elevation"):
                setattr(self._camera, name, getattr(pose, name))
        if pose.name:
            self._camera.fixedcamid = model.camera(pose.name).id
            body = model.cam_bodyid[self._camera.fixedcamid]
        if pose.follow:
            x, y, z = pose.lookat
            body = model.body(pose.follow).id
            self._camera.lookat[:] = data.xpos[body, 0] + x, data.xpos[body, 1] + y, z
        return data.xpos[body] if body else None

    def _set_frustum(self, scene: mujoco.MjvScene) -> None:
        view = self._own.view
        (top, bottom), (left, right) = self._own.rows, self._own.columns
        for eye in scene.camera:
            half = eye.frustum_top  # the square view spans [-half, half] both ways
            eye.frustum_top = half * (1 - 2 * top / view)
            eye.frustum_bottom = half * (1 - 2 * bottom / view)
            eye.frustum_center = half * ((left + right) / view - 1)
            eye.frustum_width = half * (right - left) / view  # MuJoCo reads it as half the width

    def _draw(self, model: mujoco.MjModel, data: mujoco.MjData, view: View | None) -> _Drawing:
        """Draw the scene, in an episode's `view` if there is one, on the graphics card."""
        drawing = self._drawings.of(model)
        drawing.make_current()
        followed = self._aim(model, data, view)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, drawing.scene)
        if followed is not None:
            _extend_floors(model, drawing.scene, followed)
        if view is not None and view.views.texture:
            drawing.patterns = drawing.patterns or Patterns(drawing.context, model.nmat)
            drawing.patterns.lay(drawing.scene, view, model.ngeom)
        self._set_frustum(drawing.scene)
        mujoco.mjr_render(self._viewport, drawing.scene, drawing.context)
        return drawing

    def rgb(self, model: mujoco.MjModel, data: mujoco.MjData, view: View | None = None) -> np.ndarray:
        """Return the scene as uint8 [rows, columns, 3], top row first, in an episode's `view`.

        The next call overwrites it.
        """
        drawing = self._draw(model, data, view)
        mujoco.mjr_readPixels(self._pixels, None, self._viewport, drawing.context)
        return self._pixels[::-1]  # OpenGL's rows run bottom-up

    def depth(self, model: mujoco.MjModel, data: mujoco.MjData, view: View | None = None) -> np.ndarray:
        """Return the distances along the line of sight in metres, float32 [rows, columns], as `rgb` returns colours."""
        drawing = self._draw(model, data, view)
        mujoco.mjr_readPixels(None, self._depths, self._viewport, drawing.context)
        eye = drawing.scene.camera[0]
        # The buffer holds 1 at the near plane, 0 at the far one, and is linear in 1 / distance.
        self._depths *= 1 / eye.frustum_near - 1 / eye.frustum_far
        self._depths += 1 / eye.frustum_far
        return np.reciprocal(self._depths, out=self._depths)[::-1]

    def frame(
        self, model: mujoco.MjModel, data: mujoco.MjData, out: np.ndarray | None = None, view: View | None = None
    ) -> np.ndarray:
        """Return the camera's frame, written into `out` if it is given.

        Gray is luma (ITU-R BT.601) uint8 [rows, columns], `rgb` uint8 [3, rows, columns], `depth` uint8 [rows, columns] over
        the camera's range: 0 at its nearer end or before, 255 at its farther end or beyond.
        """
        if self._own.frames == "gray":
            return cv2.cvtColor(self.rgb(model, data, view), cv2.COLOR_RGB2GRAY, dst=out)
        if out is None:
            out = np.empty(self.shape, np.uint8)
        if self._own.frames == "rgb":
            out[:] = self.rgb(model, data, view).transpose(2, 0, 1)
        else:
            near, far = self._own.depths
            levels = (self.depth(model, data, view) - near) * (255 / (far - near))
            out[:] = np.rint(levels, out=levels).clip(0, 255, out=levels)
        return out

    def bodies(self, model: mujoco.MjModel, data: mujoco.MjData) -> dict[int, int]:
        """Return how many pixels of the frame show each body that can be seen, by the body's number. Meant for `fast`."""
        scene = self._drawings.of(model).scene
        segmented = mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR
        scene.flags[list(map(int, segmented))] = 1
        try:
            # 1 + the geom's number in the scene, or 0.
            pixels = self.rgb(model, data).astype(np.int64) @ (1, 256, 65536)
        finally:
            scene.flags[list(map(int, segmented))] = 0
        owner = {
            geom.segid + 1: model.geom_bodyid[geom.objid]
            for geom in scene.geoms[: scene.ngeom]
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM
        }
        counts: dict[int, int] = {}
        for number, count in zip(*np.unique(pixels, return_counts=True)):
            if number in owner:
                counts[int(owner[number])] = counts.get(int(owner[number]), 0) + int(count)
        return counts

    def close(self) -> None:
        """Free the GL contexts, those shared as well; closing twice is harmless."""
        self._drawings.close()
