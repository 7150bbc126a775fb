"""Online distillation by student or teacher."""

import copy
import math

import pytest
import torch

from Algorithm.Config import StudentDistillationConfig, TeacherDistillationConfig
from Algorithm.Losses import distillation_kl
from Algorithm.StudentTeacher_distillation import StudentDistillation, TeacherDistillation
from Enviroment.Utils import make_vector_env
from tests.helpers import student_for

SIZES = {"num_envs": 2, "rollout_steps": 8, "minibatch_size": 16, "epochs": 2}


def online(env, task, statistics, teacher, config, mode="State"):
    method = TeacherDistillation if isinstance(config, TeacherDistillationConfig) else StudentDistillation
    trainer = method(student_for(env, task, statistics, mode), env, task, config, 0, teacher=teacher)
    trainer.start()
    return trainer


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_student_and_teacher_distillation_differ_in_who_acts(task, statistics, teacher, noise):
    env = make_vector_env(task, 2, 1)
    by_student = online(env, task, statistics, teacher, StudentDistillationConfig(**SIZES, rl_coef=0))
    by_student.collect()
    by_student.prepare()
    by_teacher = online(
        env,
        task,
        statistics,
        teacher,
        TeacherDistillationConfig(**SIZES, teacher_noise=noise, noise_correlation=0, value_coefficient=0),
    )
    by_teacher.collect()
    by_teacher.prepare()
    u, labels = by_teacher.rollout.u.flatten(0, 1), by_teacher.rollout.teacher
    spread = ((u - labels.mean) / labels.log_std.exp()).std()
    assert spread == pytest.approx(noise, abs=0.2)
    student, _ = by_student.student(by_student.rollout.observation(0))
    assert (by_student.rollout.u[0] - student.mean).abs().max() < 4 * student.log_std.exp().max()
    # Nothing else differs: on one rollout both have one loss.
    batch = by_teacher.rollout.minibatch(torch.arange(16))
    assert by_teacher.loss(batch)[0].item() == by_student.loss(batch)[0].item()
    env.close()


def test_student_distillation_adds_ppo_and_teacher_distillation_a_critic(task, statistics, teacher):
    env = make_vector_env(task, 2, 1, frames=False)
    trainer = online(env, task, statistics, teacher, StudentDistillationConfig(**SIZES, rl_coef=0.5))
    trainer.collect()
    trainer.prepare()
    batch = trainer.rollout.minibatch(torch.arange(16))
    policy, value = trainer.student(batch.obs)
    kl = distillation_kl(batch.teacher, policy).mean()
    ppo, _ = trainer.ppo_loss(batch, policy, value, trainer.ratio(batch, policy))
    torch.testing.assert_close(trainer.loss(batch)[0], kl + 0.5 * ppo)
    trainer = online(env, task, statistics, teacher, TeacherDistillationConfig(**SIZES))
    critic = copy.deepcopy(trainer.student.critic.state_dict())
    stats = trainer.step(100)
    assert all(not torch.equal(value, critic[key]) for key, value in trainer.student.critic.state_dict().items())
    for key in ("distillation_kl", "action_accuracy", "entropy", "value_loss"):
        assert math.isfinite(stats[f"training/{key}"])
    env.close()
