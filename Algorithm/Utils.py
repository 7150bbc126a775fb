"""The samples to imitate on a device, and their priorities."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from Algorithm.Dataset import Arrays, episode_ages, field
from Common.Machine import allocating
from Models.Base_Model import ActorCritic
from Models.Distributions import Gaussian
from Models.Memory import Observation


class Samples:
    """Samples to imitate on one device: a dataset, and room for those that DAgger adds.

    Frames are kept once; stacks are gathered by index.

    Args:
        data: the dataset's fields.
        policy: the student, for what it is trained with, its frame stack and its device.
        growth: how many samples may be added.

    Attributes:
        old: samples of the dataset; `size` is that of all.
        names: the fields that `add` needs.
        age: how many steps every sample is from its episode's first, int [size] and room for more.
    """

    def __init__(self, data: Arrays, policy: ActorCritic, growth: int = 0):
        self._policy, self._device = policy, policy.scale.device
        self.old = self.size = len(data["seed"])
        self._parts: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name in (*map(field, policy.training_inputs), "mean", "log_std"):
            with allocating("the samples"):
                old = torch.from_numpy(data[name]).to(self._device)
                self._parts[name] = old, old.new_empty((growth, *old.shape[1:]))
        self.age = torch.empty(self.old + growth, dtype=torch.int64)
        self.age[: self.old] = episode_ages(data["episode_start"])
        self.names = (*self._parts, "episode_start", "seed")

    def add(self, data: Mapping[str, torch.Tensor]) -> None:
        """Add whole episodes, which lie on any device."""
        start, end = self.size, self.size + len(data["seed"])
        for name, (_, grown) in self._parts.items():
            grown[start - self.old : end - self.old] = data[name]
        self.age[start:end] = episode_ages(data["episode_start"].cpu().numpy())
        self.size = end

    @property
    def starts(self) -> np.ndarray:
        """Where episodes begin, int [E]."""
        return np.flatnonzero(self.age[: self.size].numpy() == 0)

    def _rows(self, name: str, index: torch.Tensor) -> torch.Tensor:
        """Return rows int [B] of a field, [B, ...]."""
        old, grown = self._parts[name]
        if self.size == self.old:
            return old.index_select(0, index.to(self._device))
        new = index >= self.old
        out = old.new_empty((len(index), *old.shape[1:]))
        out[new.to(self._device)] = grown.index_select(0, (index[new] - self.old).to(self._device))
        out[~new.to(self._device)] = old.index_select(0, index[~new].to(self._device))
        return out

    def gather(self, indices: np.ndarray) -> tuple[Observation, Gaussian]:
        """Return the observations that training needs at samples int [B], images stacked, and the teacher's policy there."""
        obs: Observation = {}
        index = torch.from_numpy(indices)
        for key in self._policy.training_inputs:
            if key in self._policy.images:
                rows = index[:, None] - self._policy.stack.steps_back(self.age[index])
                obs[key] = self._rows(field(key), rows.flatten()).unflatten(0, rows.shape)
            else:
                obs[key] = self._rows(field(key), index)
        mean, log_std = self._rows("mean", index), self._rows("log_std", index)
        return obs, self._policy.gaussian(mean, log_std)


