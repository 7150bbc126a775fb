"""Online distillation by student or teacher."""

import copy
import math

import pytest
import torch

from Algorithm.Config import OnlineDistillationConfig, StudentDistillationConfig, TeacherNoiseConfig
from Algorithm.Losses import distillation_kl
from Algorithm.StudentTeacher_distillation import StudentDistillation, TeacherDistillation
from Enviroment.Utils import make_world
from tests.helpers import student_for

SIZES = {"num_envs": 2, "rollout_steps": 8, "minibatch_size": 16, "epochs": 2}


def online(env, task, statistics, teacher, config, **noise):
    method = TeacherDistillation if noise else StudentDistillation
    trainer = method(student_for(env, task, statistics, "State"), env, config, 0, teacher=teacher, **noise)
    trainer.start()
    return trainer


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_student_and_teacher_distillation_differ_in_who_acts(task, statistics, teacher, noise):
    env = make_world(task, 2, 1)
    by_student = online(env, task, statistics, teacher, StudentDistillationConfig(**SIZES, rl_coef=0))
    by_student.collect_rollout()
    by_student.compute_targets()
    by_teacher = online(
        env,
        task,
        statistics,
        teacher,
        OnlineDistillationConfig(**SIZES, value_coefficient=0),
        noise=TeacherNoiseConfig(teacher_noise=noise, noise_correlation=0.0),
    )
    by_teacher.collect_rollout()
    by_teacher.compute_targets()
    u, labels = by_teacher.rollout.u.flatten(0, 1), by_teacher.rollout.teacher
    spread = ((u - labels.mean) / labels.log_std.exp()).std()
    assert spread == pytest.approx(noise, abs=0.2)
    student, *_ = by_student.student(by_student.rollout.observation(0))
    assert (by_student.rollout.u[0] - student.mean).abs().max() < 4 * student.log_std.exp().max()
    # Nothing else differs: on one rollout both have one loss.
    batch = by_teacher.rollout.minibatch(torch.arange(16))
    assert by_teacher.loss(batch).total.item() == by_student.loss(batch).total.item()
    env.close()


def test_student_distillation_adds_ppo_and_teacher_distillation_a_critic(task, statistics, teacher):
    env = make_world(task, 2, 1, frames=False)
    trainer = online(env, task, statistics, teacher, StudentDistillationConfig(**SIZES, rl_coef=0.5))
    trainer.collect_rollout()
    trainer.compute_targets()
    batch = trainer.rollout.minibatch(torch.arange(16))
    policy, value, *_ = trainer.student(batch.obs)
    kl = distillation_kl(batch.teacher, policy).mean()
    ppo = trainer.ppo_loss(batch, policy, value, trainer.ratio(batch, policy)).total
    torch.testing.assert_close(trainer.loss(batch).total, kl + 0.5 * ppo)
    config, noise = OnlineDistillationConfig(**SIZES), TeacherNoiseConfig()
    trainer = online(env, task, statistics, teacher, config, noise=noise)
    critic = copy.deepcopy(trainer.student.critic.state_dict())
    stats = trainer.step(100)
    assert all(not torch.equal(value, critic[key]) for key, value in trainer.student.critic.state_dict().items())
    for key in ("distillation_kl", "action_accuracy", "entropy", "value_loss"):
        assert math.isfinite(stats[f"training/{key}"])
    env.close()
