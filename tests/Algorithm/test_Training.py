"""The training loop notices what goes wrong."""

import torch

from Algorithm.Training import CollapseWatch
from Enviroment.Utils import make_world
from Models.Model_Pusher import make_student


def test_a_collapsed_policy_is_noticed_once(task, statistics):
    env = make_world(task, 1, 1, frames=False)
    student = make_student("State", env.spaces, env.action_space, (), statistics, 4)
    env.close()
    student.actor[-1].bias.data[7:] = -100.0  # every log_std at its smallest
    policy = student.distribution({"State": torch.zeros(512, 23)})
    entropy = policy.entropy().mean().item()
    watch = CollapseWatch(student)
    rows = [(entropy, 0.9), (entropy + 10, 0.5), (entropy, 0.89), (entropy, 0.5), (entropy, 0.4)]
    found = [watch({"training/entropy": e, "training/action_accuracy": a}) for e, a in rows]
    assert found == [False, False, False, True, False]
