"""`make_env` and `make_vector_env`: the only two doors to the world."""

import gymnasium as gym

from Enviroment.GL import choose_gl_backend
from Enviroment.My_wrapper import DictObservation, FrameObservation
from Enviroment.Renderer import Quality
from Enviroment.Tasks import Task
from Enviroment.Vector_env import WorkerVectorEnv


def make_env(task: Task, frames: bool = True, render_quality: Quality = "fast") -> gym.Env:
    """Make one environment of a task.

    Its observation is `{"State": float32 [S], "PartialState": float32 [P], "Frame": uint8 [rows, columns]}`; without
    `frames` there is no `Frame` and nothing is rendered.

    Raises:
        NoGLBackend: frames are wanted and this machine cannot render.
    """
    if frames:
        choose_gl_backend()
    env: gym.Env = DictObservation(gym.make(task.env_id, disable_env_checker=True), task)
    return FrameObservation(env, task, render_quality) if frames else env


def make_vector_env(
    task: Task,
    num_envs: int,
    num_workers: int = 0,
    seed: int | None = None,
    frames: bool = True,
    render_quality: Quality = "fast",
) -> WorkerVectorEnv:
    """Make `num_envs` environments of a task, stepped by `num_workers` processes (0: one for each core).

    Observations are `make_env`'s with a leading [N]; an episode that ends restarts in the same step, its last
    observation in `info["final_obs"]`. States and rewards are those of `gymnasium.make(task.env_id)`, bit for bit, for
    any number of workers. `seed` seeds the first `reset()`: environment i gets `seed + i`.

    The workers come up while the caller goes on; one that cannot start is a `WorkerError` of the first call.

    Raises:
        NoGLBackend: frames are wanted and this machine cannot render.
    """
    if frames:
        choose_gl_backend()
    return WorkerVectorEnv(task, num_envs, num_workers, seed, frames, render_quality)
