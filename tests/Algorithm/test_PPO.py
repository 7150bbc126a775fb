"""PPO's updates."""

import copy

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from Algorithm.Config import PPOConfig
from Algorithm.PPO import PPO
from tests.Algorithm.trainers import build, needs_cuda
from tests.helpers import DeviceWorld, student_for


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.02)])
def test_the_first_minibatch_has_a_ratio_of_one(env, task, statistics, precision, tolerance):
    trainer = build(env, task, statistics, mode="ImpaalaMid")
    trainer.student.precision = precision
    trainer.collect_rollout()
    batch = trainer.rollout.minibatch(torch.randperm(16))
    with torch.no_grad():
        ratio = (trainer.student.distribution(batch.obs).log_prob(batch.u) - batch.log_prob).exp()
    assert (ratio - 1).abs().max() < tolerance


def test_a_ratio_that_underflows_leaves_every_scalar_finite(env, task, statistics):
    trainer = build(env, task, statistics, mode="State")
    trainer.collect_rollout()
    trainer.compute_targets()
    batch = trainer.rollout.minibatch(torch.arange(16))
    policy, value, *_ = trainer.student(batch.obs)
    loss = trainer.ppo_loss(batch, policy, value, torch.zeros(16))
    assert all(torch.isfinite(scalar) for scalar in (loss.total, *loss.scalars.values()))


def test_the_budget_of_updates_is_kept(env, task, statistics):
    trainer = build(env, task, statistics, mode="State", config=PPOConfig(rollout_steps=8, minibatch_size=4, epochs=4))
    trainer.step(budget=3)
    assert trainer.optimization_steps == 3
    assert trainer.samples_seen == 12
    trainer.step(budget=100)
    assert trainer.optimization_steps == 3 + 16


class ReadBacks(TorchDispatchMode):
    """Counts the operations for which the CPU waits for a GPU."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += function in (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default)
        return function(*arguments, **(named or {}))


def test_a_world_on_a_device_gives_the_same_numbers_and_is_waited_for_once_in_a_step(env, task, statistics):
    config = PPOConfig(num_envs=2, rollout_steps=60, minibatch_size=60, epochs=1)
    here = build(env, task, statistics, mode="State", config=config)
    expected = [here.step(10) for _ in range(3)]
    there = build(DeviceWorld(env), task, statistics, mode="State", config=config)
    with ReadBacks() as read_backs:
        scalars = there.collect_rollout()
    assert read_backs.count == 60
    there.compute_targets()
    scalars |= there.learn(10)
    there.rollout.carry_over()
    assert str([scalars, *(there.step(10) for _ in range(2))]) == str(expected)
    returns = [scalars["training/episode_return"] for scalars in expected]
    assert np.isnan(returns[:2]).all()  # the first episodes were staggered
    assert returns[2] < -20
    assert str(there.own_state()) == str(here.own_state())


@needs_cuda
def test_a_world_on_a_gpu_is_trained_in_and_resumed(env, task, statistics):
    trainer = build(env, task, statistics)
    trainer = type(trainer)(trainer.student.cuda(), DeviceWorld(env, "cuda"), trainer.config, 0)
    trainer.start()
    trainer.step(budget=4)
    state = copy.deepcopy(trainer.state_dict())
    after = trainer.step(budget=4)
    trainer.load_state_dict(state)
    assert trainer.step(budget=4)["training/loss"] == pytest.approx(after["training/loss"], rel=0.05)


def test_a_critic_of_the_state_is_asked_without_frames_and_trained_beside_the_actor(env, task, statistics, monkeypatch):
    student = student_for(env, task, statistics, critic="state")
    trainer = PPO(student, env, PPOConfig(num_envs=2, rollout_steps=101, minibatch_size=101, epochs=1), 0)
    trainer.start()
    asked, value = [], student.value
    monkeypatch.setattr(student, "value", lambda obs: asked.append(set(obs)) or value(obs))
    outputs = []
    monkeypatch.setattr(trainer, "_outputs", lambda **obs: outputs.append(trainer.outputs(**obs)) or outputs[-1])
    trainer.collect_rollout()
    rollout = trainer.rollout
    assert [keys for keys in asked if "Frame" not in keys] == [{"State", "PartialState"}] * 2  # at the two ends
    t, n = 99, 0
    following = value({"State": rollout.vectors["State"][t + 1]})[n]  # of the next episode
    assert rollout.done[t, n]
    assert not torch.isclose(rollout.next_value[t, n], following)
    trainer.compute_targets()
    before = copy.deepcopy(student.state_dict())
    trainer.learn(1)
    changed = {name for name, weight in student.state_dict().items() if not torch.equal(weight, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"encoders", "lift", "actor", "state_critic"}
