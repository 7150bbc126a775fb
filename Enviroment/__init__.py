"""Tasks and their simulations."""

import os

import Common  # noqa: F401, which settles how threads wait before PyTorch is loaded
from Enviroment.GL import find_gl_backend

if "MUJOCO_GL" in os.environ:
    find_gl_backend()  # MuJoCo cannot even be imported where it is wrong
