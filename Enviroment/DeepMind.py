"""Importing this registers DeepMind Control's tasks with Gymnasium, as `dm_control/<domain>-<task>-v0`, by shimmy."""

import mujoco
from dm_control.mujoco.wrapper.mjbindings import sizes

# dm_control 1.0.50 lists fields of MuJoCo's structures that MuJoCo 4 no longer has, and stops at the first.
for _name, _struct in (("mjmodel", mujoco.MjModel), ("mjdata", mujoco.MjData)):
    for _field in [field for field in sizes.array_sizes[_name] if not hasattr(_struct, field)]:
        del sizes.array_sizes[_name][_field]

import shimmy  # noqa: E402, F401, which imports dm_control's engine
