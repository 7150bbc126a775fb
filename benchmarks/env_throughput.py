"""Environment steps with frames, a second: stock Gymnasium, Gymnasium's AsyncVectorEnv with our renderer, and ours.

All three step the same environments with the same actions and end with the same [N, 64, 128] grayscale frames. Prints
JSON; run it on an otherwise idle machine.
"""

import argparse
import dataclasses
import functools
import json
import os
import time

import cv2
import gymnasium as gym
import numpy as np

from Enviroment.GL import choose_gl_backend
from Enviroment.Tasks import TASKS, Task
from Enviroment.Utils import make_env, make_vector_env


class StockFrames(gym.ObservationWrapper):
    """The usual way: Gymnasium renders the whole view, OpenCV crops, scales and grays it."""

    def __init__(self, env: gym.Env, task: Task):
        super().__init__(env)
        self._task = task
        self.observation_space = gym.spaces.Box(0, 255, task.frame_size, np.uint8)

    def observation(self, observation):
        """Replace the state by the frame."""
        camera = self._task.camera
        picture = self.env.render()[slice(*camera.rows), slice(*camera.columns)]
        small = cv2.resize(picture, self._task.frame_size[::-1], interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def stock_env(task: Task) -> gym.Env:
    """Make one environment with stock frames."""
    camera = task.camera
    view = {
        "distance": camera.distance,
        "lookat": np.array(camera.lookat),
        "azimuth": camera.azimuth,
        "elevation": camera.elevation,
        "trackbodyid": -1,
    }
    env = gym.make(
        task.env_id, render_mode="rgb_array", width=camera.view, height=camera.view, default_camera_config=view
    )
    return StockFrames(env, task)


def rate(env, steps: int) -> float:
    """Return environment steps a second, after a warm-up."""
    random = np.random.default_rng(0)
    env.reset(seed=0)
    actions = [random.uniform(-1, 1, env.action_space.shape).astype(np.float32) for _ in range(steps)]
    for action in actions[:2]:
        env.step(action)
    started = time.perf_counter()
    for action in actions:
        env.step(action)
    return steps * env.num_envs / (time.perf_counter() - started)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, default=next(iter(TASKS)))
    parser.add_argument("--num_envs", type=int, default=18)
    parser.add_argument(
        "--repeats", type=int, default=3, help="each is measured so often in turn; the medians are compared"
    )
    parser.add_argument("--quick", action="store_true", help="fewer steps, under a minute")
    arguments = parser.parse_args()
    task, n = TASKS[arguments.task], arguments.num_envs
    os.environ["MUJOCO_GL"] = choose_gl_backend()
    steps = {"stock": 3, "async": 60, "ours": 120} if arguments.quick else {"stock": 20, "async": 300, "ours": 600}

    envs = {
        "stock": gym.vector.SyncVectorEnv([functools.partial(stock_env, task)] * n),
        "async": gym.vector.AsyncVectorEnv([functools.partial(make_env, task)] * n, context="spawn"),
        "ours": make_vector_env(task, n),
    }
    rates: dict[str, list[float]] = {name: [] for name in envs}
    for _ in range(1 if arguments.quick else arguments.repeats):
        for name, env in envs.items():
            rates[name].append(rate(env, steps[name]))
    for env in envs.values():
        env.close()
    median = {name: float(np.median(values)) for name, values in rates.items()}
    print(
        json.dumps(
            {
                "what": "environment steps with a 64x128 frame, per second",
                "num_envs": n,
                "cores": len(os.sched_getaffinity(0)),
                "gl": os.environ["MUJOCO_GL"],
                "steps_per_s": {name: [round(value, 1) for value in values] for name, values in rates.items()},
                "ours_over_stock": round(median["ours"] / median["stock"], 1),
                "ours_over_async": round(median["ours"] / median["async"], 2),
                "camera": dataclasses.asdict(task.camera),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
