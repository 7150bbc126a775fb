"""PPD's updates, repeated and resumed."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from Algorithm.Config import PPDConfig
from Algorithm.PPD import PPD
from Algorithm.PPO import PPO
from Algorithm.Test_model import evaluate
from Enviroment.Utils import make_world
from Models.Model_Pusher import make_student
from tests.Algorithm.trainers import SIZES, SMALL, SMALL_PPD, build, needs_cuda
from tests.helpers import student_for


def test_an_update_changes_the_student_and_not_the_teacher(env, task, statistics, teacher):
    trainer = build(env, task, statistics, PPD, config=SMALL_PPD, teacher=teacher)
    student_before = copy.deepcopy(trainer.student.state_dict())
    teacher_before = copy.deepcopy(teacher.state_dict())
    stats = trainer.step(budget=10)
    assert all(np.isfinite(value) or key == "training/episode_return" for key, value in stats.items())
    assert all(torch.equal(value, teacher_before[key]) for key, value in teacher.state_dict().items())
    changed = [not torch.equal(value, student_before[key]) for key, value in trainer.student.state_dict().items()]
    names = list(student_before)
    assert all(change or name == "encoders.0.background" for change, name in zip(changed, names))


def test_the_hidden_state_and_augmentation_are_trained_on_in_rollouts_too(env, task, statistics, teacher):
    def stats(**settings):
        config = PPDConfig(**SIZES, **settings)
        student = student_for(env, task, statistics, predicts="hidden_state" in settings)
        trainer = PPD(student, env, config, 0, teacher=teacher)
        trainer.start()
        return trainer.step(budget=2)

    plain, predicting, noisy = stats(), stats(hidden_state=1.0), stats(augment=("noise=50",))
    assert predicting["training/hidden_state_error"] > 0
    assert "training/hidden_state_error" not in plain
    assert noisy["training/loss"] != plain["training/loss"]


def test_ppd_without_its_term_is_ppo(env, task, statistics, teacher):
    trainer = build(env, task, statistics, PPD, config=PPDConfig(**SIZES, PPD_parameter=0), teacher=teacher)
    trainer.collect_rollout()
    trainer.compute_targets()
    batch = trainer.rollout.minibatch(torch.arange(16))
    torch.manual_seed(1)
    with_term = trainer.loss(batch).total
    plain = PPO(trainer.student, env, SMALL, 0)
    torch.manual_seed(1)
    without = plain.loss(batch).total
    assert with_term.item() == without.item()
    trainer.learner.scheduled["PPD_parameter"].fill_(5)
    assert trainer.loss(batch).total.item() > without.item()


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_same_seed_same_numbers_and_a_checkpoint_goes_on_exactly(task, statistics, teacher, memory):
    config = replace(SMALL_PPD, window=4)

    def build_in(env):
        return build(env, task, statistics, PPD, config=config, memory=memory, teacher=teacher)

    def run(interrupted):
        env = make_world(task, 2, 1 + interrupted)
        trainer = build_in(env)
        stats = [trainer.step(10) for _ in range(2)]
        if interrupted:
            state = copy.deepcopy(trainer.state_dict())
            env.close()
            torch.manual_seed(123)
            env = make_world(task, 2, 1)
            trainer = build_in(env)
            trainer.load_state_dict(state)
        stats += [trainer.step(10) for _ in range(2)]
        env.close()
        return stats, trainer.student.state_dict()

    (one, weights), (same, _), (resumed, resumed_weights) = run(False), run(False), run(True)
    assert str(one) == str(same) == str(resumed)
    assert all(torch.equal(weights[key], resumed_weights[key]) for key in weights)


@pytest.mark.parametrize("critic", ["same", "state"])
def test_while_the_critic_warms_up_the_actor_does_not_change(env, task, statistics, teacher, critic):
    config = PPDConfig(**SIZES, critic_warmup=3)
    trainer = PPD(student_for(env, task, statistics, critic=critic, predicts=True), env, config, 0, teacher=teacher)
    trainer.start()

    def changed(updates):
        before = copy.deepcopy(trainer.student.state_dict())
        trainer.step(updates)
        now = trainer.student.state_dict()
        return {name.partition(".")[0] for name in now if not torch.equal(now[name], before[name])}

    own = {"same": "critic", "state": "state_critic"}[critic]
    assert changed(2) == {own}
    state = copy.deepcopy(trainer.state_dict())
    trainer.load_state_dict(state)
    assert changed(1) == {own}
    assert changed(1) == {own, "encoders", "lift", "actor"}


@needs_cuda
def test_the_actor_is_frozen_and_freed_on_a_gpu(env, task, statistics, teacher):
    config = PPDConfig(**SIZES, critic_warmup=2)
    trainer = PPD(student_for(env, task, statistics, "State").cuda(), env, config, 0, teacher=teacher.cuda())
    trainer.start()
    frozen = copy.deepcopy(trainer.student.actor.state_dict())
    for updates, same in ((2, True), (2, False)):
        trainer.step(updates)
        now = trainer.student.actor.state_dict()
        assert all(torch.equal(frozen[name], value) for name, value in now.items()) == same


@needs_cuda
def test_a_step_a_checkpoint_and_an_evaluation_on_cuda(env, task, statistics, teacher):
    student = make_student(
        "ImpaalaSmall",
        env.spaces,
        env.action_space,
        task.proprioception,
        statistics,
        task.stack,
    ).to("cuda")
    student.precision = "bf16"
    trainer = PPD(student, env, SMALL_PPD, 0, teacher=teacher.to("cuda"))
    trainer.start()
    stats = trainer.step(budget=10)
    assert np.isfinite(stats["training/loss"])
    state = copy.deepcopy(trainer.state_dict())
    after = trainer.step(budget=10)
    random = torch.cuda.get_rng_state()
    evaluate(student, env, task, [1900], teacher=teacher)
    assert torch.equal(torch.cuda.get_rng_state(), random)
    trainer.load_state_dict(state)
    assert trainer.step(budget=10)["training/loss"] == pytest.approx(after["training/loss"], rel=0.05)
