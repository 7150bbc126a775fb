"""Proximal policy distillation (Spigler 2025, https://openreview.net/forum?id=WfVXe88oMh): PPO plus a distillation term."""

import torch

from Algorithm.Config import PPDConfig
from Algorithm.Losses import action_accuracy, distillation_kl, ppd_term
from Algorithm.PPO import GuidedPPO
from Algorithm.Rollout import Minibatch


class PPD(GuidedPPO):
    """PPO with lambda x E[max(r, 1 - clip) KL(teacher || student)] added to its loss; lambda is `config.PPD_parameter`."""

    config: PPDConfig

    def loss(self, batch: Minibatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a minibatch and the scalars worth seeing."""
        assert batch.teacher is not None
        policy, value = self.student(batch.obs)
        ratio = self.ratio(batch, policy)
        loss, scalars = self.ppo_loss(batch, policy, value, ratio)
        kl = distillation_kl(batch.teacher, policy)
        return loss + self.config.PPD_parameter * ppd_term(kl, ratio, self.config.clip), scalars | {
            "training/distillation_kl": kl.detach().mean(),
            "training/action_accuracy": action_accuracy(batch.teacher, policy).detach(),
        }
