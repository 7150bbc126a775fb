"""The squashed Gaussian, and correlated noise."""

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from Models.Base_Model import CorrelatedNoise
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
