"""PPO's updates."""

import pytest
import torch

from Algorithm.Config import PPOConfig
from tests.Algorithm.trainers import build


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
    policy, value, _ = trainer.student(batch.obs)
    loss = trainer.ppo_loss(batch, policy, value, torch.zeros(16))
    assert all(torch.isfinite(scalar) for scalar in (loss.total, *loss.scalars.values()))


def test_the_budget_of_updates_is_kept(env, task, statistics):
    trainer = build(env, task, statistics, mode="State", config=PPOConfig(rollout_steps=8, minibatch_size=4, epochs=4))
    trainer.step(budget=3)
    assert trainer.optimization_steps == 3
    assert trainer.samples_seen == 12
    trainer.step(budget=100)
    assert trainer.optimization_steps == 3 + 16
