"""A rollout of N environments over T steps: single `uint8` frames, whose stacks are gathered by index."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from Common import Parallel
from Common.Machine import allocating
from Enviroment.World import World
from Models.Base_Model import ActorCritic, GaussianPolicy
from Models.Distributions import Gaussian
from Models.Memory import FIRST, Observation, is_image


@dataclass(frozen=True)
class Minibatch:
    """Samples of a rollout, all with a leading [B]."""

    obs: Observation
    u: torch.Tensor  # pre-tanh actions taken, [B, A]
    log_prob: torch.Tensor
    value: torch.Tensor
    advantage: torch.Tensor
    returns: torch.Tensor


@dataclass(frozen=True)
class GuidedMinibatch(Minibatch):
    """Samples of a rollout, and the teacher's policy at each of them."""

    teacher: Gaussian


class Rollout:
    """Buffers for T steps of N environments on the student's device, written step by step, then read in minibatches.

    Row t of a buffer of frames is offset by the stack's history, the frames from before the rollout that its first stacks
    need. Row `history + T` is the observation after the last step, which begins the next rollout.

    Args:
        student: the observations that its training needs are kept.
        world: the N environments.
        steps: T.
        also: further observation keys to keep.
        window: consecutive steps of an environment that stay together in minibatches; it divides T.
    """

    def __init__(self, student: ActorCritic, world: World, steps: int, also: Iterable[str] = (), window: int = 1):
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            with allocating("rollouts"):
                return torch.zeros(shape, dtype=dtype, device=self.device)

        self.steps, self.num_envs = t, n = steps, world.num_envs
        self._window = window
        self.device, self._stack, self._critic_inputs = student.scale.device, student.stack, student.critic_inputs
        self.vectors: dict[str, torch.Tensor] = {}
        self.frames: dict[str, torch.Tensor] = {}
        for key in dict.fromkeys((*student.training_inputs, *also)):
            shape = world.spaces[key].shape or ()
            if is_image(world.spaces[key]):
                self.frames[key] = zeros(self._stack.history + t + 1, n, *shape, dtype=torch.uint8)
            else:
                self.vectors[key] = zeros(t + 1, n, *shape)
        self.memory = {key: zeros(t + 1, n, *shape) for key, shape in student.memory_shapes.items()}
        self.age = zeros(t + 1, n, dtype=torch.int64)
        self._environments = torch.arange(n, device=self.device)
        self._staged: dict[str, torch.Tensor] = {}
        self.u = zeros(t, n, *world.action_space.shape)
        self.log_prob, self.value, self.next_value = zeros(t, n), zeros(t, n), zeros(t, n)
        self.reward, self.advantage, self.returns = zeros(t, n), zeros(t, n), zeros(t, n)
        self.terminated, self.done = zeros(t, n, dtype=torch.bool), zeros(t, n, dtype=torch.bool)
        self.teacher: Gaussian | None = None

    def write_observation(self, t: int, obs: Observation, first: torch.Tensor) -> None:
        """Keep the observation that step t begins with; `first` bool [N] marks new episodes.

        On a GPU the caller reads something back, such as a step's actions, before the next call writes the same page-locked
        memory again.
        """
        for key, vector in self.vectors.items():
            vector[t] = self._stage(key, obs[key])
        for key, frames in self.frames.items():
            frames[self._stack.history + t] = self._stage(key, obs[key])
        self.age[t] = torch.where(self._stage("first", first), 0, self.age[t - 1] + 1)

    def write_memory(self, t: int, memory: Mapping[str, torch.Tensor]) -> None:
        """Keep what the student remembers before step t, among other `memory` [N, ...]; episodes begin without it."""
        for key, kept in self.memory.items():
            kept[t] = memory[key]

    def _remembered(self, t: torch.Tensor | int, n: torch.Tensor) -> Observation:
        """Return what the student remembers before steps t in environments n int [S], [S, ...]."""
        begins = self.age[t, n] == 0
        return {key: kept[t, n].masked_fill(begins[:, None], 0) for key, kept in self.memory.items()}

    def _stage(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Move values to the device: from the CPU to a GPU through page-locked memory, for which the CPU does not wait."""
        if self.device.type != "cuda" or values.is_cuda:
            return values.to(self.device)
        if name not in self._staged:
            self._staged[name] = torch.empty_like(values, pin_memory=True)
        return self._staged[name].copy_(values).to(self.device, non_blocking=True)

    def observation(self, t: int) -> Observation:
        """Return the observations of step t with their stacks, [N, ...]."""
        obs = {key: vector[t] for key, vector in self.vectors.items()}
        for key in self.frames:
            obs[key] = self._stacks(key, t, self._environments, self.age[t])
        return obs | self._remembered(t, self._environments)

    def _stacks(self, key: str, t: int | torch.Tensor, n: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
        """Return the stacks [B, stack, ...] of steps t, one or int [B, 1], in environments n int [B]."""
        return self.frames[key][self._stack.history + t - self._stack.steps_back(age), n[:, None]]

    def final_observation(self, t: int, last_obs: Observation, ended: torch.Tensor) -> Observation:
        """Return what the critic needs of the last observations of the episodes that ended with step t, [E, ...].

        `ended`, int [E], are their environments.
        """
        obs = {key: last_obs[key][ended].to(self.device) for key in self.vectors}
        n = ended.to(self.device)
        for key in self.frames.keys() & self._critic_inputs:
            obs[key] = self._stacks(key, t + 1, n, self.age[t, n] + 1)
            obs[key][:, -1] = last_obs[key][ended].to(self.device)  # its row already holds the next episode's first
        return obs | {key: kept[t + 1, n] for key, kept in self.memory.items()}

    def shuffled(self) -> torch.Tensor:
        """Return the flat indices into [T, N] of all samples, int [S, window]: the windows in a random order."""
        windows = torch.randperm(self.steps * self.num_envs // self._window, device=self.device)[:, None]
        t = windows // self.num_envs * self._window + torch.arange(self._window, device=self.device)
        return t * self.num_envs + windows % self.num_envs

    def minibatch(self, indices: torch.Tensor) -> Minibatch:
        """Gather the samples with flat indices [B] into [T, N], window after window."""

        def pick(field: torch.Tensor) -> torch.Tensor:
            return field.flatten(0, 1)[indices]

        obs = {key: pick(vector) for key, vector in self.vectors.items()}
        t, n = indices // self.num_envs, indices % self.num_envs
        for key in self.frames:
            obs[key] = self._stacks(key, t[:, None], n, pick(self.age))
        if self.memory:
            obs |= self._remembered(t[:: self._window], n[:: self._window]) | {FIRST: pick(self.age) == 0}
        targets = {name: pick(getattr(self, name)) for name in ("u", "log_prob", "value", "advantage", "returns")}
        if self.teacher is None:
            return Minibatch(obs, **targets)
        mean, log_std = self.teacher.mean[indices], self.teacher.log_std[indices]
        teacher = replace(self.teacher, mean=mean, log_std=log_std)
        return GuidedMinibatch(obs, **targets, teacher=teacher)

    @torch.no_grad()
    def ask(self, teacher: GaussianPolicy) -> None:
        """Ask the teacher about every state, in one pass."""
        policy = teacher.distribution({key: self.vectors[key][:-1].flatten(0, 1) for key in teacher.inputs})
        if self.teacher is None:
            self.teacher = policy
        else:  # in place, where a captured update reads
            self.teacher.mean[:], self.teacher.log_std[:] = policy.mean, policy.log_std

    def carry_over(self) -> None:
        """Begin the next rollout where this one ended."""
        for vector in self.vectors.values():
            vector[0] = vector[-1]
        for frames in self.frames.values():
            frames[: self._stack.history + 1] = frames[self.steps :].clone()
        for kept in self.memory.values():
            kept[0] = kept[-1]
        self.age[0] = self.age[-1]

    def state_dict(self) -> dict:
        """Return the part of this rollout that the next one needs, after `carry_over`, on the CPU."""
        end = self._stack.history + 1
        return {
            "vectors": {key: vector[0].to("cpu", copy=True) for key, vector in self.vectors.items()},
            "frames": {key: frames[:end].to("cpu", copy=True) for key, frames in self.frames.items()},
            "memory": {key: kept[0].to("cpu", copy=True) for key, kept in self.memory.items()},
            "age": self.age[0].tolist(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        for key, vector in self.vectors.items():
            vector[0] = state["vectors"][key]
        saved = state["frames"]
        if not isinstance(saved, dict):  # older checkpoints have one image, or None
            saved = dict.fromkeys(self.frames, saved)
        for key, frames in self.frames.items():
            frames[: self._stack.history + 1] = saved[key]
        for key, kept in self.memory.items():
            kept[0] = state["memory"][key]
        self.age[0] = torch.tensor(state["age"])


class ReturnNormalizer:
    """Scales rewards by the running standard deviation of the discounted return, as `gymnasium`'s `NormalizeReward` does.

    Without it the value loss of an unscaled return would dominate the backbone that actor and critic share.
    """

    def __init__(self, num_envs: int, gamma: float, device: torch.device | str = "cpu"):
        self._gamma, self._running = gamma, torch.zeros(num_envs, dtype=torch.float64, device=device)
        self._count, self._mean, self._m2 = 0.0, 0.0, 0.0

    def __call__(self, rewards: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
        """Add rewards float64 [T, N] in order (done bool [T, N] ends an episode after its reward); return them scaled.

        Both lie on the normalizer's device.
        """
        discounted = torch.empty_like(rewards)
        for t in range(len(rewards)):
            discounted[t] = self._gamma * self._running + rewards[t]
            self._running = discounted[t] * ~done[t]
        # Chan et al. 1979: the moments of two sets joined.
        values = discounted.cpu().numpy()
        own = values.size, values.mean(), values.var() * values.size
        for count, mean, m2 in Parallel.exchange(own):
            delta, total = mean - self._mean, self._count + count
            self._m2 += m2 + delta**2 * self._count * count / total
            self._mean += delta * count / total
            self._count = total
        return rewards / float(np.sqrt(self._m2 / self._count + 1e-8))

    def state_dict(self) -> dict:
        """Return everything as plain values."""
        return {"running": self._running.tolist(), "moments": [float(self._count), float(self._mean), float(self._m2)]}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        self._running = torch.tensor(state["running"], dtype=torch.float64, device=self._running.device)
        self._count, self._mean, self._m2 = state["moments"]
