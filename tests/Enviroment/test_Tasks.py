"""A task is one more `Task`."""

import numpy as np
import torch

from Algorithm.Test_model import ZeroPolicy, evaluate
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_vector_env
from Models.Model_Pusher import StateStatistics, make_student
from Models.Utils import FrameStacker


def test_a_second_task_is_one_more_task():
    """Reacher through environment, frames, a student's forward pass, and evaluation."""
    reacher = TASKS["Reacher"]
    env = make_vector_env(reacher, 2, 1, seed=0)
    obs, _ = env.reset()
    assert obs["Frame"].shape == (2, 64, 128)
    assert obs["Frame"].std() > 5
    statistics = StateStatistics(np.zeros(10), np.ones(10))
    torch.manual_seed(0)
    student = make_student(
        "ImpaalaSmall", env.single_observation_space, env.single_action_space, reacher.proprioception, statistics, 4
    )
    stacker = FrameStacker(reacher.stack, reacher.stack_stride)
    actions = student.act({**obs, "Frame": stacker.reset(obs["Frame"])})
    assert actions.shape == (2, 2)
    result = evaluate(student, env, reacher, range(3), teacher=ZeroPolicy(env.single_action_space))
    assert result.returns.shape == (3,)
    assert (result.returns < 0).all()
    env.close()
