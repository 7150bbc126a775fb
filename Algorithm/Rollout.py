"""What a policy met in N environments over T steps: single `uint8` frames, stacks gathered by index."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch

from Common import Parallel
from Models.Base_Model import GaussianPolicy, Observation, SquashedGaussian
from Models.Utils import stack_ages


@dataclass(frozen=True)
class Minibatch:
    """Samples of a rollout, all with a leading [B]."""

    obs: Observation
    u: torch.Tensor  # pre-tanh actions taken, [B, A]
    log_prob: torch.Tensor
    value: torch.Tensor
    advantage: torch.Tensor
    returns: torch.Tensor
    teacher: SquashedGaussian | None = None


@dataclass
class Rollout:
    """Buffers for T steps of N environments on one device, written step by step, then read in minibatches.

    Row t of `frames` is offset by `history`, the frames from before the rollout that its first stacks need; row
    `history + T` is the observation after the last step, which begins the next rollout.
    """

    space: gym.spaces.Dict
    action_size: int
    steps: int
    num_envs: int
    stack: int
    stride: int
    device: torch.device
    teacher: SquashedGaussian | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        t, n = self.steps, self.num_envs
        self.history = (self.stack - 1) * self.stride
        shapes: dict[str, tuple[int, ...]] = {key: space.shape or () for key, space in self.space.items()}
        self.vectors = {key: zeros(t + 1, n, *shape) for key, shape in shapes.items() if key != "Frame"}
        self.frames = None
        if "Frame" in shapes:
            self.frames = zeros(self.history + t + 1, n, *shapes["Frame"], dtype=torch.uint8)
        self.age = zeros(t + 1, n, dtype=torch.int64)
        self._environments = torch.arange(n, device=self.device)
        self._staged: dict[str, torch.Tensor] = {}
        self.u = zeros(t, n, self.action_size)
        self.log_prob, self.value, self.next_value = zeros(t, n), zeros(t, n), zeros(t, n)
        self.reward, self.advantage, self.returns = zeros(t, n), zeros(t, n), zeros(t, n)
        self.terminated, self.done = zeros(t, n, dtype=torch.bool), zeros(t, n, dtype=torch.bool)

    def write_observation(self, t: int, obs: dict[str, np.ndarray], first: np.ndarray) -> None:
        """Keep the observation that step t begins with; `first` bool [N] marks new episodes.

        On a GPU something must be read back between two calls, as the actions of a step are.
        """
        for key, vector in self.vectors.items():
            vector[t] = self._stage(key, obs[key])
        if self.frames is not None:
            self.frames[self.history + t] = self._stage("Frame", obs["Frame"])
        self.age[t] = torch.where(self._stage("first", first), 0, self.age[t - 1] + 1)

    def _stage(self, name: str, values: np.ndarray) -> torch.Tensor:
        """Move values to the device: to a GPU from page-locked memory, which the CPU does not wait for.

        That memory is written again a step later, after the step's actions were read back, and so after this copy.
        """
        tensor = torch.from_numpy(values)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        if name not in self._staged:
            self._staged[name] = torch.empty_like(tensor, pin_memory=True)
        return self._staged[name].copy_(tensor).to(self.device, non_blocking=True)

    def observation(self, t: int) -> Observation:
        """Return the observations of step t with their stacks, [N, ...]."""
        obs = {key: vector[t] for key, vector in self.vectors.items()}
        if self.frames is not None:
            obs["Frame"] = self._stacks(t, self._environments, self.age[t])
        return obs

    def _stacks(self, t: int | torch.Tensor, n: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
        """Return the stacks [B, stack, ...] of steps t, one or int [B, 1], in environments n int [B]."""
        assert self.frames is not None
        return self.frames[self.history + t - stack_ages(age, self.stack, self.stride), n[:, None]]

    def final_observation(self, t: int, final: dict[str, np.ndarray], ended: np.ndarray) -> Observation:
        """Return the last observations of the episodes that ended with step t in environments `ended` int [E]."""
        obs = {key: torch.from_numpy(final[key][ended]).to(self.device) for key in self.vectors}
        if self.frames is not None:
            n = torch.from_numpy(ended).to(self.device)
            stacks = self._stacks(t + 1, n, self.age[t, n] + 1)
            # The row of the newest frame already holds the next episode's first.
            stacks[:, -1] = torch.from_numpy(final["Frame"][ended]).to(self.device)
            obs["Frame"] = stacks
        return obs

    def minibatch(self, indices: torch.Tensor) -> Minibatch:
        """Gather the samples with flat indices [B] into [T, N]."""

        def pick(field: torch.Tensor) -> torch.Tensor:
            return field.flatten(0, 1)[indices]

        obs = {key: pick(vector) for key, vector in self.vectors.items()}
        if self.frames is not None:
            t, n = indices // self.num_envs, indices % self.num_envs
            obs["Frame"] = self._stacks(t[:, None], n, pick(self.age))
        teacher = self.teacher and SquashedGaussian(
            self.teacher.mean[indices], self.teacher.log_std[indices], self.teacher.scale, self.teacher.shift
        )
        return Minibatch(
            obs,
            pick(self.u),
            pick(self.log_prob),
            pick(self.value),
            pick(self.advantage),
            pick(self.returns),
            teacher,
        )

    @torch.no_grad()
    def ask(self, teacher: GaussianPolicy) -> None:
        """Ask the teacher about every state, in one pass."""
        policy = teacher.distribution({"State": self.vectors["State"][:-1].flatten(0, 1)})
        if self.teacher is None:
            self.teacher = policy
        else:  # in place, where a recorded update reads
            self.teacher.mean[:], self.teacher.log_std[:] = policy.mean, policy.log_std

    def carry_over(self) -> None:
        """Begin the next rollout where this one ended."""
        for vector in self.vectors.values():
            vector[0] = vector[-1]
        if self.frames is not None:
            self.frames[: self.history + 1] = self.frames[self.steps :].clone()
        self.age[0] = self.age[-1]

    def state_dict(self) -> dict:
        """Return what the next rollout needs of this one, after `carry_over`, on the CPU, where any rank can have it."""
        return {
            "vectors": {key: vector[0].to("cpu", copy=True) for key, vector in self.vectors.items()},
            "frames": None if self.frames is None else self.frames[: self.history + 1].to("cpu", copy=True),
            "age": self.age[0].tolist(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Take up what `state_dict` returned."""
        for key, vector in self.vectors.items():
            vector[0] = state["vectors"][key]
        if self.frames is not None:
            self.frames[: self.history + 1] = state["frames"]
        self.age[0] = torch.tensor(state["age"])


