"""Online distillation: the student imitates its teacher on rollouts that one of the two drives.

Both methods minimize E[KL(teacher || student)]; Spigler 2025 (https://openreview.net/forum?id=WfVXe88oMh), section 3.
"""

from typing import Any

import torch

from Algorithm.Config import OnlineDistillationConfig, StudentDistillationConfig, TeacherNoiseConfig
from Algorithm.Losses import Loss, distillation_kl, value_loss
from Algorithm.PPO import GuidedPPO
from Algorithm.Rollout import GuidedMinibatch
from Common import Parallel
from Enviroment.World import World
from Models.Base_Model import ActorCritic, GaussianPolicy
from Models.Distributions import CorrelatedNoise, Gaussian


class StudentDistillation(GuidedPPO):
    """The student drives, stochastically; `rl_coef` x PPO's loss is added."""

    config: StudentDistillationConfig

    def loss(self, batch: GuidedMinibatch) -> Loss:
        """Return the loss of a minibatch."""
        policy, value, hidden, _ = self.student(batch.obs)
        kl = distillation_kl(batch.teacher, policy)
        ppo = self.ppo_loss(batch, policy, value, self.ratio(batch, policy))
        total = kl.mean() + self.learner.scheduled["rl_coef"] * ppo.total
        return Loss(total, ppo.scalars | self.imitation_scalars(batch, policy, kl), hidden=hidden)


class TeacherDistillation(GuidedPPO):
    """The teacher drives, with noise. Its rewards teach the critic, and nothing else.

    PPO's ratio has no meaning for actions that the student did not choose.
    """

    def __init__(
        self,
        student: ActorCritic,
        world: World,
        config: OnlineDistillationConfig,
        seed: int,
        *,
        teacher: GaussianPolicy,
        noise: TeacherNoiseConfig,
    ):
        super().__init__(student, world, config, seed, teacher=teacher)
        self._noise = CorrelatedNoise(noise.teacher_noise, noise.noise_correlation)

    def drive(self, t: int, policy: Gaussian) -> torch.Tensor:
        """Return the teacher's pre-tanh actions [N, A]."""
        obs = {key: self.rollout.vectors[key][t] for key in self.teacher.inputs}
        return self._noise.sample(self.teacher.distribution(obs))

    def loss(self, batch: GuidedMinibatch) -> Loss:
        """Return the loss of a minibatch."""
        config, (policy, value, hidden, _) = self.config, self.student(batch.obs)
        kl = distillation_kl(batch.teacher, policy)
        critic_loss = value_loss(value, batch.value, batch.returns, config.clip)
        entropy = policy.entropy().mean()
        total = (
            kl.mean() + config.value_coefficient * critic_loss - self.learner.scheduled["entropy_coefficient"] * entropy
        )
        scalars = {"value_loss": critic_loss, "entropy": entropy}
        return Loss(total, scalars | self.imitation_scalars(batch, policy, kl), hidden=hidden)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, the current noise included."""
        noise = self._noise.state
        return super().state_dict() | {"noise": Parallel.exchange(None if noise is None else noise.cpu())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        noise = state["noise"][Parallel.rank()]
        self._noise.state = None if noise is None else noise.to(self.device)
