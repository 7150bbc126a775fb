"""Small trainers by rollouts."""

import pytest
import torch

from Algorithm.Config import PPDConfig, PPOConfig, TeacherNoiseConfig
from Algorithm.PPO import PPO
from tests.helpers import student_for

SIZES = {"num_envs": 2, "rollout_steps": 8, "minibatch_size": 16, "epochs": 2}
SMALL, SMALL_PPD = PPOConfig(**SIZES), PPDConfig(**SIZES)


def build(env, task, statistics, method=PPO, mode="ImpaalaSmall", config=SMALL, memory="none", **arguments):
    trainer = method(student_for(env, task, statistics, mode, memory=memory), env, config, 0, **arguments)
    trainer.start()
    return trainer


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])

NOISE = TeacherNoiseConfig(teacher_noise=1.0, noise_correlation=0.5)
META = {"task": "Pusher", "teacher_sha256": "0", "render": {"quality": "fast"}}