class ReturnNormalizer:
    """Scales rewards by the running standard deviation of the discounted return, as `gymnasium`'s `NormalizeReward` does.

    Without it the value loss of an unscaled return would own the backbone that actor and critic share.
    """

    def __init__(self, num_envs: int, gamma: float):
        self._gamma = gamma
        self._running = np.zeros(num_envs)
        self._count, self._mean, self._m2 = 0.0, 0.0, 0.0

    def __call__(self, rewards: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Add rewards [T, N] in order (done bool [T, N] ends an episode after its reward); return them scaled."""
        discounted = np.empty_like(rewards)
        for t in range(len(rewards)):
            self._running = self._gamma * self._running + rewards[t]
            discounted[t] = self._running
            self._running = self._running * ~done[t]
        # Chan et al. 1979: the moments of two sets joined.
        own = discounted.size, discounted.mean(), discounted.var() * discounted.size
        for count, mean, m2 in Parallel.exchange(own):
            delta, total = mean - self._mean, self._count + count
            self._m2 += m2 + delta**2 * self._count * count / total
            self._mean += delta * count / total
            self._count = total
        return rewards / np.sqrt(self._m2 / self._count + 1e-8)

    def state_dict(self) -> dict:
        """Return everything as plain values."""
        return {"running": self._running.tolist(), "moments": [float(self._count), float(self._mean), float(self._m2)]}

    def load_state_dict(self, state: dict) -> None:
        """Take up what `state_dict` returned."""
        self._running = np.array(state["running"])
        self._count, self._mean, self._m2 = state["moments"]


def mean_stats(stats: Sequence[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Average the scalars of several updates, with one transfer from the device."""
    if not stats:
        return {}
    keys = list(stats[0])
    means = torch.stack([torch.stack([update[key].detach().float() for key in keys]) for update in stats]).mean(0)
    return dict(zip(keys, means.tolist()))
