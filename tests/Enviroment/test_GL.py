"""What renders here, or what to install."""

import os
import subprocess
import sys


def test_without_a_gl_backend_one_line_says_what_to_install():
    code = "from Enviroment.GL import choose_gl_backend as c\ntry: c()\nexcept ValueError as e: print(e)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "MUJOCO_GL": "glfw", "DISPLAY": ""},
    )
    assert "libegl1" in result.stdout
    assert result.stdout.count("\n") == 1