class Priorities:
    """The priorities of samples: prioritized replay (Schaul et al. 2016, https://arxiv.org/abs/1511.05952).

    P(i) = p_i / sum p with p_i = (error_i + 1e-6)^alpha. A sample that was not trained on yet has the largest error of all.
    Samples below `old` are the dataset, the others new.

    Args:
        size: samples of the dataset.
        alpha: 0 is uniform.
        beta: the exponent of the importance weights.
    """

    def __init__(self, size: int, alpha: float, beta: float):
        self.old, self.alpha, self.beta = size, alpha, beta
        self.error, self._unseen = np.zeros(0), np.zeros(0, bool)
        self.add(np.zeros(size))

    def __len__(self) -> int:
        return len(self.error)

    def add(self, errors: np.ndarray) -> None:
        """Add samples with their errors [n], which become priorities once they are trained on."""
        self.error = np.append(self.error, errors)
        self._unseen = np.append(self._unseen, np.ones(len(errors), bool))
        self.set_alpha(self.alpha)

    def set_alpha(self, alpha: float) -> None:
        """Change alpha, and with it every priority."""
        self.alpha = alpha
        self._p = (self.error + 1e-6) ** alpha
        self._refresh()

    def _refresh(self) -> None:
        if self._unseen.any():
            self._p[self._unseen] = ((self.error.max() or 1.0) + 1e-6) ** self.alpha
        self._cumulative = np.cumsum(self._p)

    def update(self, indices: np.ndarray, errors: np.ndarray) -> None:
        """Take the errors [B] of samples int [B] that were just trained on."""
        self.error[indices] = errors
        self._unseen[indices] = False
        if self.alpha:
            self._p[indices] = (errors + 1e-6) ** self.alpha
            self._refresh()

    def sample(
        self, count: int, balanced: bool = False, generator: torch.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw `count` samples, independently; balanced: half of them from the dataset, half new.

        Returns:
            Indices int [B], and importance weights (N P(i))^-beta / max_j (N P(j))^-beta float64 [B]. Of balanced samples
            each half has its own N, P and maximum: the weights correct for priorities, not for the halves.
        """
        if not balanced or len(self) == self.old:
            return self._draw(count, 0, len(self), generator)
        old = self._draw(count // 2, 0, self.old, generator)
        new = self._draw(count // 2, self.old, len(self), generator)
        return np.concatenate([old[0], new[0]]), np.concatenate([old[1], new[1]])

    def _draw(
        self, count: int, start: int, end: int, generator: torch.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        low = self._cumulative[start - 1] if start else 0.0
        share = torch.rand(count, dtype=torch.float64, generator=generator).numpy()
        at = low + (self._cumulative[end - 1] - low) * share
        indices = np.clip(np.searchsorted(self._cumulative, at, side="right"), start, end - 1)
        return indices, (self._p[start:end].min() / self._p[indices]) ** self.beta

    def dynamic_alpha(self, statistic: Callable[[np.ndarray], Any]) -> float:
        """Return alpha by `new_share_alpha` from the `statistic` (mean or max) of the new errors."""
        seen = self.error[: self.old][~self._unseen[: self.old]]
        if not len(seen) or len(self) == self.old:
            return ALPHA_MAX
        ratio = statistic(self.error[self.old :]) / max(seen.mean(), 1e-12)
        return new_share_alpha(1 - self.old / len(self), float(ratio))

    def statistics(self) -> dict[str, float]:
        """Return the metrics of the buffer."""
        return {
            **{f"buffer/priority_{name}": float(getattr(self._p, name)()) for name in ("mean", "std", "min", "max")},
            "buffer/alpha": self.alpha,
            "buffer/beta": self.beta,
            "buffer/new_samples": float(len(self) - self.old),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as tensors and plain values."""
        error, unseen = torch.from_numpy(self.error.copy()), torch.from_numpy(self._unseen.copy())
        return {"error": error, "unseen": unseen, "alpha": self.alpha, "beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.error, self._unseen = state["error"].numpy().copy(), state["unseen"].numpy().copy()
        self.beta = state["beta"]
        self.set_alpha(state["alpha"])


ALPHA_MAX = 0.6


def new_share_alpha(share: float, ratio: float, target: float = 1 / 3) -> float:
    """Return the alpha for which new samples make up `target` of a batch, within [0, 0.6].

    With f the new samples' `share` of the buffer and r the `ratio` of their error to the old ones', new samples are drawn
    with probability f r^alpha / (f r^alpha + 1 - f), which is the target t at log(t (1 - f) / (f (1 - t))) / log r.
    """
    if ratio <= 1 or share >= target:
        return ALPHA_MAX
    alpha = math.log(target * (1 - share) / (share * (1 - target))) / math.log(ratio)
    return min(max(alpha, 0.0), ALPHA_MAX)
