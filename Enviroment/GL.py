"""Chooses the OpenGL back-end before MuJoCo is imported: that import fails where the choice is wrong."""

import functools
import os
import subprocess
import sys

from Common.Errors import BadInput

BACKENDS = ("egl", "osmesa", "glfw", "cgl")
_PROBE = """
import importlib, mujoco, sys
context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(8, 8)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
"""


class NoGLBackend(BadInput):
    """No OpenGL back-end works on this machine. The message names the packages to install."""


@functools.cache
def choose_gl_backend() -> str:
    """Return the GL back-end to render with, and set `MUJOCO_GL` to it for this process and those it starts.

    `MUJOCO_GL` decides if it is set. Otherwise it is the first that gives a context, EGL or OSMesa (on macOS CGL, on
    Windows GLFW). Each is tried in a process of its own, because PyOpenGL cannot change its platform once it is loaded and
    a broken driver may crash. Raises `NoGLBackend` if none gives a context, or if `MUJOCO_GL` names none of them.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen and chosen not in BACKENDS:
        raise NoGLBackend(f"MUJOCO_GL={chosen} cannot render frames: {', '.join(BACKENDS)} or no value is needed")
    candidates = (chosen,) if chosen else {"darwin": ("cgl",), "win32": ("glfw",)}.get(sys.platform, ("egl", "osmesa"))
    for backend in candidates:
        environment = {**os.environ, "MUJOCO_GL": backend}
        if backend in ("egl", "osmesa"):
            environment["PYOPENGL_PLATFORM"] = backend
        probe = subprocess.run([sys.executable, "-c", _PROBE, backend], env=environment, capture_output=True)
        if probe.returncode == 0:
            os.environ.update(environment)
            return backend
    wanted = f"MUJOCO_GL={chosen}" if chosen else " or ".join(candidates)
    packages = "install the Debian packages libegl1 libgl1 libosmesa6 libglib2.0-0"
    raise NoGLBackend(f"no GL back-end to render frames with ({wanted} gives no context): {packages}")
