"""What renders here, or why nothing does."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

PROGRAM = """
from Enviroment.GL import choose_gl_backend
try:
    choose_gl_backend()
except ValueError as error:
    print(error)
import mujoco
"""


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (
            {"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "99"},
            "MUJOCO_EGL_DEVICE_ID environment variable must be an int",
        ),
        ({"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": ""}, "egl with MUJOCO_EGL_DEVICE_ID='': ValueError: invalid"),
        ({"MUJOCO_GL": "glfw", "DISPLAY": ""}, "a valid OpenGL context has not been created"),
        ({"MUJOCO_GL": "never"}, "MUJOCO_GL=never cannot render frames: egl, osmesa, glfw, cgl or no value is needed"),
    ],
)
def test_without_a_gl_backend_one_line_has_mujocos_own_reason_and_mujoco_can_be_imported(environment, reason):
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=ROOT)
    assert (result.returncode, result.stdout.count("\n")) == (0, 1), result.stderr
    assert reason in result.stdout
    assert "install" not in result.stdout


@pytest.mark.parametrize(
    ("needed", "there", "status", "said"),
    [
        ("libegl1", ["libegl1"], 0, ""),
        ("libosmesa6", ["libegl1", "libosmesa6"], 0, ""),
        ("libosmesa6", ["libegl1"], 1, "still nothing renders: no libosmesa6"),
        ("libegl1", [], 1, "apt-get cannot install"),
    ],
)
def test_set_up_installs_egl_and_says_what_it_cannot(needed, there, status, said, tmp_path):
    """`apt-get` knows some packages and installs all or none of those that it is asked for, and Python needs one."""
    known = " ".join(["libgl1", "libglib2.0-0", *there])
    programs = {
        "apt-get": f"""
            [ "$1" = update ] && exit 0
            for word; do case "$word" in lib*) case " {known} " in *" $word "*) ;; *) exit 100 ;; esac ;; esac; done
            for word; do case "$word" in lib*) touch "{tmp_path}/$word" ;; esac; done""",
        "python": f'[ -f "{tmp_path}/{needed}" ] || {{ echo no {needed}; exit 1; }}',
        "id": "echo 0",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["sh", ROOT / "setup_gl.sh", tmp_path / "python"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == status, run.stderr
    assert said in run.stderr
    assert bool(said) == bool(run.stderr)
