"""Updates captured once and then replayed."""

import pytest
import torch

from Algorithm.Config import PPDConfig
from Algorithm.CUDA_graphs import GraphedFunction
from Algorithm.PPD import PPD
from tests.Algorithm.trainers import SIZES, needs_cuda
from tests.helpers import student_for


@needs_cuda
@pytest.mark.parametrize(
    ("precision", "memory", "critic"),
    [("fp32", "none", "same"), ("bf16", "none", "same"), ("fp32", "none", "state"), ("fp32", "gru", "same")],
)
def test_a_captured_update_computes_what_one_launched_kernel_by_kernel_does(
    env, task, statistics, teacher, precision, memory, critic
):
    config = PPDConfig(**SIZES, entropy_coefficient=0, window=4)  # the entropy's estimate is random
    student = student_for(env, task, statistics, memory=memory, critic=critic).to("cuda")
    student.precision = precision
    trainer = PPD(student, env, config, 0, teacher=teacher.to("cuda"))
    trainer.start()
    graphed = GraphedFunction(student, trainer.learner._gradients)
    for samples in (16, 16, 7, 16):  # a new rollout each time, and another shape in between
        trainer.collect_rollout()
        with torch.no_grad():
            seen = trainer.rollout.observation(0)
            torch.testing.assert_close(trainer._outputs(**seen), trainer.outputs(**seen), rtol=1e-2, atol=1e-2)
        trainer.compute_targets()
        indices = trainer.rollout.shuffled()[: samples // trainer.window].flatten()
        results = []
        for compute in (graphed, trainer.learner._gradients):
            for parameter in student.parameters():
                parameter.grad = None
            scalars = compute(indices=indices)
            results.append((scalars, [parameter.grad.clone() for parameter in student.parameters()]))
        (scalars, gradients), (expected_scalars, expected) = results
        assert scalars.keys() == expected_scalars.keys()
        for name, value in expected_scalars.items():
            if name != "training/entropy":
                torch.testing.assert_close(scalars[name], value.detach(), rtol=1e-2, atol=1e-4)
        for one, other in zip(gradients, expected):
            assert (one - other).norm() <= 0.02 * other.norm() + 1e-6
        trainer.learner.optimizer.step()
        trainer.rollout.carry_over()
    assert graphed(indices=indices)["training/entropy"] != graphed(indices=indices)["training/entropy"]


@needs_cuda
def test_augmentation_and_the_hidden_state_are_in_the_graph(env, task, statistics, teacher):
    augment = ("shift=2", "crop=0.1", "brightness=20", "contrast=0.2", "noise=5", "cutout=16")
    config = PPDConfig(**SIZES, hidden_state=1.0, augment=augment)
    student = student_for(env, task, statistics, predicts=True).to("cuda")
    trainer = PPD(student, env, config, 0, teacher=teacher.to("cuda"))
    trainer.start()
    trainer.collect_rollout()
    trainer.compute_targets()
    indices = torch.arange(16, device="cuda")
    graphed = GraphedFunction(student, trainer.learner._gradients)
    first, second = (graphed(indices=indices) for _ in range(2))
    assert first["training/hidden_state_error"] > 0
    assert first["training/hidden_state_error"] != second["training/hidden_state_error"]  # other pictures


@needs_cuda
def test_a_scheduled_number_changes_between_replays(env, task, statistics, teacher):
    config = PPDConfig(
        **SIZES, optimization_steps=5, PPD_parameter="4:0:linear", learning_rate=0.0, learning_rate_end=0.0
    )
    trainer = PPD(student_for(env, task, statistics, "State").to("cuda"), env, config, 0, teacher=teacher.to("cuda"))
    trainer.start()
    trainer.collect_rollout()
    trainer.compute_targets()
    seen = [trainer.learner.update(indices=torch.arange(16, device="cuda")) for _ in range(5)]  # one graph
    assert [float(scalars["training/PPD_parameter"]) for scalars in seen] == [4, 3, 2, 1, 0]
    losses = torch.stack([scalars["training/loss"] for scalars in seen])
    torch.testing.assert_close(losses.diff(), (losses[4] - losses[0]).expand(4) / 4)
