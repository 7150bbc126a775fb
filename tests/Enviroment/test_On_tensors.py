"""Tasks on tensors beside Gymnasium's own environments."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from Common.Errors import BadInput
from Enviroment.On_tensors import OnTensors, on_tensors
from Enviroment.Snapshot import simulation
from Enviroment.Tasks import TASKS

# Keywords that change each task's reward and ends.
CHANGED = {
    "Pusher": {"reward_near_weight": 0.3, "reward_dist_weight": 2.0, "reward_control_weight": 0.7},
    "Reacher": {"reward_dist_weight": 2.0, "reward_control_weight": 0.7},
    "InvertedDoublePendulum": {"healthy_reward": 0.3},
    "HalfCheetah": {
        "forward_reward_weight": 0.3,
        "ctrl_cost_weight": 0.7,
        "exclude_current_positions_from_observation": False,
    },
    "Hopper": {
        "forward_reward_weight": 0.3,
        "ctrl_cost_weight": 0.7,
        "healthy_reward": 0.2,
        "healthy_state_range": (-1, 1),
        "terminate_when_unhealthy": False,
    },
    "Walker2d": {"healthy_reward": 0.2, "healthy_z_range": (1.2, 1.25), "healthy_angle_range": (-0.05, 0.05)},
    "Ant": {
        "forward_reward_weight": 0.3,
        "ctrl_cost_weight": 0.7,
        "contact_cost_weight": 0.1,
        "healthy_reward": 0.2,
        "healthy_z_range": (0.6, 0.8),
        "contact_force_range": (-0.5, 0.7),
        "main_body": "aux_1",
        "include_cfrc_ext_in_observation": False,
    },
    "Swimmer": {"forward_reward_weight": 0.3, "ctrl_cost_weight": 0.7, "frame_skip": 2},
    **{name: {} for name in ("walker-walk", "walker-run", "cheetah-run", "finger-spin", "cartpole-swingup")},
}
# Positions and velocities from which random actions reach every part of a task's observation and reward.
STARTS = {
    "InvertedDoublePendulum": ((0.995, 0.0, 0.0), (2.0, 15.0, -15.0)),  # fast, and against the end of the rail
    "walker-walk": ((0.0,) * 9, (0.0, 0.8, *(0.0,) * 7)),
    "walker-run": ((0.0,) * 9, (0.0, 0.8, *(0.0,) * 7)),
    "cheetah-run": ((0.0,) * 9, (6.0, *(0.0,) * 8)),
    "finger-spin": ((0.0, 0.0, 2.0), (0.0, 0.0, -40.0)),
    "cartpole-swingup": ((0.5, 0.3), (0.0, 0.0)),
}


def single(name, **keywords):
    """A shipped task whose steps are the environment's own."""
    task = TASKS[name]
    of = f"Enviroment.DeepMind:{task.keywords['of']}" if "of" in task.keywords else task.env_id
    return replace(task, env_id=of, keywords=keywords)


FLOAT64 = {"rtol": 1e-9, "atol": 1e-9}


def fields(on, data, dtype=torch.float64):
    """The fields that a task's functions may read of a simulation, [1, ...], as copies."""
    return SimpleNamespace(**{name: torch.tensor(getattr(data, name), dtype=dtype)[None] for name in on.fields})


def stepped(on, model, data, action, substeps):
    """The simulation after a step of the environment, made as the functions ask for it: in a copy."""
    data = copy.copy(data)
    data.ctrl[:] = action
    mujoco.mj_step(model, data, nstep=substeps)
    if on.renewed:
        mujoco.mj_step1(model, data)
    if "cfrc_ext" in on.fields:
        mujoco.mj_rnePostConstraint(model, data)
    return data


def course(task, steps=30):
    """What an environment yields for random actions, and the fields that give it; it is reset when it has terminated."""
    env, on = task.make(), on_tensors(task)
    model, data = simulation(env)
    env.action_space.seed(0)
    state, _ = env.reset(seed=0)
    assert np.allclose(on.observe(env.unwrapped, fields(on, data))[0], state, **FLOAT64)
    if task.name in STARTS:
        data.qpos[:], data.qvel[:] = STARTS[task.name]
        mujoco.mj_forward(model, data)
    for _ in range(steps):
        before = fields(on, data)
        action = env.action_space.sample().astype(np.float64)
        after = fields(on, stepped(on, model, data, action, round(env.unwrapped.dt / model.opt.timestep)))
        state, reward, terminated, _, info = env.step(action)
        yield env.unwrapped, before, torch.tensor(action)[None], after, (state, reward, terminated, info)
        if terminated:
            env.reset()


