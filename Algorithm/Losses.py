"""The maths: pure functions, tensors in, tensors out. [T, N] is time by environments, [B] a batch, [A] action dimensions."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from Models.Distributions import LOG_STD_MAX, LOG_STD_MIN, Gaussian


@dataclass(frozen=True)
class Loss:
    """An algorithm's loss of a batch."""

    total: torch.Tensor  # is minimized
    scalars: dict[str, torch.Tensor] = field(default_factory=dict)  # for the metrics, by name
    errors: torch.Tensor | None = None  # of the samples, [B] >= 0, by which replay is prioritized
    hidden: torch.Tensor | None = None  # squared errors [B, P] of the state entries that the student predicts
    memory: dict[str, torch.Tensor] = field(default_factory=dict)  # what it remembers after each sample, [B, ...]


class ImitationLoss(NamedTuple):
    """The loss of every sample [B], and its error [B] >= 0, by which replay is prioritized."""

    losses: torch.Tensor
    errors: torch.Tensor


# Of u. Squashed: tanh(3) = 0.995, a saturated action as good as any beyond it. Clipped: even samples of the widest student
# (log_std 0) are then clipped, nearly all, where a teacher's are. A bound of 1 would do for mean actions, but would unclip
# half of the samples, and make every small error of a student's mean one of its action: an A2C teacher of HalfCheetah, whose
# means are up to 34, was cloned to an action accuracy of 0.9978 with a bound of 1, 0.9998 with 3.
TEACHER_MEAN_BOUND = 3.0


def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    next_values: torch.Tensor,
    terminated: torch.Tensor,
    done: torch.Tensor,
    gamma: float,
    lam: float,
) -> torch.Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, eq. 16, https://arxiv.org/abs/1506.02438).

    Args:
        rewards: r_t, [T, N].
        values: V(s_t), [T, N].
        next_values: V of the observation that r_t led to, [T, N]: of the episode's own last observation where it ended,
            never of the next episode's first.
        terminated: bool [T, N], the episode ended in a terminal state: nothing is bootstrapped.
        done: bool [T, N], terminated or truncated: the sum over time is cut.
        gamma: discount; `lam` is lambda.

    Returns:
        Advantages [T, N].
    """
    deltas = rewards + gamma * next_values * ~terminated - values
    advantages = torch.empty_like(deltas)
    running = torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        running = deltas[t] + gamma * lam * running * ~done[t]
        advantages[t] = running
    return advantages


def ppo_policy_loss(ratio: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """Clipped surrogate (Schulman et al. 2017, eq. 7, https://arxiv.org/abs/1707.06347) of `ratio`, `advantages` [B]."""
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()


def value_loss(values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """Half the squared error, the larger of the value's and of the value kept within `clip` of the old one ([B] all)."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns).square(), (clipped - returns).square()).mean()


def distillation_kl(teacher: Gaussian, student: Gaussian) -> torch.Tensor:
    """KL(teacher || student) [B], summed over action dimensions.

    Both are of one family. Tanh and scaling are bijections, and clipped policies are Gaussians before they are clipped: this
    is the KL of the Gaussians of u. The teacher's mean is first clamped to +-3 and its log_std to the student's range, or one
    saturated joint would dominate the loss.
    """
    mean = teacher.mean.clamp(-TEACHER_MEAN_BOUND, TEACHER_MEAN_BOUND)
    log_std = teacher.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    variance_ratio = (2 * (log_std - student.log_std)).exp()
    distance = ((mean - student.mean) * (-student.log_std).exp()).square()
    return 0.5 * (variance_ratio + distance - 1 - variance_ratio.log()).sum(-1)


def nll(student: Gaussian, u: torch.Tensor) -> torch.Tensor:
    """-log pi_student [B] of teacher actions u [B, A], before tanh or clipping, as a density in the environment's units."""
    return -student.log_prob(u)


def imitation_loss(loss_type: str, teacher: Gaussian, student: Gaussian) -> ImitationLoss:
    """Return the losses of imitating a teacher.

    `KL` is `distillation_kl`, and its own error. `NLL` is `nll` of the teacher's mean, clamped as for the KL. Its error is
    its excess over its smallest value, which it has at log_std = -4 and no residual.
    """
    if loss_type == "KL":
        kl = distillation_kl(teacher, student)
        return ImitationLoss(kl, kl.detach())
    u = teacher.mean.clamp(-TEACHER_MEAN_BOUND, TEACHER_MEAN_BOUND)
    with torch.no_grad():
        residual = (u - student.mean) * (-student.log_std).exp()
        error = (0.5 * residual.square() + student.log_std - LOG_STD_MIN).sum(-1)
    return ImitationLoss(nll(student, u), error)


def action_accuracy(teacher: Gaussian, student: Gaussian) -> torch.Tensor:
    """1 - the mean squared difference of both policies' mean actions scaled to [-1, 1]: a scalar."""
    return 1 - (student.bound(student.mean) - teacher.bound(teacher.mean)).square().mean()


def ppd_term(kl: torch.Tensor, ratio: torch.Tensor, clip: float) -> torch.Tensor:
    """E[max(r, 1 - clip) KL(teacher || student)], from [B] (Spigler 2025, https://openreview.net/forum?id=WfVXe88oMh).

    No gradient flows through the ratio: it would also lower the term by making the actions just taken less likely, which
    holds the student back where the KL is large.
    """
    return (ratio.detach().clamp(min=1 - clip) * kl).mean()
