"""Proximal policy distillation (Spigler 2025, https://openreview.net/forum?id=WfVXe88oMh): PPO plus a distillation term."""

from typing import Any

import torch

from Algorithm.Losses import distillation_kl, ppd_term
from Algorithm.PPO import PPO
from Algorithm.Rollout import Minibatch
from Models.Base_Model import GaussianPolicy, SquashedGaussian


class PPD(PPO):
    """PPO with `coefficient` x E[max(r, 1 - clip) KL(teacher || student)] added to its loss.

    Args:
        teacher: sees the states of the student's rollouts, once each; never trained.
        coefficient: lambda, how much imitation weighs against reward.
        arguments: PPO's.
    """

    def __init__(self, *arguments: Any, teacher: GaussianPolicy, coefficient: float):
        super().__init__(*arguments)
        self.teacher, self.coefficient = teacher, coefficient

    @torch.no_grad()
    def prepare(self) -> None:
        """Also ask the teacher about every state of the rollout, in one pass."""
        super().prepare()
        self.rollout.teacher = self.teacher.distribution({"State": self.rollout.vectors["State"][:-1].flatten(0, 1)})

    def auxiliary_loss(
        self, batch: Minibatch, policy: SquashedGaussian, ratio: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the distillation term."""
        assert batch.teacher is not None
        kl = distillation_kl(batch.teacher, policy)
        return self.coefficient * ppd_term(kl, ratio, self.config.clip), {"training/distillation_kl": kl.mean()}
