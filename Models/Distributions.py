"""The distributions of policies: Gaussians before a bound, and noise for them that is correlated in time."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

LOG_STD_MIN, LOG_STD_MAX = -4.0, 0.0


@dataclass(frozen=True)
class Gaussian:
    """Policy of actions a = shift + scale * f(u), u ~ N(mean, exp(log_std)^2), independent dimensions.

    The family decides f, which maps to [-1, 1]. `mean` and `log_std` are float [B, A], `scale` and `shift` [A]. Samples are
    kept as u, since a saturated action loses it.
    """

    mean: torch.Tensor
    log_std: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor

    @staticmethod
    def bound(u: torch.Tensor) -> torch.Tensor:
        """Map u to [-1, 1]: this family's f."""
        raise NotImplementedError

    def sample(self) -> torch.Tensor:
        """Draw u [B, A], differentiable with respect to mean and log_std."""
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean)

    def action(self, u: torch.Tensor) -> torch.Tensor:
        """Map u to actions in the environment's units."""
        return self.shift + self.scale * self.bound(u)

    def log_prob(self, u: torch.Tensor) -> torch.Tensor:
        """Return log pi [B] of u, a density in the environment's units."""
        raise NotImplementedError

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy [B] in nats, in the environment's units."""
        raise NotImplementedError

    def _normal(self, u: torch.Tensor) -> torch.Tensor:
        """Return log N(u; mean, exp(log_std)^2) [B, A]."""
        return -0.5 * ((u - self.mean) * (-self.log_std).exp()).square() - self.log_std - 0.5 * math.log(2 * math.pi)


class SquashedGaussian(Gaussian):
    """a = shift + scale * tanh(u), as SAC and TQC have it, and the deterministic TD3 and DDPG."""

    @staticmethod
    def bound(u: torch.Tensor) -> torch.Tensor:
        """Return tanh(u)."""
        return torch.tanh(u)

    def log_prob(self, u: torch.Tensor) -> torch.Tensor:
        """Return log pi(a(u)) [B], a density over actions in the environment's units.

        The tanh correction log(1 - tanh(u)^2) is computed as 2 (log 2 - u - softplus(-2u)), finite everywhere
        (https://github.com/tensorflow/probability, `tfp.bijectors.Tanh`).
        """
        return (self._normal(u) - 2 * (math.log(2) - u - F.softplus(-2 * u)) - self.scale.log()).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Estimate the differential entropy [B] from one sample (a squashed Gaussian has no closed form), in nats."""
        return -self.log_prob(self.sample())


class ClippedGaussian(Gaussian):
    """a = shift + scale * clip(u, -1, 1), as PPO, A2C and TRPO have it: a Gaussian over actions, clipped to the bounds.

    Densities and the entropy are those of the Gaussian before clipping, as these algorithms define their policy.
    """

    @staticmethod
    def bound(u: torch.Tensor) -> torch.Tensor:
        """Return clip(u, -1, 1)."""
        return u.clamp(-1, 1)

    def log_prob(self, u: torch.Tensor) -> torch.Tensor:
        """Return the log density [B] of shift + scale * u, which is not clipped."""
        return (self._normal(u) - self.scale.log()).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy [B] of the Gaussian before clipping, exactly, in nats."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e) + self.scale.log()).sum(-1)


FAMILIES: dict[str, type[Gaussian]] = {"squashed": SquashedGaussian, "clipped": ClippedGaussian}


class CorrelatedNoise:
    """Draws a policy's actions from step to step with noise that may be correlated in time.

    u_t = mean + scale * std * e_t with e_t = c e_(t-1) + sqrt(1 - c^2) n_t, n_t ~ N(0, 1): a discrete Ornstein-Uhlenbeck
    process. Every single e_t is N(0, 1), whatever the correlation c in [0, 1) is. `state` is the latest e [B, A], None
    before the first.
    """

    def __init__(self, scale: float, correlation: float):
        self.scale, self.correlation = scale, correlation
        self.state: torch.Tensor | None = None

    def sample(self, policy: Gaussian) -> torch.Tensor:
        """Draw u [B, A] of the next step."""
        fresh = torch.randn_like(policy.mean)
        if self.state is not None:
            fresh = self.correlation * self.state + math.sqrt(1 - self.correlation**2) * fresh
        self.state = fresh
        return policy.mean + self.scale * policy.log_std.exp() * self.state
