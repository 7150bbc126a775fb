"""Online distillation: the student imitates its teacher on the states that one of the two drives through.

Both minimize E[KL(teacher || student)] on rollouts; Spigler 2025 (https://openreview.net/forum?id=WfVXe88oMh), section 3.
"""

from typing import Any

import torch

from Algorithm.Config import StudentDistillationConfig, TeacherDistillationConfig
from Algorithm.Losses import action_accuracy, distillation_kl, value_loss
from Algorithm.PPO import GuidedPPO
from Algorithm.Rollout import Minibatch
from Common import Parallel
from Models.Base_Model import LastingNoise, SquashedGaussian


class StudentDistillation(GuidedPPO):
    """The student drives, stochastically; `rl_coef` x PPO's loss is added."""

    config: StudentDistillationConfig

    def loss(self, batch: Minibatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a minibatch and the scalars worth seeing."""
        assert batch.teacher is not None
        policy, value = self.student(batch.obs)
        kl = distillation_kl(batch.teacher, policy).mean()
        rl, scalars = self.ppo_loss(batch, policy, value, self.ratio(batch, policy))
        return kl + self.config.rl_coef * rl, scalars | {
            "training/distillation_kl": kl.detach(),
            "training/action_accuracy": action_accuracy(batch.teacher, policy).detach(),
        }


class TeacherDistillation(GuidedPPO):
    """The teacher drives, with noise that lasts; the critic learns from its rewards, and nothing else does.

    PPO's ratio has no meaning for actions that the student did not choose.
    """

    config: TeacherDistillationConfig

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self._noise = LastingNoise(self.config.teacher_noise, self.config.noise_correlation)

    def drive(self, t: int, policy: SquashedGaussian) -> torch.Tensor:
        """Return the teacher's pre-tanh actions [N, A]."""
        return self._noise.sample(self.teacher.distribution({"State": self.rollout.vectors["State"][t]}))

    def loss(self, batch: Minibatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a minibatch and the scalars worth seeing."""
        assert batch.teacher is not None
        config = self.config
        policy, value = self.student(batch.obs)
        kl = distillation_kl(batch.teacher, policy).mean()
        critic_loss = value_loss(value, batch.value, batch.returns, config.clip)
        entropy = policy.entropy().mean()
        return kl + config.value_coefficient * critic_loss - config.entropy_coefficient * entropy, {
            "training/value_loss": critic_loss.detach(),
            "training/entropy": entropy.detach(),
            "training/distillation_kl": kl.detach(),
            "training/action_accuracy": action_accuracy(batch.teacher, policy).detach(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that the ranks' `load_state_dict` need, the noise under way among it."""
        noise = self._noise.state
        return super().state_dict() | {"noise": Parallel.exchange(None if noise is None else noise.cpu())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
        noise = state["noise"][Parallel.rank()]
        self._noise.state = None if noise is None else noise.to(self.device)
