"""Chooses the OpenGL back-end before MuJoCo is imported: that import fails where the choice is wrong."""

import ctypes.util
import functools
import os
import subprocess
import sys

from Common.Errors import BadInput

BACKENDS = ("egl", "osmesa", "glfw", "cgl")
DEVICE = "MUJOCO_EGL_DEVICE_ID"
TRIED = "MUJOCO_GL_TRIED"  # tells processes that this one starts that the back-end works
PACKAGES = "libegl1 libgl1 libglib2.0-0"  # as in setup_gl.sh; newer Mesa has no OSMesa, and EGL alone suffices
_PROBE = """
import importlib, sys
try:
    import mujoco
    context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(8, 8)
    context.make_current()
    mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
"""


class NoGLBackend(BadInput):
    """No OpenGL back-end works on this machine. The message has MuJoCo's reasons."""


def choose_gl_backend() -> str:
    """Return the GL back-end to render with, of `find_gl_backend`; raises `NoGLBackend` if there is none."""
    backend, reason = find_gl_backend()
    if not backend:
        raise NoGLBackend(reason)
    return backend


@functools.cache
def find_gl_backend() -> tuple[str, str]:
    """Return the GL back-end to render with, and set `MUJOCO_GL` to it for this process and those it starts.

    `MUJOCO_GL` decides if it is set. Otherwise it is the first that gives a context, EGL or OSMesa (on macOS CGL, on
    Windows GLFW). Each is tried in a process of its own, because PyOpenGL cannot change its platform once it is loaded and
    a broken driver may crash. If none gives a context, or if `MUJOCO_GL` names none of them, the back-end is empty, the
    second text says why, and MuJoCo can be imported but not render.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen and os.environ.get(TRIED) == f"{chosen} {os.environ.get(DEVICE)}":
        return chosen, ""
    candidates = (chosen,) if chosen else {"darwin": ("cgl",), "win32": ("glfw",)}.get(sys.platform, ("egl", "osmesa"))
    reasons: list[str] = []
    for backend in candidates if {*candidates} <= {*BACKENDS} else ():
        environment = {**os.environ, "MUJOCO_GL": backend}
        if backend in ("egl", "osmesa"):
            environment["PYOPENGL_PLATFORM"] = backend
        reason = _failure(backend, environment)
        if not reason:
            if reasons and DEVICE in os.environ:
                print(f"warning: {backend} renders: {reasons[0]}", file=sys.stderr)
            os.environ.update(environment | {TRIED: f"{backend} {environment.get(DEVICE)}"})
            return backend, ""
        reasons.append(reason)
    os.environ["MUJOCO_GL"] = "disable"
    if not reasons:
        return "", f"MUJOCO_GL={chosen} cannot render frames: {', '.join(BACKENDS)} or no value is needed"
    if "egl" in candidates and not all(map(ctypes.util.find_library, ("EGL", "GL"))):
        reasons.append(f"install the Debian packages {PACKAGES}")
    elif chosen:
        reasons.append("without MUJOCO_GL whatever works here is chosen")
    return "", f"no GL back-end to render frames with: {'; '.join(reasons)}"


def _failure(backend: str, environment: dict[str, str]) -> str:
    """Return why a back-end gives no context, in MuJoCo's words and in those of the driver; empty if it does."""
    command = [sys.executable, "-c", _PROBE, backend]
    probe = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if probe.returncode == 0:
        return ""
    said = probe.stdout.split("\n")[0] or f"it ends with status {probe.returncode}"
    drivers = dict.fromkeys(line for line in probe.stderr.splitlines() if line.startswith(("libEGL", "MESA")))
    device = f" with {DEVICE}={environment[DEVICE]!r}" if backend == "egl" and DEVICE in environment else ""
    return f"{backend}{device}: {' '.join([said, *drivers])}"
