"""Online distillation: the student imitates its teacher on the states that one of the two drives through."""

import torch

from Algorithm.Config import StudentDistillationConfig, TeacherDistillationConfig
from Algorithm.Losses import action_accuracy, distillation_kl, value_loss
from Algorithm.PPO import GuidedPPO
from Algorithm.Rollout import Minibatch
from Models.Base_Model import SquashedGaussian


class OnlineDistillation(GuidedPPO):
    """Minimizes E[KL(teacher || student)] on rollouts; Spigler 2025 (https://openreview.net/forum?id=WfVXe88oMh), section 3.

    With a `StudentDistillationConfig` the student drives, stochastically, and `rl_coef` x PPO's loss is added. With a
    `TeacherDistillationConfig` the teacher drives; the critic learns from its rewards, and nothing else does: PPO's ratio
    has no meaning for actions that the student did not choose.
    """

    config: StudentDistillationConfig | TeacherDistillationConfig  # type: ignore[assignment]

    def drive(self, t: int, policy: SquashedGaussian) -> torch.Tensor:
        """Return the pre-tanh actions [N, A] of who drives."""
        if isinstance(self.config, StudentDistillationConfig):
            return policy.sample()
        teacher = self.teacher.distribution({"State": self.rollout.vectors["State"][t]})
        return teacher.sample(self.config.teacher_noise)

    def loss(self, batch: Minibatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a minibatch and the scalars worth seeing."""
        assert batch.teacher is not None
        config = self.config
        policy, value = self.student(batch.obs)
        kl = distillation_kl(batch.teacher, policy).mean()
        if isinstance(config, StudentDistillationConfig):
            rl, scalars = self.ppo_loss(batch, policy, value, self.ratio(batch, policy))
            loss = kl + config.rl_coef * rl
        else:
            critic_loss = value_loss(value, batch.value, batch.returns, config.clip)
            entropy = policy.entropy().mean()
            loss = kl + config.value_coefficient * critic_loss - config.entropy_coefficient * entropy
            scalars = {"training/value_loss": critic_loss.detach(), "training/entropy": entropy.detach()}
        return loss, scalars | {
            "training/distillation_kl": kl.detach(),
            "training/action_accuracy": action_accuracy(batch.teacher, policy).detach(),
        }
