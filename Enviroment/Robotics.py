"""Importing this registers Gymnasium-Robotics' tasks, such as `FetchReach-v4`, with Gymnasium."""

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np

try:
    with contextlib.redirect_stderr(io.StringIO()):  # it writes news of other environments there
        import gymnasium_robotics  # noqa: F401, which registers them
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(f"{_error}: pip install -e '.[robotics]' brings it") from _error
from gymnasium_robotics.envs.fetch.fetch_env import MujocoFetchEnv
from gymnasium_robotics.utils import mujoco_utils

# gymnasium-robotics 1.4.2 asks whether a joint's type, a number of NumPy's, is `in` a tuple of MuJoCo's enumeration. MuJoCo 4's
# is not equal to such a number in that order, so that these functions get plain numbers.
_joints = SimpleNamespace(**{name: int(member) for name, member in mujoco.mjtJoint.__members__.items()})
mujoco_utils.mujoco = SimpleNamespace(**vars(mujoco) | {"mjtJoint": _joints})
_sample_goal = MujocoFetchEnv._sample_goal


def _sample_and_show_goal(env: Any) -> np.ndarray:
    """Draw an episode's goal, and put its mark there at once: the package does so only where it renders by itself."""
    goal = _sample_goal(env)
    site = env.model.site("target0").id
    env.model.site_pos[site] += goal - env.data.site_xpos[site]
    env.data.site_xpos[site] = goal
    return goal


MujocoFetchEnv._sample_goal = _sample_and_show_goal
