"""The squashed and the clipped Gaussian, and correlated noise."""

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from Models.Distributions import FAMILIES, ClippedGaussian, CorrelatedNoise
from tests.helpers import SCALE, SHIFT, gaussian


def test_log_prob_against_a_change_of_variables():
    policy = gaussian(4, low=-1.5)
    u = policy.sample()
    reference = TransformedDistribution(
        Normal(policy.mean.double(), policy.log_std.exp().double()),
        [TanhTransform(), AffineTransform(SHIFT.double(), SCALE.double())],
    )
    expected = reference.log_prob(policy.action(u.double())).sum(-1)
    torch.testing.assert_close(policy.log_prob(u).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_correlated_noise_has_the_scale_and_the_correlation_asked_for(correlation):
    torch.manual_seed(0)
    policy, noise = gaussian(5, batch=200), CorrelatedNoise(2.0, correlation)
    drawn = torch.stack([noise.sample(policy) for _ in range(50)])
    e = (drawn - policy.mean) / policy.log_std.exp()
    torch.testing.assert_close(e[0].std(), e[-1].std(), rtol=0.1, atol=0)  # it neither grows nor fades
    assert e.std().item() == pytest.approx(2.0, rel=0.05)
    for steps in (1, 5):
        together = torch.corrcoef(torch.stack([e[steps:].flatten(), e[:-steps].flatten()]))[0, 1].item()
        assert together == pytest.approx(correlation**steps, abs=0.05)


def test_a_clipped_gaussian_is_one_over_actions_and_clipped_when_it_acts():
    squashed = gaussian(6)
    policy = ClippedGaussian(squashed.mean, squashed.log_std, SCALE, SHIFT + 1)
    over_actions = Normal(1 + 2 * policy.mean, 2 * policy.log_std.exp())
    u = policy.sample()
    torch.testing.assert_close(policy.log_prob(u), over_actions.log_prob(1 + 2 * u).sum(-1))
    torch.testing.assert_close(policy.entropy(), over_actions.entropy().sum(-1))
    torch.testing.assert_close(policy.action(u), (1 + 2 * u).clamp(-1, 3))


@pytest.mark.parametrize("family", FAMILIES)
def test_entropy_is_the_mean_of_the_log_density(family):
    torch.manual_seed(0)
    one = gaussian(7, batch=1)
    policy = FAMILIES[family](one.mean.expand(100_000, 7), one.log_std.expand(100_000, 7), SCALE, SHIFT)
    assert policy.entropy().mean().item() == pytest.approx(-policy.log_prob(policy.sample()).mean().item(), abs=0.03)