def outcome(on, env, before, action, after):
    return on.outcome(env, after, on.before(env, before) if on.before else None, action)


def numbers(info):
    """The entries of `info` that a measure can name."""
    return {key: value for key, value in info.items() if not key.startswith("timestep.")}


def cast(data, dtype):
    return SimpleNamespace(**{name: value.to(dtype) for name, value in vars(data).items()})


@pytest.mark.parametrize(
    ("name", "keywords"), [(name, {}) for name in CHANGED] + [item for item in CHANGED.items() if item[1]]
)
def test_the_same_fields_give_gymnasiums_numbers(name, keywords):
    task = single(name, **keywords)
    on = on_tensors(task)
    for env, before, action, after, (state, reward, terminated, info) in course(task):
        for dtype, tolerance in ((torch.float64, FLOAT64), (torch.float32, {"rtol": 1e-5, "atol": 1e-5})):
            start, end = cast(before, dtype), cast(after, dtype)
            found, result = on.observe(env, end), outcome(on, env, start, action.to(dtype), end)
            assert np.allclose(found[0], state, **tolerance)
            assert np.allclose(result.reward[0], reward, **tolerance)
            assert torch.equal(result.terminated, torch.tensor([terminated]))
            assert result.info.keys() == numbers(info).keys()
            for key, value in result.info.items():
                assert np.allclose(value[0], info[key], **tolerance), key
            assert {value.dtype for value in (found, result.reward, *result.info.values())} == {dtype}


@pytest.mark.parametrize("name", CHANGED)
def test_a_batch_gives_what_its_states_give_one_by_one(name):
    task = single(name)
    on = on_tensors(task)
    steps = list(course(task, 5))
    env = steps[-1][0]
    starts, ends = (
        SimpleNamespace(**{key: torch.cat([getattr(step[i], key) for step in steps]) for key in on.fields})
        for i in (1, 3)
    )
    together = outcome(on, env, starts, torch.cat([step[2] for step in steps]), ends)
    for i, (_, before, action, after, _) in enumerate(steps):
        alone = outcome(on, env, before, action, after)
        assert torch.equal(on.observe(env, ends)[i : i + 1], on.observe(env, after))
        assert torch.equal(together.reward[i : i + 1], alone.reward)
        assert torch.equal(together.terminated[i : i + 1], alone.terminated)
        assert all(torch.equal(together.info[key][i : i + 1], alone.info[key]) for key in alone.info)


def test_an_ant_that_is_not_finite_has_ended():
    ((env, before, action, after, _),) = course(TASKS["Ant"], 1)
    on = on_tensors(TASKS["Ant"])
    assert not outcome(on, env, before, action, after).terminated
    after.qvel[0, 5] = torch.inf
    assert outcome(on, env, before, action, after).terminated


class NoOtherDevice(TorchDispatchMode):
    """Every operation takes and makes tensors without values only: reading one raises, and so does a tensor on the CPU."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, torch.Tensor)]
        assert all(tensor.device.type == "meta" for tensor in tensors), operation
        return made


@pytest.mark.parametrize("name", CHANGED)
def test_no_value_is_read_and_no_memory_shared(name):
    task = single(name)
    on = on_tensors(task)
    ((env, before, action, after, _),) = course(task, 1)
    nowhere = cast(before, "meta"), action.to("meta"), cast(after, "meta")
    with NoOtherDevice():
        on.observe(env, nowhere[2])
        outcome(on, env, *nowhere)
    start = on.before(env, before) if on.before else None
    result = on.outcome(env, after, start, action)
    made = [on.observe(env, after), result.reward, result.terminated, *result.info.values()]
    kept = {value.untyped_storage().data_ptr() for value in (*vars(before).values(), *vars(after).values())}
    for tensor in made if start is None else [*made, start]:
        assert tensor.untyped_storage().data_ptr() not in kept


def test_a_tasks_own_functions_come_first():
    own = OnTensors((), None, None)
    assert on_tensors(replace(TASKS["Pusher"], on_tensors=own)) is own
    assert on_tensors(replace(TASKS["Pusher"], env_id="a.module:Pusher-v5")) is on_tensors(TASKS["Pusher"])
    assert on_tensors(TASKS["FetchPush"]) is None
    with pytest.raises(BadInput, match="its on_tensors is of type str; an OnTensors is needed"):
        replace(TASKS["Pusher"], on_tensors="own").check()
