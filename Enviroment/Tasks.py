"""The tasks that come with this repository, and how any task is found by its reference."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from Common.Errors import BadInput
from Common.Modules import load_module
from Enviroment.Task import Camera, Measure, Task

__all__ = ["TASKS", "Camera", "Measure", "Task", "find_task"]


def _pusher_distance(state: np.ndarray) -> np.ndarray:
    # In the table's plane: the disc lies 5 cm below the object's centre, which no policy can change.
    return np.linalg.norm(state[..., 17:19] - state[..., 20:22], axis=-1)


def _reacher_distance(state: np.ndarray) -> np.ndarray:
    return np.linalg.norm(state[..., 8:10], axis=-1)


def _tip_height(state: np.ndarray) -> np.ndarray:
    (sin, sin_2), (cos, cos_2) = np.moveaxis(state[..., 1:3], -1, 0), np.moveaxis(state[..., 3:5], -1, 0)
    return 0.6 * (cos + cos * cos_2 - sin * sin_2)  # both poles are 0.6 m long; the second angle counts from the first


def _ball_is_in_cup(state: np.ndarray) -> np.ndarray:
    # The ball starts 0.4 m below the cup, whose inside, 5 cm below its rim's height, is a square of 10 cm; its radius is 2.5 cm.
    return (np.abs(state[..., 0:2] - state[..., 2:4] - (0.0, 0.05 - 0.4)) < 0.025).all(-1)


def _fetch_distance(state: np.ndarray) -> np.ndarray:
    return np.linalg.norm(state[..., 0:3] - state[..., 3:6], axis=-1)


# The recipe of most tasks, as settings of `Train_Teacher_Pusher/Mujoco_main.py`; a task's `training` changes some. Another
# algorithm than SAC takes from it what it has.
RECIPE = {
    "total_timesteps": 1_000_000,
    "num_envs": 8,
    "gradient_steps": 8,
    "hidden": 256,
    "gamma": 0.99,
    "tau": 0.005,
    "learning_rate": 5e-4,
    "learning_rate_end": 1e-4,
    "learning_starts": 10_000,
}
# Of tasks that the defaults solve, which are those of Pusher's teacher, in minutes.
QUICK = {"gamma": 0.99, "tau": 0.005, "eval_freq": 25_000}
# Of harder tasks: DeepMind's come to what SAC is published with in 200,000 to 700,000 steps,
# HalfCheetah to 9,500 in 1,350,000.
LONGER = QUICK | {"total_timesteps": 1_000_000, "learning_starts": 10_000, "eval_freq": 50_000}


def _walker(
    name: str, env_id: str, proprioception: Iterable[int], camera: Camera, stack_stride: int, **more: Any
) -> Task:
    """Return the task of a robot that moves over the ground.

    A student is given its joints and its trunk's orientation and turning, as encoders and an IMU know them. Height and speed it
    must see: the camera follows the trunk over the ground, never up and down, and the floor moves past. The stride is so long
    that the floor moves by pixels from frame to frame, and so short that it moves by less than half its pattern's period.
    """
    more = {"measures": {"speed": Measure("x_velocity", "m/s")}, "training": RECIPE, **more}
    more |= {"stack_stride": stack_stride, "reference": name}
    return Task(name, env_id, tuple(proprioception), {"Frame": replace(camera, size=(64, 64))}, **more)


def _deepmind(make: Callable[..., Task], name: str, *arguments: Any, **more: Any) -> Task:
    """Return a task of DeepMind Control's, each of whose 500 steps makes two of its 1,000, with rewards from 0 to 1 each.

    So students from pixels are trained and compared (Yarats et al. 2022, https://arxiv.org/abs/2107.09645), which see 84x84 pixels in
    colour: as many as the camera `pixels` has.
    """
    task = make(
        name, "Enviroment.DeepMind:Repeated-v0", *arguments, max_episode_steps=500, **{"stack_stride": 1, **more}
    )
    camera = replace(task.cameras["Frame"], size=(84, 84), frames="rgb")
    keywords = {"of": f"dm_control/{name}-v0", "repeat": 2}
    return replace(task, cameras={**task.cameras, "pixels": camera}, keywords=keywords)


def _fetch(name: str, proprioception: tuple[int, ...], camera: Camera, **training: Any) -> Task:
    """Return a task of the Fetch robot: the state is `achieved_goal`, `desired_goal` and `observation`.

    A student knows the gripper's position and velocities, from the arm's joints; object and goal it must see. The camera `front`
    looks at the same point from where the robot looks to, across the other.
    """
    camera = replace(camera, size=(84, 84))
    return Task(
        name=name,
        env_id=f"Enviroment.Robotics:{name}-v4",
        proprioception=proprioception,
        cameras={"Frame": camera, "front": replace(camera, azimuth=camera.azimuth + 90)},
        success="is_success",
        measures={"distance": Measure(_fetch_distance, "m")},
        stack_stride=1,
        training_keywords={"reward_type": "dense"},  # the task's own, -1 until success, needs relabelled goals (HER)
        training=training,
        reference=name,
    )


def _memory(name: str, task: Task, body: str, after: int, held: int, steps: int) -> Task:
    """Return a task whose `body` is drawn for the first steps alone, and which lasts `steps` from when the arm is free."""
    keywords = {"of": task.env_id, "body": body, "after": after, "held": held}
    changes: dict[str, Any] = {"env_id": "Enviroment.Hidden:Hidden-v0", "keywords": keywords}
    return replace(task, name=name, reference=name, max_episode_steps=held + steps, **changes)


# DeepMind's walker, whose state is the torso's height, the limbs' orientations and the joints' velocities.
_WALKER = (*range(1, 15), *range(17, 24))
_WALKER_CAMERA = Camera(2.9, (0.0, 0.0, 0.8), 90.0, -28.0, follow="torso")
_WALKER_SPEED = {"speed": Measure(lambda state: state[..., 16], "m/s")}

_PUSHER = Task(
    name="Pusher",
    env_id="Pusher-v5",
    proprioception=tuple(range(17)),
    cameras={
        "Frame": Camera(
            *(2.5, (0.0, 0.2, 0.0), 270.0, -90.0), rows=(70, 230), columns=(70, 410), depth_range=(2.2, 2.9)
        ),
        # Across the table, towards the arm. The goal is flat: depth does not show it, but it never moves.
        "side": Camera(1.3, (0.45, -0.15, -0.28), 270.0, -35.0, rows=(120, 360), depth_range=(0.8, 1.8)),
        "wrist": Camera(
            *(0.8, (0.0, 0.0, -0.28), 270.0, -60.0), follow="tips_arm", size=(64, 64), depth_range=(0.4, 1.0)
        ),
    },
    success=lambda state: _pusher_distance(state) < 0.08,  # the radius of the goal's disc
    measures={"distance": Measure(_pusher_distance, "m")},
    # The task's own reward lets a policy hover beside the object for long.
    training_keywords={"reward_dist_weight": 2.0},
    reference="Pusher",
)

_REACHER = Task(
    name="Reacher",
    env_id="Reacher-v5",
    proprioception=(0, 1, 2, 3, 6, 7),
    # All of the disc that targets lie in. One is 3 pixels wide.
    cameras={"Frame": Camera(0.56, (0.0, 0.0, 0.0), 90.0, -90.0, size=(64, 64))},
    success=lambda state: _reacher_distance(state) < 0.02,
    measures={"distance": Measure(_reacher_distance, "m")},
    training={"total_timesteps": 400_000, "eval_freq": 25_000},
    reference="Reacher",
)

TASKS = {
    "Pusher": _PUSHER,
    # What matters is drawn for some steps, and the arm held until it is in no stack of frames: a student has to remember it.
    # Pusher's goal never moves, so that to hide it would hide nothing.
    "PusherMemory": _memory("PusherMemory", _PUSHER, "object", after=10, held=17, steps=100),
    "ReacherMemory": _memory("ReacherMemory", _REACHER, "target", after=5, held=12, steps=50),
    "Reacher": _REACHER,
    # The camera moves with the cart, so that small angles of the poles, which it alone knows, are many pixels. The cart's
    # position and velocity come from its encoder.
    "InvertedDoublePendulum": Task(
        name="InvertedDoublePendulum",
        env_id="InvertedDoublePendulum-v5",
        proprioception=(0, 5),
        cameras={"Frame": Camera(1.75, (0.0, 0.0, 0.58), 90.0, 0.0, follow="cart", size=(64, 64))},
        measures={"height": Measure(_tip_height, "m")},
        stack_stride=1,
        training=QUICK | {"total_timesteps": 200_000},
        reference="InvertedDoublePendulum",
    ),
    "HalfCheetah": _walker(
        "HalfCheetah",
        "HalfCheetah-v5",
        (*range(1, 8), *range(10, 17)),
        Camera(3.0, (0.0, 0.0, 0.1), 90.0, -15.0, follow="torso"),
        stack_stride=1,  # 0.05 s, in which a good teacher runs 0.6 m; the floor repeats after 1.33 m
        training=LONGER | {"total_timesteps": 2_000_000},
    ),
    "Hopper": _walker(
        "Hopper",
        "Hopper-v5",
        (*range(1, 5), *range(7, 11)),
        Camera(2.8, (0.0, 0.0, 0.7), 90.0, -15.0, follow="torso"),
        stack_stride=4,  # of steps of 8 ms
        # Of steps so short 0.99 looks ahead 0.8 s: it learned to run at 5 m/s, and to fall after 2 s.
        training=LONGER | {"gamma": 0.996, "eval_freq": 20_000},
    ),
    "Walker2d": _walker(
        "Walker2d",
        "Walker2d-v5",
        (*range(1, 8), *range(10, 17)),
        Camera(3.0, (0.0, 0.0, 0.7), 90.0, -15.0, follow="torso"),
        stack_stride=4,
        training=RECIPE | {"total_timesteps": 1_500_000, "learning_rate": 3e-4},
    ),
    "Ant": _walker(
        "Ant",
        "Ant-v5",
        (*range(1, 13), *range(16, 27)),
        Camera(4.8, (0.0, 0.0, 0.3), 90.0, -45.0, follow="torso"),  # from above as well, since it moves both ways
        stack_stride=1,
        training=RECIPE | {"total_timesteps": 3_000_000, "learning_rate": 3e-4},
    ),
    "Swimmer": _walker(
        "Swimmer",
        "Swimmer-v5",
        (0, 1, 2, 5, 6, 7),
        Camera(5.5, (0.0, 0.0, 0.0), 90.0, -90.0, follow="mid"),
        stack_stride=4,
        training=RECIPE | {"gamma": 0.9999},  # a stroke pays off late
    ),
    "walker-walk": _deepmind(
        _walker, "walker-walk", _WALKER, _WALKER_CAMERA, stack_stride=2, measures=_WALKER_SPEED, training=LONGER
    ),
    "walker-run": _deepmind(_walker, "walker-run", _WALKER, _WALKER_CAMERA, measures=_WALKER_SPEED, training=LONGER),
    "cheetah-run": _deepmind(
        _walker,
        "cheetah-run",
        (*range(1, 8), *range(10, 17)),
        Camera(2.4, (0.1, 0.0, 0.4), 90.0, -30.0, follow="torso"),
        measures={"speed": Measure(lambda state: state[..., 8], "m/s")},
        training=LONGER,
    ),
    "reacher-hard": _deepmind(
        Task,
        "reacher-hard",
        (0, 1, 4, 5),
        {"Frame": Camera(0.62, (0.0, 0.0, 0.0), 90.0, -90.0, size=(84, 84))},  # the target is 5 pixels wide
        success=lambda state: np.linalg.norm(state[..., 2:4], axis=-1) <= 0.025,  # the radii of target and fingertip
        measures={"distance": Measure(lambda state: np.linalg.norm(state[..., 2:4], axis=-1), "m")},
        training=LONGER | {"learning_starts": 20_000},
        reference="reacher-hard",
    ),
    "finger-spin": _deepmind(
        Task,
        "finger-spin",
        (0, 1, 4, 5, 6, 7),  # the finger's joints and touch; the spinner is nobody's but the camera's
        {"Frame": Camera(1.05, (-0.08, 0.0, 0.4), 90.0, 0.0, size=(64, 64))},
        success=lambda state: state[..., 8] <= -15.0,
        measures={"spin": Measure(lambda state: -state[..., 8], "rad/s")},
        training=LONGER | {"total_timesteps": 600_000},
        reference="finger-spin",
    ),
    "ball_in_cup-catch": _deepmind(
        Task,
        "ball_in_cup-catch",
        (0, 1, 4, 5),
        {"Frame": Camera(1.05, (0.0, 0.0, 0.45), 90.0, 0.0, follow="cup", size=(84, 84))},
        success=_ball_is_in_cup,
        training=QUICK | {"total_timesteps": 400_000, "learning_starts": 10_000},
        reference="ball_in_cup-catch",
    ),
    "cartpole-swingup": _deepmind(
        Task,
        "cartpole-swingup",
        (0, 3),  # the cart's encoder; the pole is the camera's, which moves with the cart
        {"Frame": Camera(2.7, (0.0, 0.0, 1.0), 90.0, 0.0, follow="cart", size=(64, 64))},
        training=QUICK | {"total_timesteps": 300_000},
        reference="cartpole-swingup",
    ),
    # From the side the gripper is narrow, and hides the fewest goals. Those of FetchReach are in the air: the camera is so near
    # that their mark is 4 to 7 pixels wide, by distance.
    "FetchReach": _fetch(
        "FetchReach",
        tuple(range(6, 16)),
        Camera(0.66, (1.34, 0.75, 0.53), 90.0, -30.0),
        **QUICK | {"gamma": 0.95, "total_timesteps": 100_000, "eval_freq": 10_000},
    ),
    "FetchPush": _fetch(
        "FetchPush",
        (*range(6, 9), 15, 16, *range(26, 31)),
        Camera(0.66, (1.34, 0.75, 0.42), 100.0, -45.0),
        **RECIPE | {"gamma": 0.95, "total_timesteps": 2_000_000},
    ),
}


def find_task(reference: str) -> Task:
    """Return the task that a reference names.

    A reference is the name of a task in `TASKS`, `package.module:NAME` for a task in a module that can be imported, or
    `path/to/tasks.py:NAME` for a task in a file, relative to the current folder. The file is executed, once in a process,
    and finds modules beside it. Raises `BadInput` if there is no such task, or if it does not fit.
    """
    where, colon, name = reference.rpartition(":")
    if not colon:
        if reference in TASKS:
            return TASKS[reference]
        if reference.endswith(".py"):
            raise BadInput(f"task {reference}: the task's name in that file is missing: {reference}:NAME is needed")
        known = f"{', '.join(TASKS)}, package.module:NAME or path/to/tasks.py:NAME"
        raise BadInput(f"task {reference!r} is unknown: {known} is needed")
    module, where = load_module(where, "task")
    task = vars(module).get(name)
    if task is None:
        tasks = [key for key, value in vars(module).items() if isinstance(value, Task) and not key.startswith("_")]
        raise BadInput(f"task {reference}: {where} has no {name!r}; the tasks in it: {', '.join(tasks) or 'none'}")
    if not isinstance(task, Task):
        raise BadInput(f"task {reference}: {name} is of type {type(task).__name__}; an Enviroment.Tasks.Task is needed")
    task = replace(task, reference=f"{where}:{name}")
    task.check()
    return task
