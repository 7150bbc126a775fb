"""Everything that distinguishes one task from another, as data."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A free MuJoCo camera and the part of its square view that a student sees.

    `rows` and `columns` are [first, last) pixels of a `view` x `view` picture; only that crop is ever rendered.
    """

    distance: float
    lookat: tuple[float, float, float]
    azimuth: float
    elevation: float
    view: int = 480
    rows: tuple[int, int] = (0, 480)
    columns: tuple[int, int] = (0, 480)


@dataclass(frozen=True)
class Task:
    """What environment, renderer, models and evaluation need to know of a task.

    Attributes:
        name: the task's folder under `Results/`.
        env_id: the Gymnasium id; its observation is the teacher's `State`.
        proprioception: indices of the state entries a student is given beside its frames.
        camera: where the frames are taken from.
        success_distance: maps states [..., S] to the distance in metres [...] that decides success.
        success_radius: an episode whose last state is nearer than this, in metres, is a success.
        frame_size: rows and columns of a frame.
        stack: how many frames a student sees at once.
        stack_stride: environment steps from one frame of the stack to the next.
    """

    name: str
    env_id: str
    proprioception: tuple[int, ...]
    camera: Camera
    success_distance: Callable[[np.ndarray], np.ndarray]
    success_radius: float
    frame_size: tuple[int, int] = (64, 128)
    stack: int = 4
    stack_stride: int = 2

    def rendering(self, quality: str) -> dict[str, Any]:
        """Return all that decides what a student sees, as plain values."""
        seen = {"frame_size": self.frame_size, "stack": self.stack, "stack_stride": self.stack_stride}
        return json.loads(json.dumps({"quality": quality, **asdict(self.camera), **seen}))


def _pusher_distance(state: np.ndarray) -> np.ndarray:
    # In the table's plane: the disc lies 5 cm below the object's centre, which no policy can change.
    return np.linalg.norm(state[..., 17:19] - state[..., 20:22], axis=-1)


def _reacher_distance(state: np.ndarray) -> np.ndarray:
    return np.linalg.norm(state[..., 8:10], axis=-1)


TASKS = {
    "Pusher": Task(
        name="Pusher",
        env_id="Pusher-v5",
        proprioception=tuple(range(17)),
        camera=Camera(2.5, (0.0, 0.2, 0.0), 270.0, -90.0, rows=(70, 230), columns=(70, 410)),
        success_distance=_pusher_distance,
        success_radius=0.08,
    ),
    "Reacher": Task(
        name="Reacher",
        env_id="Reacher-v5",
        proprioception=(0, 1, 2, 3, 6, 7),
        camera=Camera(0.8, (0.0, 0.0, 0.0), 90.0, -90.0, rows=(120, 360), columns=(0, 480)),
        success_distance=_reacher_distance,
        success_radius=0.02,
    ),
}
