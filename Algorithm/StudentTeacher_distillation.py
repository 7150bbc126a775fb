"""Online distillation: the student imitates its teacher on the states that one of the two drives through."""

from typing import Any

import torch

from Algorithm.Config import StudentDistillationConfig, TeacherDistillationConfig
from Algorithm.Losses import action_accuracy, distillation_kl, value_loss
from Algorithm.PPO import PPO
from Algorithm.Rollout import Minibatch
from Models.Base_Model import GaussianPolicy, SquashedGaussian


class OnlineDistillation(PPO):
    """Minimizes E[KL(teacher || student)] on rollouts; Spigler 2025 (https://openreview.net/forum?id=WfVXe88oMh), section 3.

    With a `StudentDistillationConfig` the student drives, stochastically, and `rl_coef` x PPO's loss is added. With a
    `TeacherDistillationConfig` the teacher drives; the critic learns from its rewards, and nothing else does: PPO's ratio
    has no meaning for actions that the student did not choose.

    Args:
        teacher: labels every state; never trained.
        arguments: PPO's.
    """

    config: StudentDistillationConfig | TeacherDistillationConfig  # type: ignore[assignment]

    def __init__(self, *arguments: Any, teacher: GaussianPolicy):
        super().__init__(*arguments)
        self.teacher = teacher

    def drive(self, t: int, policy: SquashedGaussian) -> torch.Tensor:
        """Return the pre-tanh actions [N, A] of who drives."""
        if isinstance(self.config, StudentDistillationConfig):
            return policy.sample()
        teacher = self.teacher.distribution({"State": self.rollout.vectors["State"][t]})
        return teacher.sample(self.config.teacher_noise)

    def prepare(self) -> None:
        """Also ask the teacher about every state of the rollout."""
        super().prepare()
        self.rollout.ask(self.teacher)

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
            loss = kl + config.value_coefficient * critic_loss
            scalars = {
                "training/value_loss": critic_loss.detach(),
                "training/entropy": policy.entropy().mean().detach(),
            }
        return loss, scalars | {
            "training/distillation_kl": kl.detach(),
            "training/action_accuracy": action_accuracy(batch.teacher, policy).detach(),
        }
