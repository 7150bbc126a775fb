"""Losses against numbers worked out by hand, and against PyTorch's distributions."""

import pytest
import torch
from torch.distributions import (
    Independent,
    Normal,
    kl_divergence,
)

from Algorithm.Losses import (
    action_accuracy,
    distillation_kl,
    gae,
    imitation_loss,
    nll,
    ppd_term,
    ppo_policy_loss,
    value_loss,
)
from Models.Distributions import FAMILIES, ClippedGaussian, SquashedGaussian
from tests.helpers import SCALE, SHIFT, gaussian


def test_gae_against_hand_worked_numbers_with_a_truncation_in_the_middle():
    # gamma 0.5, lambda 0.5. Step 1 truncates: its bootstrap is 8, the value of the episode's own last observation.
    advantages = gae(
        rewards=torch.tensor([[1.0], [2.0], [3.0]]),
        values=torch.tensor([[4.0], [5.0], [6.0]]),
        next_values=torch.tensor([[5.0], [8.0], [7.0]]),
        terminated=torch.tensor([[False], [False], [False]]),
        done=torch.tensor([[False], [True], [False]]),
        gamma=0.5,
        lam=0.5,
    )
    # deltas: 1+2.5-4=-0.5, 2+4-5=1, 3+3.5-6=0.5; the sum is cut after step 1.
    torch.testing.assert_close(advantages, torch.tensor([[-0.5 + 0.25 * 1.0], [1.0], [0.5]]))


def test_gae_does_not_bootstrap_from_a_terminal_state():
    done = torch.tensor([[True]])
    advantages = gae(torch.ones(1, 1), torch.zeros(1, 1), torch.full((1, 1), 100.0), done, done, 0.99, 0.95)
    assert advantages.item() == 1.0


def test_kl_against_torch_distributions():
    teacher, student = gaussian(0), gaussian(1)
    expected = kl_divergence(
        Independent(Normal(teacher.mean, teacher.log_std.exp()), 1),
        Independent(Normal(student.mean, student.log_std.exp()), 1),
    )
    torch.testing.assert_close(distillation_kl(teacher, student), expected)


@pytest.mark.parametrize("family", FAMILIES.values())
def test_kl_against_a_monte_carlo_estimate_of_each_family(family):
    torch.manual_seed(0)
    teacher, student = gaussian(2, batch=1, low=-1.5), gaussian(3, batch=1, low=-1.0)
    teacher = family(teacher.mean * 0.3, teacher.log_std, SCALE, SHIFT)
    student = family(student.mean * 0.3, student.log_std, SCALE, SHIFT)
    many = family(teacher.mean.expand(200_000, 7), teacher.log_std.expand(200_000, 7), SCALE, SHIFT)
    u = many.sample()
    estimate = (many.log_prob(u) - student.log_prob(u)).mean()
    torch.testing.assert_close(distillation_kl(teacher, student)[0], estimate, rtol=0.02, atol=0.02)


def test_kl_clamps_what_a_student_cannot_express():
    far = SquashedGaussian(torch.full((1, 7), 50.0), torch.full((1, 7), -9.0), SCALE, SHIFT)
    near = SquashedGaussian(torch.full((1, 7), 3.0), torch.full((1, 7), -4.0), SCALE, SHIFT)
    assert distillation_kl(far, near).item() == pytest.approx(0, abs=1e-6)


def test_nll_is_finite_with_gradient_at_saturated_actions():
    mean = torch.zeros(2, 7, requires_grad=True)
    log_std = torch.full((2, 7), -1.0, requires_grad=True)
    loss = nll(SquashedGaussian(mean, log_std, SCALE, SHIFT), torch.tensor([[20.0] * 7, [-20.0] * 7])).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(mean.grad).all()
    assert (mean.grad != 0).all()


def test_ppo_policy_loss_clips_on_both_sides():
    ratio, advantages = torch.tensor([2.0, 0.5, 2.0, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert ppo_policy_loss(ratio, advantages, 0.3).item() == pytest.approx(-(1.3 + 0.5 - 2.0 - 0.7) / 4)


def test_value_loss_takes_the_larger_of_clipped_and_unclipped():
    # From 0 the value moved to 1, towards the return 1; within the clip of 0.3 it would be 0.7 away.
    loss = value_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([1.0]), 0.3)
    assert loss.item() == pytest.approx(0.5 * 0.7**2)


def test_ppd_term_weighs_by_the_ratio_from_below():
    assert ppd_term(torch.tensor([1.0, 1.0]), torch.tensor([0.1, 3.0]), 0.3).item() == pytest.approx((0.7 + 3.0) / 2)


def test_errors_are_what_the_losses_exceed_their_smallest_values_by():
    generator = torch.Generator().manual_seed(0)
    scale, shift = torch.full((7,), 2.0), torch.zeros(7)
    teacher = SquashedGaussian(2 * torch.randn(64, 7, generator=generator), torch.full((64, 7), -2.0), scale, shift)
    bounded = teacher.mean.clamp(-3, 3)
    student = SquashedGaussian(
        bounded + torch.randn(64, 7, generator=generator), torch.full((64, 7), -1.0), scale, shift
    )
    perfect = SquashedGaussian(bounded, torch.full((64, 7), -4.0), scale, shift)
    losses, errors = imitation_loss("NLL", teacher, student)
    least, nothing = imitation_loss("NLL", teacher, perfect)
    torch.testing.assert_close(errors, losses - least, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(nothing, torch.zeros(64))
    losses, errors = imitation_loss("KL", teacher, student)
    torch.testing.assert_close(errors, losses)
    torch.testing.assert_close(losses, distillation_kl(teacher, student))


def test_a_saturated_teacher_leaves_loss_and_gradient_finite():
    mean = torch.zeros(1, 7, requires_grad=True)
    scale, shift = torch.full((7,), 2.0), torch.zeros(7)
    student = SquashedGaussian(mean, torch.full((1, 7), -4.0), scale, shift)
    teacher = SquashedGaussian(torch.full((1, 7), 50.0), torch.full((1, 7), 2.0), scale, shift)
    for loss_type in ("NLL", "KL"):
        losses, errors = imitation_loss(loss_type, teacher, student)
        (gradient,) = torch.autograd.grad(losses.sum(), mean)
        assert losses.isfinite().all()
        assert errors.isfinite().all()
        assert gradient.isfinite().all()


def test_action_accuracy_is_of_the_actions_that_are_taken():
    scale, shift = torch.ones(2), torch.zeros(2)
    teacher = ClippedGaussian(torch.tensor([[9.0, 0.5]]), torch.zeros(1, 2), scale, shift)
    student = ClippedGaussian(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2), scale, shift)
    assert action_accuracy(teacher, student).item() == pytest.approx(1 - 0.5**2 / 2)  # 9 and 2 are both clipped to 1
