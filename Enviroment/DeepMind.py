"""Importing this registers DeepMind Control's tasks with Gymnasium, as `dm_control/<domain>-<task>-v0`, by shimmy.

So it does `Repeated-v0`, each of whose steps makes several of another environment.
"""

import importlib
import warnings

import mujoco

from Enviroment import Repeated  # noqa: F401

try:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="glfw")  # it looks for a display, which is not needed
        from dm_control.mujoco.wrapper.mjbindings import sizes
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"{_error}: pip install -e '.[dmc]' brings it, and on Python 3.13 what docs/new_task.md says"
    ) from _error

# dm_control 1.0.50 lists fields of MuJoCo's structures that MuJoCo 4 no longer has, and stops at the first.
for _name, _struct in (("mjmodel", mujoco.MjModel), ("mjdata", mujoco.MjData)):
    for _field in [field for field in sizes.array_sizes[_name] if not hasattr(_struct, field)]:
        del sizes.array_sizes[_name][_field]

try:
    importlib.import_module("shimmy")  # which imports dm_control's engine
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(f"{_error}: pip install -e '.[dmc]' brings it") from _error
