"""Proximal policy optimization (Schulman et al. 2017, https://arxiv.org/abs/1707.06347): rollout and update."""

import math
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from Algorithm.Config import PPOConfig
from Algorithm.CUDA_graphs import graphed
from Algorithm.Learner import Learner, Trainer, mean_scalars
from Algorithm.Losses import Loss, action_accuracy, gae, ppo_policy_loss, value_loss
from Algorithm.Rollout import GuidedMinibatch, Minibatch, ReturnNormalizer, Rollout
from Common import Parallel
from Enviroment.World import World
from Models.Base_Model import ActorCritic, GaussianPolicy
from Models.Distributions import Gaussian

Batch = TypeVar("Batch", bound=Minibatch)


class PPO(Trainer, Generic[Batch]):
    """Trains a student by PPO; each `step` is one rollout and its updates.

    A method that learns from rollouts overrides `loss`, which the `Learner` may replay as a CUDA graph.

    Each of several ranks has a share of the environments, and takes its share of every minibatch from them. Advantages are
    normalized over the whole minibatch, rewards by the returns of all environments. Rewards, ends and returns stay on the
    world's device while a rollout is collected; the student's device gets them at its end.

    Args:
        student: the network, on the device it is trained on.
        world: this rank's training environments; the caller closes them.
        seed: of the first episodes and of every random number drawn in training.
        also: observation keys that the rollout keeps beside those of actor and critic.
    """

    unused = False  # whether some parameters of the student have no part in the loss, which several ranks have to know

    def __init__(self, student: ActorCritic, world: World, config: PPOConfig, seed: int, also: tuple[str, ...] = ()):
        super().__init__(student, config, seed)
        self.world, self.config = world, config
        optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
        self.rollout = Rollout(student, world, config.rollout_steps, also, self.window)
        gather = self.rollout.minibatch
        self.learner = Learner(student, optimizer, config, gather, self.loss, self.unused, config.critic_warmup)
        self._outputs = graphed(student, self.device, self.outputs)
        self.normalizer = ReturnNormalizer(world.num_envs, config.gamma, world.device)
        # So far; the first episodes, which are staggered, do not count.
        self._returns = torch.full((world.num_envs,), torch.nan, dtype=torch.float64, device=world.device)
        self._last_return = float("nan")

    def start(self) -> None:
        """Seed every random number and start the first episodes."""
        envs = self.world.num_envs
        first = Parallel.rank() * envs
        torch.manual_seed(self.seed + Parallel.rank())
        obs = self.world.reset(range(self.seed + first, self.seed + first + envs))
        for image in self.student.images:
            self.student.learn_background(image, np.concatenate(Parallel.exchange(obs[image].cpu().numpy())))
        self.rollout.write_observation(0, obs, torch.ones(envs, dtype=torch.bool))
        self.world.stagger(first, Parallel.count() * envs)

    def step(self, budget: int) -> dict[str, float]:
        """Collect a rollout and learn from it, in at most `budget` updates; returns scalars."""
        scalars = self.collect_rollout()
        self.compute_targets()
        scalars |= self.learn(budget)
        self.rollout.carry_over()
        return scalars

    @torch.no_grad()
    def collect_rollout(self) -> dict[str, float]:
        """Step the environments; returns the mean return of the episodes that ended last."""
        rollout, ended_returns = self.rollout, []
        kinds = torch.float64, torch.bool, torch.bool
        rewards, terminated, done = (
            torch.empty(rollout.reward.shape, dtype=kind, device=self.world.device) for kind in kinds
        )
        for t in range(rollout.steps):
            outputs = self._outputs(**rollout.observation(t))
            policy = self.student.gaussian(outputs["mean"], outputs["log_std"])
            rollout.value[t] = outputs["value"]
            rollout.u[t] = self.drive(t, policy)
            rollout.log_prob[t] = policy.log_prob(rollout.u[t])
            step = self.world.step(policy.action(rollout.u[t]).to(self.world.device))
            rewards[t], terminated[t], done[t] = step.reward, step.terminated, step.done
            rollout.write_observation(t + 1, step.obs, done[t])
            rollout.write_memory(t + 1, outputs)
            self._returns += rewards[t]
            ended = done[t].nonzero().flatten()  # how many they are, a GPU has to be waited for
            if len(ended):
                last_obs = rollout.final_observation(t, step.last_obs, ended)
                rollout.next_value[t, ended.to(self.device)] = self.student.value(last_obs)
                ended_returns.append(self._returns[ended])
                self._returns[ended] = 0
        rollout.terminated[:], rollout.done[:] = terminated, done
        last_value = self.student.value(rollout.observation(rollout.steps))
        following = torch.cat([rollout.value[1:], last_value[None]])
        rollout.next_value[:] = torch.where(rollout.done, rollout.next_value, following)
        rollout.reward[:] = self.normalizer(rewards, done)
        self.samples_collected += rewards.numel() * Parallel.count()
        if ended_returns:
            returns = torch.cat(ended_returns).cpu().numpy()
            if np.isfinite(returns).any():
                self._last_return = float(np.mean(returns[np.isfinite(returns)]))
        return {"training/episode_return": self._last_return}

    def outputs(self, **obs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the policy's `mean` and `log_std`, the `value`, and what the student remembers."""
        policy, value, _, memory = self.student(obs)
        return {"mean": policy.mean, "log_std": policy.log_std, "value": value, **memory}

    def drive(self, t: int, policy: Gaussian) -> torch.Tensor:
        """Return the pre-tanh actions [N, A] that are taken in step t: samples of the student's `policy`."""
        return policy.sample()

    def compute_targets(self) -> None:
        """Compute advantages and returns from the rollout's rewards and values."""
        rollout, gamma, lam = self.rollout, self.config.gamma, self.config.gae_lambda
        rollout.advantage[:] = gae(
            rollout.reward, rollout.value, rollout.next_value, rollout.terminated, rollout.done, gamma, lam
        )
        rollout.returns[:] = rollout.advantage + rollout.value

    def learn(self, budget: int) -> dict[str, float]:
        """Make `epochs` passes over the rollout, at most `budget` updates; returns their mean scalars.

        A pass ends with a smaller minibatch if `minibatch_size` does not divide the rollout. On CUDA that is a second graph.
        A minibatch of a student with a recurrent state is made of whole windows of steps, as many as it has room for.
        """
        updates: list[dict[str, torch.Tensor]] = []
        size = max(1, self.config.minibatch_size // Parallel.count() // self.window)
        for _ in range(self.config.epochs):
            for indices in self.rollout.shuffled().split(size):
                if len(updates) == budget:
                    break
                updates.append(self.learner.update(indices=indices.flatten()))
                self.samples_seen += indices.numel() * Parallel.count()
        return mean_scalars(updates)

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of a minibatch."""
        policy, value, hidden, _ = self.student(batch.obs)
        return replace(self.ppo_loss(batch, policy, value, self.ratio(batch, policy)), hidden=hidden)

    def ratio(self, batch: Minibatch, policy: Gaussian) -> torch.Tensor:
        """Return pi(a | s) / pi_old(a | s) [B] of the actions taken."""
        return (policy.log_prob(batch.u) - batch.log_prob).exp()

    def ppo_loss(self, batch: Minibatch, policy: Gaussian, value: torch.Tensor, ratio: torch.Tensor) -> Loss:
        """Return PPO's loss at the student's outputs for a minibatch."""
        config = self.config
        mean, std = Parallel.mean_and_std(batch.advantage)
        advantage = (batch.advantage - mean) / (std + 1e-8)
        policy_loss = ppo_policy_loss(ratio, advantage, config.clip)
        critic_loss = value_loss(value, batch.value, batch.returns, config.clip)
        entropy = policy.entropy().mean()
        total = (
            policy_loss
            + config.value_coefficient * critic_loss
            - self.learner.scheduled["entropy_coefficient"] * entropy
        )
        with torch.no_grad():
            scalars = {
                "policy_loss": policy_loss,
                "value_loss": critic_loss,
                "entropy": entropy,
                # A ratio that has underflown to 0 has no logarithm.
                "approximate_kl": (ratio - 1 - ratio.clamp(min=1e-38).log()).mean(),
                "clip_fraction": ((ratio - 1).abs() > config.clip).float().mean(),
            }
        return Loss(total, scalars)

    def own_state(self) -> dict[str, Any]:
        """Return this rank's rollout, environments and running statistics."""
        return {
            "rollout": self.rollout.state_dict(),
            "normalizer": self.normalizer.state_dict(),
            "environments": self.world.state(),
            "returns": self._returns.tolist(),
            "last_return": self._last_return,
        }

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continue from `own_state`."""
        self.rollout.load_state_dict(state["rollout"])
        self.normalizer.load_state_dict(state["normalizer"])
        self.world.restore(state["environments"])
        self._returns[:], self._last_return = torch.tensor(state["returns"], dtype=torch.float64), state["last_return"]


class GuidedPPO(PPO[GuidedMinibatch]):
    """PPO whose minibatches carry the policy of a `teacher` at every sample; the teacher is never trained."""

    def __init__(self, student: ActorCritic, world: World, config: PPOConfig, seed: int, *, teacher: GaussianPolicy):
        super().__init__(student, world, config, seed, also=teacher.inputs)
        self.teacher = teacher

    def compute_targets(self) -> None:
        """Compute advantages and returns, and the teacher's policy at every state."""
        super().compute_targets()
        self.rollout.ask(self.teacher)

    def learn(self, budget: int) -> dict[str, float]:
        """Make the updates of `PPO.learn`, and keep the smallest gap to the teacher, which schedules may follow."""
        scalars = super().learn(budget)
        gaps = Parallel.exchange(scalars.get("training/distillation_kl", math.inf))
        self.learner.gap = min(self.learner.gap, sum(gaps) / len(gaps))
        return scalars

    def imitation_scalars(self, batch: GuidedMinibatch, policy: Gaussian, kl: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return how far the student's policy is from its teacher's; `kl` is the distillation term [B]."""
        return {"distillation_kl": kl.mean(), "action_accuracy": action_accuracy(batch.teacher, policy)}
