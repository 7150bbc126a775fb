"""Behavioural cloning of a dataset, and DAgger, which adds samples of the student's own states."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Algorithm.CollectDataset import label, sample_rounds
from Algorithm.Config import CloningConfig, DAggerConfig
from Algorithm.Dataset import Arrays, SampleWriter, field, read_samples, to_arrays
from Algorithm.Learner import ERRORS, Learner, Trainer, mean_scalars
from Algorithm.Losses import Loss, action_accuracy, imitation_loss
from Algorithm.Schedules import linear
from Algorithm.Sequences import Sequences
from Algorithm.Utils import Priorities, Samples
from Common import Parallel
from Common.Errors import BadFile
from Enviroment.World import World
from Models.Base_Model import ActorCritic, GaussianPolicy
from Models.Distributions import Gaussian
from Models.Memory import Observation

UPDATES_PER_STEP = 100  # and for each row of metrics
LINEAR_ALPHA = (0.2, 0.6)
DYNAMIC_ALPHA: dict[str, Callable[[np.ndarray], Any]] = {"dynamic_mean": np.mean, "dynamic_max": np.max}


@dataclass(frozen=True)
class CloningBatch:
    """Samples to imitate, all with a leading [B], and the weights of their losses."""

    obs: Observation
    teacher: Gaussian
    weights: torch.Tensor


class BehaviouralCloning(Trainer):
    """Imitates the teacher on samples drawn by their priorities; each `step` is up to 100 updates.

    A student with a recurrent state learns from `Sequences`, in which priorities have no part. Several ranks draw the same
    batch and share it. Each knows all errors, so that they have the same priorities.

    Args:
        student: the network, on the device it is trained on.
        data: the dataset's fields.
        seed: of every random number drawn in training.
        growth: how many samples may be added to the dataset.
    """

    balanced = False  # whether half of a batch are samples that were added

    def __init__(self, student: ActorCritic, data: Arrays, config: CloningConfig, seed: int, growth: int = 0):
        super().__init__(student, config, seed)
        self.config, self._data = config, data
        self.samples = Samples(data, student, growth)
        self.priorities = Priorities(self.samples.size, config.alpha, config.beta)
        optimizer = torch.optim.AdamW(
            student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.learner = Learner(student, optimizer, config, self.batch, self.loss, unused=True)  # the critic
        self.samples_collected = self.samples.size
        self._draws = torch.Generator()  # of batches; all ranks draw the same
        self._share = slice(Parallel.rank(), None, Parallel.count())  # of a batch
        ranks = Parallel.count()
        streams = ranks * max(1, config.minibatch_size // ranks // self.window)  # each rank has as many
        self._sequences = Sequences(streams, self.window, student.memory_shapes, self.device, self._share)

    def start(self) -> None:
        """Seed every random number, and learn the background of frames."""
        torch.manual_seed(self.seed + Parallel.rank())
        self._draws.manual_seed(self.seed)
        first = self._data["episode_start"].nonzero()[0][:100]
        for image in self.student.images:
            self.student.learn_background(image, self._data[field(image)][first])

    def step(self, budget: int) -> dict[str, float]:
        """Make up to 100 updates, at most `budget`; returns scalars."""
        if self.config.mode_alpha == "linear":
            last_row = max(self.config.optimization_steps - UPDATES_PER_STEP, 1)
            self.priorities.set_alpha(linear(*LINEAR_ALPHA, min(self.optimization_steps / last_row, 1.0)))
        updates = min(budget, UPDATES_PER_STEP - self.optimization_steps % UPDATES_PER_STEP)
        return mean_scalars([self.update() for _ in range(updates)]) | self.priorities.statistics()

    def update(self) -> dict[str, torch.Tensor]:
        """Make one update; returns scalars."""
        self.priorities.beta = linear(self.config.beta, 1.0, self.learner.progress)
        indices, weights = self.draw()
        mine = indices[self._share].flatten()
        obs, teacher = self.samples.gather(mine)
        obs |= self._sequences.observations(self.samples.age[mine])
        own_weights = torch.from_numpy(weights[self._share].flatten()).to(teacher.mean)
        scalars = self.learner.update(mean=teacher.mean, log_std=teacher.log_std, weights=own_weights, **obs)
        self._sequences.remember({key: scalars.pop(key) for key in self.student.memory_shapes})
        errors = scalars.pop(ERRORS).double().cpu().numpy().reshape(-1, self.window)
        self.priorities.update(indices.flatten(), Parallel.interleave(errors).flatten())
        self.samples_seen += indices.size
        return scalars | {
            "buffer/weight_mean": torch.tensor(weights.mean()).to(teacher.mean),
            "buffer/new_share": torch.tensor((indices >= self.priorities.old).mean()).to(teacher.mean),
        }

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples of an update int [S, window], and their weights float64 [S, window]."""
        if self.student.memory_shapes:
            indices = self._sequences.draw(self.samples.starts, self.samples.size, self._draws)
            return indices, np.ones(indices.shape)
        indices, weights = self.priorities.sample(self.config.minibatch_size, self.balanced, self._draws)
        return indices[:, None], weights[:, None]

    def batch(
        self, mean: torch.Tensor, log_std: torch.Tensor, weights: torch.Tensor, **obs: torch.Tensor
    ) -> CloningBatch:
        """Return a batch of the teacher's `mean` and `log_std` [B, A], weights [B] and observations."""
        return CloningBatch(obs, self.student.gaussian(mean, log_std), weights)

    def loss(self, batch: CloningBatch) -> Loss:
        """Return the mean of the weighted losses; the errors become priorities."""
        policy, _, hidden, memory = self.student(batch.obs)
        losses, errors = imitation_loss(self.config.loss_type, batch.teacher, policy)
        total = (batch.weights * losses).mean()
        with torch.no_grad():
            scalars = {
                "loss": losses.mean(),
                "weighted_loss": total,
                "action_accuracy": action_accuracy(batch.teacher, policy),
                "entropy": policy.entropy().mean(),
            }
        return Loss(total, scalars, errors, hidden, memory)

    def own_state(self) -> dict[str, Any]:
        """Return what the student remembers of this rank's sequences."""
        return {"memory": {key: kept.to("cpu", copy=True) for key, kept in self._sequences.memory.items()}}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continue from `own_state`."""
        for key, kept in self._sequences.memory.items():
            kept[:] = state["memory"][key]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, priorities included."""
        own = {"priorities": self.priorities.state_dict(), "draws": self._draws.get_state()}
        return super().state_dict() | own | {"sequences": self._sequences.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        if "sequences" in state:  # older checkpoints have none
            self._sequences.load_state_dict(state["sequences"])
        self.priorities.load_state_dict(state["priorities"])
        self._draws.set_state(state["draws"])


class DAgger(BehaviouralCloning):
    """Dataset aggregation (Ross et al. 2011, https://arxiv.org/abs/1011.0686): the student acts, the teacher labels.

    Before every `rollout_updates` updates, `rollout_samples` samples are added to the dataset in whole episodes.

    Args:
        student: the network, after behavioural cloning; `data` and `config` are as there.
        seed: of the first episode and of every random number.
        world: this rank's environments, with frames if the student sees.
        teacher: labels, and acts with probability `beta_mix`.
        priorities: of the dataset, after behavioural cloning.
        folder: keeps the rollouts, from which a run is resumed.

    Raises:
        BadFile: the priorities are of another dataset.
    """

    config: DAggerConfig

    def __init__(
        self,
        student: ActorCritic,
        data: Arrays,
        config: DAggerConfig,
        seed: int,
        *,
        world: World,
        teacher: GaussianPolicy,
        priorities: dict[str, Any],
        folder: Path,
    ):
        rollouts = -(-config.optimization_steps // config.rollout_updates)
        growth = rollouts * (config.rollout_samples + world.max_episode_steps)
        super().__init__(student, data, config, seed, growth)
        if len(priorities["error"]) != self.samples.size:
            raise BadFile(f"priorities of {len(priorities['error'])} samples for a dataset of {self.samples.size}")
        self.priorities.load_state_dict(priorities | {"alpha": config.alpha, "beta": config.beta})
        self.balanced = config.sampling == "balanced"
        self.world, self.teacher = world, teacher
        self._writer = SampleWriter(folder, {})
        self._rollouts = self._episodes = 0

    def step(self, budget: int) -> dict[str, float]:
        """Collect a rollout if it is time, then make up to 100 updates, at most `budget`; returns scalars."""
        scalars: dict[str, float] = {}
        if self.optimization_steps >= self._rollouts * self.config.rollout_updates:
            scalars = self.aggregate()
            if statistic := DYNAMIC_ALPHA.get(self.config.mode_alpha):
                self.priorities.set_alpha(self.priorities.dynamic_alpha(statistic))
        until_next = self._rollouts * self.config.rollout_updates - self.optimization_steps
        return super().step(min(budget, until_next)) | scalars

    def aggregate(self) -> dict[str, float]:
        """Add a rollout's samples to the dataset; returns the mean return of its episodes."""
        started, rewards, episodes = time.monotonic(), 0.0, 0
        first_seed, memory = self.seed + self._episodes, self.student.memory(self.world.num_envs)

        def act(obs: Observation, first: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return self.act(memory.see(obs, first))

        for part in sample_rounds(self.world, first_seed, self.config.rollout_samples, act, shared=True):
            self.samples.add(part)
            arrays = to_arrays(part)
            self.priorities.add(arrays.pop("error"))
            if Parallel.rank() == 0:
                self._writer.append(arrays)
            rewards += float(arrays["reward"].sum())
            episodes += int(arrays["episode_start"].sum())
        self._rollouts, self._episodes = self._rollouts + 1, self._episodes + episodes
        added = self.samples.size - self.samples_collected
        self.samples_collected = self.samples.size
        return {
            "training/episode_return": rewards / episodes,
            "time/env_steps_per_s": added / (time.monotonic() - started),
        }

    @torch.no_grad()
    def act(self, obs: Observation) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return actions, the student's means or at some steps the teacher's, and the samples' labels and errors."""
        teacher = self.teacher.distribution(self.teacher.to_tensors(obs))
        student = self.student.distribution(self.student.to_tensors(obs))
        error = imitation_loss(self.config.loss_type, teacher, student).errors
        by_teacher = torch.rand(len(error)) < self.learner.schedules["beta_mix"](self.learner.progress)
        mean = torch.where(by_teacher.to(error.device)[:, None], teacher.mean, student.mean)
        return student.action(mean), label(teacher) | {"error": error.double()}

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs beside the files that hold the rollouts."""
        counts = [self._rollouts, self._episodes]
        return super().state_dict() | {"rollouts": counts, "aggregated_crc32": self._writer.meta["crc32"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`; raises `BadFile` if the rollouts' files are damaged."""
        super().load_state_dict(state)
        self._rollouts, self._episodes = state["rollouts"]
        added = self.samples_collected - self.samples.old
        self._writer.cut(added, self._episodes, state["aggregated_crc32"])
        if added:
            kept = read_samples(self._writer.folder, added, self.samples.names)
            self.samples.add({name: torch.from_numpy(values) for name, values in kept.items()})
