"""Observations, rewards and ends of tasks as PyTorch operations, for N simulations at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from Enviroment.Snapshot import simulation
from Enviroment.Task import Task


class Fields(Protocol):
    """The fields of N `MjData` by MuJoCo's names: `qpos` [N, nq], `xpos` [N, nbody, 3], all of one dtype on one device."""

    def __getattr__(self, name: str) -> torch.Tensor:
        """Return one field [N, ...]."""


@dataclass(frozen=True)
class Outcome:
    """The result of one step of N simulations, without its observations."""

    reward: torch.Tensor  # [N]
    terminated: torch.Tensor  # bool [N]
    info: dict[str, torch.Tensor]  # [N] by key: the numbers of the environment's `info`


@dataclass(frozen=True)
class OnTensors:
    """An environment's observation and outcome as PyTorch operations, equal to its own on the same fields of `MjData`.

    The functions are given one environment, unwrapped, and read its constants: weights, ranges, its model's bodies. They never
    read a tensor's value, and make tensors on the fields' device only, so that they can be recorded into a CUDA graph. What
    they return is in the fields' dtype, which the action has to have too, and shares no memory with them.

    A step leaves fields such as `xpos` as they were before its last integration, and Gymnasium's environments observe them so.
    DeepMind Control's are `renewed`: `mj_step1` follows the last `mj_step`.
    """

    fields: tuple[str, ...]  # those that the functions read; `cfrc_ext` needs `mj_rnePostConstraint` after a step
    observe: Callable[[Any, Fields], torch.Tensor]  # (environment, fields) -> state [N, S]
    outcome: Callable[..., Outcome]  # (environment, fields, what `before` returned or None, action [N, A]) -> outcome
    before: Callable[[Any, Fields], torch.Tensor] | None = None  # what `outcome` needs from before the step, [N, K]
    renewed: bool = False  # whether the step ends with `mj_step1`


def _outcome(terms: dict[str, torch.Tensor], terminated: torch.Tensor | None = None, **info: torch.Tensor) -> Outcome:
    """Return the outcome whose reward is the sum of its `terms` [N], which `info` holds too."""
    reward = torch.stack(list(terms.values())).sum(0)
    if terminated is None:
        terminated = torch.zeros_like(reward, dtype=torch.bool)
    return Outcome(reward, terminated, terms | info)


