"""Behavioural cloning of a dataset, and DAgger, which adds what the student meets."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Algorithm.Checkpoint import random_state, restore_random_state
from Algorithm.CollectDataset import SampleWriter, collect, label
from Algorithm.Config import CloningConfig, DAggerConfig
from Algorithm.Episodes import Arrays
from Algorithm.Losses import action_accuracy, imitation_loss
from Algorithm.Recorded import recorded
from Algorithm.Rollout import mean_stats
from Algorithm.Utils import Priorities, Samples, anneal, augment, linear, read_samples
from Common import Parallel
from Common.Errors import BadFile
from Enviroment.Tasks import Task
from Enviroment.Vector_env import WorkerVectorEnv
from Models.Base_Model import ActorCritic, GaussianPolicy, Observation, SquashedGaussian
from Models.Utils import FrameStacker

UPDATES_PER_STEP = 100  # and so for each row of metrics
LINEAR_ALPHA = (0.2, 0.6)  # of `--mode_alpha linear`


class BehaviouralCloning:
    """Imitates the teacher on samples drawn by their priorities; each `step` is up to 100 updates.

    Several ranks draw the same batch and share it; each knows all errors, so that priorities are everywhere the same.

    Args:
        student: the network, on the device it is trained on.
        data: the dataset's fields.
        task: the task, for how frames are stacked.
        config: settings.
        seed: of every random number drawn in training.
        growth: how many samples may be added to the dataset.
    """

    def __init__(
        self, student: ActorCritic, data: Arrays, task: Task, config: CloningConfig, seed: int, growth: int = 0
    ):
        self.student, self.config, self._seed, self._data = student, config, seed, data
        self.samples = Samples(data, student, task.stack, task.stack_stride, growth)
        self.priorities = Priorities(self.samples.size, config.alpha, config.beta)
        self.optimizer = torch.optim.AdamW(
            student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.optimization_steps = self.samples_seen = 0
        self.samples_collected = self.samples.size
        self._draws = torch.Generator()  # of batches; of several ranks the same
        self._loss = Parallel.averaging(student, self.loss, unused=True)  # the critic
        self._gradients = recorded(student, student.scale.device, self.gradients)

    @property
    def progress(self) -> float:
        """Where the next update stands in training: 0 is the first, 1 the last."""
        return self.optimization_steps / max(self.config.optimization_steps - 1, 1)

    def start(self) -> None:
        """Seed everything; not after `load_state_dict`."""
        self._seed_everything()
        first = self._data["episode_start"].nonzero()[0][:100]
        self.student.learn_background(self._data["frame"][first])

    def _seed_everything(self) -> None:
        torch.manual_seed(self._seed + Parallel.rank())
        self._draws.manual_seed(self._seed)

    def step(self, budget: int) -> dict[str, float]:
        """Make up to 100 updates, at most `budget`; returns what happened."""
        if self.config.mode_alpha == "linear":
            last_row = max(self.config.optimization_steps - UPDATES_PER_STEP, 1)
            self.priorities.set_alpha(linear(*LINEAR_ALPHA, min(self.optimization_steps / last_row, 1.0)))
        stats = [
            self.update() for _ in range(min(budget, UPDATES_PER_STEP - self.optimization_steps % UPDATES_PER_STEP))
        ]
        return mean_stats(stats) | self.priorities.statistics()

    def update(self) -> dict[str, torch.Tensor]:
        """Make one update; returns scalars."""
        config, progress = self.config, self.progress
        self.priorities.beta = linear(config.beta, 1.0, progress)
        anneal(self.optimizer, config, self.optimization_steps)
        balanced = isinstance(config, DAggerConfig) and config.sampling == "balanced"
        indices, weights = self.priorities.sample(config.minibatch_size, balanced, self._draws)
        mine = slice(Parallel.rank(), None, Parallel.count())
        obs, teacher = self.samples.gather(indices[mine])
        if "Frame" in obs:
            obs["Frame"] = augment(obs["Frame"], self.student.background, config.frame_noise, config.random_shift)
        stats = self._gradients(
            mean=teacher.mean, log_std=teacher.log_std, weights=torch.from_numpy(weights[mine]).to(teacher.mean), **obs
        )
        self.optimizer.step()
        self.priorities.update(indices, Parallel.interleave(stats.pop("errors").double().cpu().numpy()))
        self.optimization_steps += 1
        self.samples_seen += len(indices)
        return stats | {
            "buffer/weight_mean": torch.tensor(weights.mean()).to(teacher.mean),
            "buffer/new_share": torch.tensor((indices >= self.priorities.old).mean()).to(teacher.mean),
        }

    def gradients(
        self, mean: torch.Tensor, log_std: torch.Tensor, weights: torch.Tensor, **obs: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Leave the gradients of a batch's loss, clipped, in the student's parameters; returns `errors` [B] and scalars.

        Args:
            mean: of the teacher's policy, [B, A].
            log_std: likewise.
            weights: of the samples' losses, [B].
            obs: what the student sees.
        """
        teacher = SquashedGaussian(mean, log_std, self.student.scale, self.student.shift)
        loss, losses, errors, policy = self._loss(obs, teacher, weights)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_grad_norm)
        with torch.no_grad():
            return {
                "errors": errors,
                "training/loss": losses.detach().mean(),
                "training/weighted_loss": loss.detach(),
                "training/action_accuracy": action_accuracy(teacher, policy),
                "training/entropy": policy.entropy().mean(),
                "training/gradient_norm": norm,
            }

    def loss(
        self, obs: Observation, teacher: SquashedGaussian, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, SquashedGaussian]:
        """Return the mean of the weighted losses, the losses [B], the errors [B] that are priorities, and the policy."""
        policy = self.student.distribution(obs)
        losses, errors = imitation_loss(self.config.loss_type, teacher, policy)
        return (weights * losses).mean(), losses, errors, policy

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to go on bit for bit (on the CPU), between two `step`s."""
        return {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "priorities": self.priorities.state_dict(),
            "counters": [self.optimization_steps, self.samples_collected, self.samples_seen],
            "draws": self._draws.get_state(),
            "ranks": Parallel.exchange(random_state(self.student.scale.device)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.priorities.load_state_dict(state["priorities"])
        self.optimization_steps, self.samples_collected, self.samples_seen = state["counters"]
        self._draws.set_state(state["draws"])
        restore_random_state(state["ranks"][Parallel.rank()], self.student.scale.device)


class DAgger(BehaviouralCloning):
    """Dataset aggregation (Ross et al. 2011, https://arxiv.org/abs/1011.0686): the student acts, the teacher labels.

    Before every `rollout_updates` updates, `rollout_samples` samples are added to the dataset in whole episodes.

    Args:
        student: as behavioural cloning left it.
        data: the dataset's fields.
        task: the task.
        config: settings.
        seed: of the first episode and of every random number.
        env: vector environment, with frames if the student sees; of several ranks this one's.
        teacher: labels, and acts with probability `beta_mix`.
        priorities: the dataset's, as behavioural cloning left them.
        folder: where the rollouts are kept for a resumption.

    Raises:
        BadFile: the priorities are of another dataset.
    """

    config: DAggerConfig

    def __init__(
        self,
        student: ActorCritic,
        data: Arrays,
        task: Task,
        config: DAggerConfig,
        seed: int,
        *,
        env: WorkerVectorEnv,
        teacher: GaussianPolicy,
        priorities: dict[str, Any],
        folder: Path,
    ):
        assert env.spec is not None
        assert env.spec.max_episode_steps is not None
        rollouts = -(-config.optimization_steps // config.rollout_updates)
        growth = rollouts * (config.rollout_samples + env.spec.max_episode_steps)
        super().__init__(student, data, task, config, seed, growth)
        if len(priorities["error"]) != self.samples.size:
            raise BadFile(f"priorities of {len(priorities['error'])} samples for a dataset of {self.samples.size}")
        self.priorities.load_state_dict(priorities | {"alpha": config.alpha, "beta": config.beta})
        self.env, self.task, self.teacher = env, task, teacher
        self._writer = SampleWriter(folder, {})
        self._rollouts = self._episodes = 0

    def start(self) -> None:
        """Seed everything; not after `load_state_dict`."""
        self._seed_everything()

    def step(self, budget: int) -> dict[str, float]:
        """Collect a rollout when it is time, then make up to 100 updates, at most `budget`; returns what happened."""
        stats: dict[str, float] = {}
        if self.optimization_steps >= self._rollouts * self.config.rollout_updates:
            stats = self.collect()
            if self.config.mode_alpha.startswith("dynamic"):
                statistic = np.mean if self.config.mode_alpha == "dynamic_mean" else np.max
                self.priorities.set_alpha(self.priorities.dynamic_alpha(statistic))
        until_next = self._rollouts * self.config.rollout_updates - self.optimization_steps
        return super().step(min(budget, until_next)) | stats

    def collect(self) -> dict[str, float]:
        """Add a rollout's samples; returns the return of its episodes."""
        stacker = FrameStacker(self.task.stack, self.task.stack_stride) if "Frame" in self.student.inputs else None
        started, rewards, episodes = time.monotonic(), 0.0, 0
        first_seed = self._seed + self._episodes
        for part in collect(self.env, first_seed, self.config.rollout_samples, self.act, stacker, shared=True):
            self.priorities.add(part.pop("error"))
            self.samples.add(part)
            if Parallel.rank() == 0:
                self._writer.append(part)
            rewards += float(part["reward"].sum())
            episodes += int(part["episode_start"].sum())
        self._rollouts, self._episodes = self._rollouts + 1, self._episodes + episodes
        added = self.samples.size - self.samples_collected
        self.samples_collected = self.samples.size
        return {
            "training/episode_return": rewards / episodes,
            "time/env_steps_per_s": added / (time.monotonic() - started),
        }

    @torch.no_grad()
    def act(self, obs: Arrays) -> tuple[np.ndarray, Arrays]:
        """Act as the student does when it is tested, at some steps as the teacher; labels come from the teacher."""
        teacher = self.teacher.distribution(self.teacher.to_tensors(obs))
        student = self.student.distribution(self.student.to_tensors(obs))
        _, error = imitation_loss(self.config.loss_type, teacher, student)
        by_teacher = torch.rand(len(error)) < linear(self.config.beta_mix, 0.0, self.progress)
        mean = torch.where(by_teacher.to(error.device)[:, None], teacher.mean, student.mean)
        return student.action(mean).cpu().numpy(), label(teacher) | {"error": error.double().cpu().numpy()}

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs beside the files that hold the rollouts."""
        return super().state_dict() | {
            "rollouts": [self._rollouts, self._episodes],
            "aggregated_crc32": self._writer.meta["crc32"],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            BadFile: the rollouts' files are damaged.
        """
        super().load_state_dict(state)
        self._rollouts, self._episodes = state["rollouts"]
        added = self.samples_collected - self.samples.old
        self._writer.go_back(added, self._episodes, state["aggregated_crc32"])
        if added:
            self.samples.add(read_samples(self._writer.folder, added, self.samples.names))
