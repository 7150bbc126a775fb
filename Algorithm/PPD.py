"""Proximal policy distillation (Spigler 2025, https://openreview.net/forum?id=WfVXe88oMh): PPO plus a distillation term."""

from Algorithm.Config import PPDConfig
from Algorithm.Losses import Loss, distillation_kl, ppd_term
from Algorithm.PPO import GuidedPPO
from Algorithm.Rollout import GuidedMinibatch


class PPD(GuidedPPO):
    """PPO with lambda x E[max(r, 1 - clip) KL(teacher || student)] added to its loss; lambda is `PPD_parameter`."""

    config: PPDConfig

    def loss(self, batch: GuidedMinibatch) -> Loss:
        """Return the loss of a minibatch."""
        policy, value, hidden, _ = self.student(batch.obs)
        ratio = self.ratio(batch, policy)
        ppo = self.ppo_loss(batch, policy, value, ratio)
        kl = distillation_kl(batch.teacher, policy)
        total = ppo.total + self.learner.scheduled["PPD_parameter"] * ppd_term(kl, ratio, self.config.clip)
        return Loss(total, ppo.scalars | self.imitation_scalars(batch, policy, kl), hidden=hidden)