def _surviving(env: Any, healthy: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {"reward_survive": env._healthy_reward * healthy.to(dtype)}


def _position(env: Any, data: Fields, body: str | int) -> torch.Tensor:
    return data.xpos[:, env.model.body(body).id]


def _observe_pusher(env: Any, data: Fields) -> torch.Tensor:
    positions = [_position(env, data, body) for body in ("tips_arm", "object", "goal")]
    return torch.cat([data.qpos[:, :7], data.qvel[:, :7], *positions], -1)


def _pusher(env: Any, data: Fields, before: None, action: torch.Tensor) -> Outcome:
    tip, cylinder, goal = (_position(env, data, body) for body in ("tips_arm", "object", "goal"))
    return _outcome(
        {
            "reward_dist": -env._reward_dist_weight * (cylinder - goal).norm(dim=-1),
            "reward_ctrl": -env._reward_control_weight * action.square().sum(-1),
            "reward_near": -env._reward_near_weight * (cylinder - tip).norm(dim=-1),
        }
    )


def _to_target(env: Any, data: Fields) -> torch.Tensor:
    return _position(env, data, "fingertip") - _position(env, data, "target")


def _observe_reacher(env: Any, data: Fields) -> torch.Tensor:
    angles, target = data.qpos[:, :2], data.qpos[:, 2:]
    return torch.cat([angles.cos(), angles.sin(), target, data.qvel[:, :2], _to_target(env, data)[:, :2]], -1)


def _reacher(env: Any, data: Fields, before: None, action: torch.Tensor) -> Outcome:
    return _outcome(
        {
            "reward_dist": -env._reward_dist_weight * _to_target(env, data).norm(dim=-1),
            "reward_ctrl": -env._reward_control_weight * action.square().sum(-1),
        }
    )


def _observe_double_pendulum(env: Any, data: Fields) -> torch.Tensor:
    cart, angles = data.qpos[:, :1], data.qpos[:, 1:]
    clipped = data.qvel.clamp(-10, 10), data.qfrc_constraint[:, :1].clamp(-10, 10)
    return torch.cat([cart, angles.sin(), angles.cos(), *clipped], -1)


def _double_pendulum(env: Any, data: Fields, before: None, action: torch.Tensor) -> Outcome:
    x, _, height = data.site_xpos[:, 0].unbind(-1)  # of the tip
    _, speed, speed_2 = data.qvel.unbind(-1)
    fallen = height <= 1
    penalties = {
        "distance_penalty": -(0.01 * x.square() + (height - 2).square()),
        "velocity_penalty": -(0.001 * speed.square() + 0.005 * speed_2.square()),
    }
    return _outcome(_surviving(env, ~fallen, x.dtype) | penalties, fallen)


def _observe_joints(env: Any, data: Fields, fastest: float | None = None) -> torch.Tensor:
    """Return the joints' positions, without those over the ground if it excludes them, and velocities up to the `fastest`."""
    velocities = data.qvel if fastest is None else data.qvel.clamp(-fastest, fastest)
    return torch.cat([data.qpos[:, env.observation_structure["skipped_qpos"] :], velocities], -1)


def _running(env: Any, speed: torch.Tensor, action: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the terms of the reward that all robots that run along x have."""
    return {
        "reward_forward": env._forward_reward_weight * speed,
        "reward_ctrl": -env._ctrl_cost_weight * action.square().sum(-1),
    }


def _x(env: Any, data: Fields) -> torch.Tensor:
    return data.qpos[:, :1].clone()


def _half_cheetah(env: Any, data: Fields, before: torch.Tensor, action: torch.Tensor) -> Outcome:
    x = _x(env, data)
    speed = ((x - before) / env.dt)[:, 0]
    return _outcome(_running(env, speed, action), x_position=x[:, 0], x_velocity=speed)


def _between(value: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    return (bounds[0] < value) & (value < bounds[1])


def _upright(env: Any, data: Fields) -> torch.Tensor:
    return _between(data.qpos[:, 1], env._healthy_z_range) & _between(data.qpos[:, 2], env._healthy_angle_range)


def _upright_and_bounded(env: Any, data: Fields) -> torch.Tensor:
    state = torch.cat([data.qpos[:, 2:], data.qvel], -1)
    return _upright(env, data) & _between(state, env._healthy_state_range).all(-1)


def _walker(
    is_healthy: Callable[[Any, Fields], torch.Tensor],
    env: Any,
    data: Fields,
    before: torch.Tensor,
    action: torch.Tensor,
) -> Outcome:
    x, healthy = _x(env, data), is_healthy(env, data)
    speed = ((x - before) / env.dt)[:, 0]
    return _outcome(
        _running(env, speed, action) | _surviving(env, healthy, speed.dtype),
        ~healthy & env._terminate_when_unhealthy,
        x_position=x[:, 0],
        x_velocity=speed,
        z_distance_from_origin=data.qpos[:, 1] - env.init_qpos[1],
    )


def _xy(env: Any, data: Fields) -> torch.Tensor:
    return data.qpos[:, :2].clone()


def _over_ground(xy: torch.Tensor, velocity: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the entries of `info` of a robot that moves in the plane; its place and velocity are [N, 2]."""
    return {
        "x_position": xy[:, 0],
        "y_position": xy[:, 1],
        "distance_from_origin": xy.norm(dim=-1),
        "x_velocity": velocity[:, 0],
        "y_velocity": velocity[:, 1],
    }


def _swimmer(env: Any, data: Fields, before: torch.Tensor, action: torch.Tensor) -> Outcome:
    xy = _xy(env, data)
    velocity = (xy - before) / env.dt
    return _outcome(_running(env, velocity[:, 0], action), **_over_ground(xy, velocity))


def _contact_forces(env: Any, data: Fields) -> torch.Tensor:
    return data.cfrc_ext.clamp(*env._contact_force_range)


def _observe_ant(env: Any, data: Fields) -> torch.Tensor:
    joints = _observe_joints(env, data)
    if not env._include_cfrc_ext_in_observation:
        return joints
    return torch.cat([joints, _contact_forces(env, data)[:, 1:].flatten(1)], -1)  # without the world's


def _torso(env: Any, data: Fields) -> torch.Tensor:
    return _position(env, data, env._main_body)[:, :2].clone()


def _ant(env: Any, data: Fields, before: torch.Tensor, action: torch.Tensor) -> Outcome:
    velocity = (_torso(env, data) - before) / env.dt
    low, high = env._healthy_z_range
    height, state = data.qpos[:, 2], torch.cat([data.qpos, data.qvel], -1)
    healthy = state.isfinite().all(-1) & (low <= height) & (height <= high)
    contacts = {"reward_contact": -env._contact_cost_weight * _contact_forces(env, data).square().sum((-2, -1))}
    return _outcome(
        _running(env, velocity[:, 0], action) | contacts | _surviving(env, healthy, velocity.dtype),
        ~healthy & env._terminate_when_unhealthy,
        **_over_ground(_xy(env, data), velocity),
    )


def _alone(reward: torch.Tensor) -> Outcome:
    """Return the outcome of a task of DeepMind Control's, which never terminates and tells nothing in `info`."""
    return Outcome(reward, torch.zeros_like(reward, dtype=torch.bool), {})


def _speed_of_mass(env: Any, data: Fields) -> torch.Tensor:
    """Return the velocity along x of a robot's centre of mass, [N]."""
    model, _ = simulation(env)  # type: ignore[misc]
    return data.sensordata[:, int(model.sensor("torso_subtreelinvel").adr[0])]


def _turns(data: Fields) -> torch.Tensor:
    return data.xmat.reshape(*data.xmat.shape[:2], 3, 3)  # which C has as 9 numbers


def _observe_planar_walker(env: Any, data: Fields) -> torch.Tensor:
    # The first body is the world, the second the torso.
    orientations = torch.stack([_turns(data)[:, 1:, 0, 0], _turns(data)[:, 1:, 0, 2]], -1)
    return torch.cat([data.xpos[:, 1, 2:], orientations.flatten(1), data.qvel], -1)


# DeepMind's rewards are products of factors that are 1 within bounds, and at a margin beyond them 0.1 by a Gaussian or a
# given value by a line. The bounds and margins here are those of `dm_control.suite`: 1.2 m of height, 10 m/s, -15 rad/s.


def _planar_walker(env: Any, data: Fields, before: None, action: torch.Tensor) -> Outcome:
    standing = 0.1 ** ((1.2 - data.xpos[:, 1, 2]).clamp(min=0) / 0.6) ** 2
    upright = (1 + _turns(data)[:, 1, 2, 2]) / 2
    moving = (_speed_of_mass(env, data) / env.task._move_speed).clamp(0, 1)
    return _alone((3 * standing + upright) / 4 * (5 * moving + 1) / 6)


def _cheetah(env: Any, data: Fields, before: None, action: torch.Tensor) -> Outcome:
    return _alone((_speed_of_mass(env, data) / 10).clamp(0, 1))


def _observe_cheetah(env: Any, data: Fields) -> torch.Tensor:
    return torch.cat([data.qpos[:, 1:], data.qvel], -1)


def _observe_finger(env: Any, data: Fields) -> torch.Tensor:
    # From the joints, which are never behind, where the environment has sensors. The touch sensors are of the last `mj_step`.
    model, _ = simulation(env)  # type: ignore[misc]
    first, spinner = int(model.sensor("touchtop").adr[0]), data.qpos[:, 2:]
    tip = float(model.site("tip").pos[2]) * torch.cat([-spinner.sin(), spinner.cos()], -1)
    return torch.cat([data.qpos[:, :2], tip, data.sensordata[:, first : first + 2].log1p(), data.qvel], -1)


def _finger(env: Any, data: Fields, before: None, action: torch.Tensor) -> Outcome:
    return _alone((data.qvel[:, 2] <= -15).to(data.qvel.dtype))


def _observe_cartpole(env: Any, data: Fields) -> torch.Tensor:
    cart, pole = data.qpos[:, :1], data.qpos[:, 1:]
    return torch.cat([cart, pole.cos(), pole.sin(), data.qvel], -1)


def _cartpole(env: Any, data: Fields, before: None, action: torch.Tensor) -> Outcome:
    cart, pole = data.qpos.unbind(-1)
    upright = (pole.cos() + 1) / 2
    centred = (1 + 0.1 ** (cart / 2) ** 2) / 2
    gentle = (4 + (1 - action[:, 0].square()).clamp(min=0)) / 5
    slow = (1 + 0.1 ** (data.qvel[:, 1] / 5) ** 2) / 2
    return _alone(upright * gentle * slow * centred)


_JOINTS = "qpos", "qvel"
_observe_clipped = partial(_observe_joints, fastest=10.0)

_PLANAR_WALKER = OnTensors(("qvel", "xpos", "xmat", "sensordata"), _observe_planar_walker, _planar_walker, renewed=True)

# By the id of the environment, without the module that registers it. The source of each is the environment's own code, in
# `gymnasium.envs.mujoco` and `dm_control.suite`.
_ON_TENSORS = {
    "Pusher-v5": OnTensors((*_JOINTS, "xpos"), _observe_pusher, _pusher),
    "Reacher-v5": OnTensors((*_JOINTS, "xpos"), _observe_reacher, _reacher),
    "InvertedDoublePendulum-v5": OnTensors(
        (*_JOINTS, "qfrc_constraint", "site_xpos"), _observe_double_pendulum, _double_pendulum
    ),
    "HalfCheetah-v5": OnTensors(_JOINTS, _observe_joints, _half_cheetah, _x),
    "Hopper-v5": OnTensors(_JOINTS, _observe_clipped, partial(_walker, _upright_and_bounded), _x),
    "Walker2d-v5": OnTensors(_JOINTS, _observe_clipped, partial(_walker, _upright), _x),
    "Ant-v5": OnTensors((*_JOINTS, "xpos", "cfrc_ext"), _observe_ant, _ant, _torso),
    "Swimmer-v5": OnTensors(_JOINTS, _observe_joints, _swimmer, _xy),
    "dm_control/walker-walk-v0": _PLANAR_WALKER,
    "dm_control/walker-run-v0": _PLANAR_WALKER,
    "dm_control/cheetah-run-v0": OnTensors((*_JOINTS, "sensordata"), _observe_cheetah, _cheetah, renewed=True),
    "dm_control/finger-spin-v0": OnTensors((*_JOINTS, "sensordata"), _observe_finger, _finger),
    "dm_control/cartpole-swingup-v0": OnTensors(_JOINTS, _observe_cartpole, _cartpole),
}


def on_tensors(task: Task) -> OnTensors | None:
    """Return a task's functions on tensors: its own, or those of its environment; None where there are none."""
    return task.on_tensors or _ON_TENSORS.get(task.env_id.rpartition(":")[2])
