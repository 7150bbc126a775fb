"""Proximal policy optimization (Schulman et al. 2017, https://arxiv.org/abs/1707.06347): rollout and update."""

from typing import Any

import numpy as np
import torch

from Algorithm.Checkpoint import random_state, restore_random_state
from Algorithm.Config import PPOConfig
from Algorithm.Losses import gae, ppo_policy_loss, value_loss
from Algorithm.Recorded import recorded
from Algorithm.Rollout import Minibatch, ReturnNormalizer, Rollout, mean_stats
from Algorithm.Utils import anneal
from Common import Parallel
from Enviroment.Tasks import Task
from Enviroment.Vector_env import WorkerVectorEnv
from Models.Base_Model import ActorCritic, GaussianPolicy, SquashedGaussian


class PPO:
    """Trains a student by PPO; each `step` is one rollout and its updates.

    `loss` may be recorded as a CUDA graph: nothing in it may depend on a tensor's value in Python, and what changes from
    update to update comes with the minibatch.

    Of several ranks each has a share of the environments, and of every minibatch as many samples, from its own. Advantages
    are normalized over the whole minibatch, rewards by the returns of all environments.

    Args:
        student: the network, on the device it is trained on.
        env: training environments, of several ranks this one's; owned by the caller.
        task: the task, for how frames are stacked.
        config: settings.
        seed: of the environments' first episodes and of every random number drawn in training.
    """

    unused = False  # whether parameters of the student have no part in the loss

    def __init__(self, student: ActorCritic, env: WorkerVectorEnv, task: Task, config: PPOConfig, seed: int):
        self.student, self.env, self.config, self._seed = student, env, config, seed
        self.device = student.scale.device
        self._loss = Parallel.averaging(student, self.loss, self.unused)
        self._outputs = recorded(student, self.device, self.outputs)
        self._gradients = recorded(student, self.device, self.gradients)
        self.optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
        space, actions = env.single_observation_space, env.single_action_space
        self.rollout = Rollout(
            space,
            actions.shape[0],
            config.rollout_steps,
            env.num_envs,
            task.stack,
            task.stack_stride,
            self.device,
        )
        self.normalizer = ReturnNormalizer(env.num_envs, config.gamma)
        self.optimization_steps = self.samples_collected = self.samples_seen = 0
        self._returns = np.full(
            env.num_envs, np.nan
        )  # of the episodes under way; the first, staggered ones do not count
        self._last_return = float("nan")

    def start(self) -> None:
        """Seed everything and start the first episodes; not after `load_state_dict`."""
        first, total = Parallel.rank() * self.env.num_envs, Parallel.count() * self.env.num_envs
        torch.manual_seed(self._seed + Parallel.rank())
        obs, _ = self.env.reset(seed=self._seed + first)
        self.env.stagger(first, total)
        if "Frame" in obs:
            self.student.learn_background(np.concatenate(Parallel.exchange(obs["Frame"])))
        self.rollout.write_observation(0, obs, np.ones(self.env.num_envs, bool))

    def step(self, budget: int) -> dict[str, float]:
        """Collect a rollout and learn from it, in at most `budget` gradient updates; returns what happened."""
        stats = self.collect()
        self.prepare()
        stats |= self.update(budget)
        self.rollout.carry_over()
        return stats

    @torch.no_grad()
    def collect(self) -> dict[str, float]:
        """Collect one rollout."""
        rollout, ended_returns = self.rollout, []
        shape = rollout.steps, self.env.num_envs
        rewards, terminated, done = np.empty(shape), np.empty(shape, bool), np.empty(shape, bool)
        for t in range(rollout.steps):
            outputs = self._outputs(**rollout.observation(t))
            policy = SquashedGaussian(outputs["mean"], outputs["log_std"], self.student.scale, self.student.shift)
            rollout.value[t] = outputs["value"]
            rollout.u[t] = self.drive(t, policy)
            rollout.log_prob[t] = policy.log_prob(rollout.u[t])
            action = policy.action(rollout.u[t]).cpu().numpy()
            obs, rewards[t], terminated[t], truncated, info = self.env.step(action)
            done[t] = terminated[t] | truncated
            rollout.write_observation(t + 1, obs, done[t])
            self._returns += rewards[t]
            if done[t].any():
                ended = np.flatnonzero(done[t])
                rollout.next_value[t, ended] = self.student.value(
                    rollout.final_observation(t, info["final_obs"], ended)
                )
                ended_returns += self._returns[ended][np.isfinite(self._returns[ended])].tolist()
                self._returns[ended] = 0
        rollout.terminated[:], rollout.done[:] = torch.from_numpy(terminated), torch.from_numpy(done)
        last_value = self.student.value(rollout.observation(rollout.steps))
        following = torch.cat([rollout.value[1:], last_value[None]])
        rollout.next_value[:] = torch.where(rollout.done, rollout.next_value, following)
        rollout.reward[:] = torch.from_numpy(self.normalizer(rewards, done))
        self.samples_collected += rewards.size * Parallel.count()
        if ended_returns:
            self._last_return = float(np.mean(ended_returns))
        return {"training/episode_return": self._last_return}

    def outputs(self, **obs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the policy's `mean` and `log_std` and the `value` at observations, as one dictionary."""
        policy, value = self.student(obs)
        return {"mean": policy.mean, "log_std": policy.log_std, "value": value}

    def drive(self, t: int, policy: SquashedGaussian) -> torch.Tensor:
        """Return the pre-tanh actions [N, A] that are taken in step t: samples of the student's `policy`."""
        return policy.sample()

    def prepare(self) -> None:
        """Turn the rollout into targets."""
        rollout, config = self.rollout, self.config
        rollout.advantage[:] = gae(
            rollout.reward,
            rollout.value,
            rollout.next_value,
            rollout.terminated,
            rollout.done,
            config.gamma,
            config.gae_lambda,
        )
        rollout.returns[:] = rollout.advantage + rollout.value

    def update(self, budget: int) -> dict[str, float]:
        """Make `epochs` passes over the rollout, or as much of them as `budget` updates are."""
        stats: list[dict[str, torch.Tensor]] = []
        samples, size = self.rollout.steps * self.env.num_envs, self.config.minibatch_size // Parallel.count()
        for _ in range(self.config.epochs):
            for indices in torch.randperm(samples, device=self.device).split(size):
                if len(stats) == budget:
                    break
                anneal(self.optimizer, self.config, self.optimization_steps + len(stats))
                stats.append(self._gradients(indices=indices))
                self.optimizer.step()
                self.samples_seen += len(indices) * Parallel.count()
        self.optimization_steps += len(stats)
        return mean_stats(stats)

    def gradients(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """Leave the gradients of a minibatch's loss, clipped, in the student's parameters; returns scalars."""
        loss, scalars = self._loss(self.rollout.minibatch(indices))
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_grad_norm)
        scalars |= {"training/loss": loss, "training/gradient_norm": norm}
        return {name: value.detach() for name, value in scalars.items()}

    def loss(self, batch: Minibatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a minibatch and the scalars worth seeing."""
        policy, value = self.student(batch.obs)
        return self.ppo_loss(batch, policy, value, self.ratio(batch, policy))

    def ratio(self, batch: Minibatch, policy: SquashedGaussian) -> torch.Tensor:
        """Return pi(a | s) / pi_old(a | s) [B] of the actions taken."""
        return (policy.log_prob(batch.u) - batch.log_prob).exp()

    def ppo_loss(
        self, batch: Minibatch, policy: SquashedGaussian, value: torch.Tensor, ratio: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return PPO's loss at the student's outputs for a minibatch, and its scalars."""
        config = self.config
        mean, std = Parallel.mean_and_std(batch.advantage)
        advantage = (batch.advantage - mean) / (std + 1e-8)
        policy_loss = ppo_policy_loss(ratio, advantage, config.clip)
        critic_loss = value_loss(value, batch.value, batch.returns, config.clip)
        entropy = policy.entropy().mean()
        loss = policy_loss + config.value_coefficient * critic_loss - config.entropy_coefficient * entropy
        with torch.no_grad():
            return loss, {
                "training/policy_loss": policy_loss,
                "training/value_loss": critic_loss,
                "training/entropy": entropy,
                # A ratio that has underflown has no logarithm, which is no reason to end the run.
                "training/approximate_kl": (ratio - 1 - ratio.clamp(min=1e-38).log()).mean(),
                "training/clip_fraction": ((ratio - 1).abs() > config.clip).float().mean(),
            }

    def state_dict(self) -> dict[str, Any]:
        """Return all that the ranks' `load_state_dict` need to go on bit for bit (on the CPU), between two `step`s."""
        own = {
            "rollout": self.rollout.state_dict(),
            "normalizer": self.normalizer.state_dict(),
            "environments": self.env.get_state(),
            "returns": self._returns.tolist(),
            "last_return": self._last_return,
            **random_state(self.device),
        }
        return {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counters": [self.optimization_steps, self.samples_collected, self.samples_seen],
            "ranks": Parallel.exchange(own),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimization_steps, self.samples_collected, self.samples_seen = state["counters"]
        own = state["ranks"][Parallel.rank()]
        self.rollout.load_state_dict(own["rollout"])
        self.normalizer.load_state_dict(own["normalizer"])
        self.env.set_state(own["environments"])
        self._returns, self._last_return = np.array(own["returns"]), own["last_return"]
        restore_random_state(own, self.device)


class GuidedPPO(PPO):
    """PPO whose minibatches carry what a teacher would do.

    Args:
        teacher: labels every state of a rollout, in one pass; never trained.
        arguments: PPO's.
    """

    def __init__(self, *arguments: Any, teacher: GaussianPolicy):
        super().__init__(*arguments)
        self.teacher = teacher

    def prepare(self) -> None:
        """Also ask the teacher about every state of the rollout."""
        super().prepare()
        self.rollout.ask(self.teacher)
