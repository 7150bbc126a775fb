"""Prioritized replay, schedules, augmentation."""

import numpy as np
import pytest
import torch

from Algorithm.Schedules import cosine, linear
from Algorithm.Utils import Priorities, augment, new_share_alpha


def prioritized(alpha, beta=0.4, errors=(0.1, 0.4, 1.0, 2.5)):
    priorities = Priorities(len(errors), alpha, beta)
    priorities.update(np.arange(len(errors)), np.array(errors))
    return priorities


def test_sampling_frequencies_are_those_of_the_priorities():
    """Pearson's chi-square, 3 degrees of freedom: 16.3 is exceeded once in a thousand."""
    torch.manual_seed(0)
    priorities = prioritized(0.6)
    expected = (np.array([0.1, 0.4, 1.0, 2.5]) + 1e-6) ** 0.6
    expected *= 20_000 / expected.sum()
    counts = np.bincount(priorities.sample(20_000)[0], minlength=4)
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_weights_follow_the_formula():
    priorities = prioritized(0.7, beta=0.5)
    indices, weights = priorities.sample(200)
    p = (np.array([0.1, 0.4, 1.0, 2.5]) + 1e-6) ** 0.7
    p /= p.sum()
    every = (4 * p) ** -0.5
    np.testing.assert_allclose(weights, (every / every.max())[indices])


def test_without_alpha_sampling_is_uniform_and_all_weights_are_one():
    torch.manual_seed(0)
    priorities = prioritized(0.0, beta=0.9)
    indices, weights = priorities.sample(20_000)
    assert (weights == 1).all()
    counts = np.bincount(indices, minlength=4)
    assert ((counts - 5_000) ** 2 / 5_000).sum() < 16.3


def test_what_was_not_trained_on_has_the_largest_priority():
    priorities = Priorities(4, 1.0, 0.4)
    assert len(set(priorities._p)) == 1
    priorities.update(np.array([0, 1]), np.array([3.0, 7.0]))
    np.testing.assert_allclose(priorities._p, [3, 7, 7, 7], rtol=1e-5)
    priorities.add(np.array([0.5]))
    np.testing.assert_allclose(priorities._p, [3, 7, 7, 7, 7], rtol=1e-5)
    priorities.update(np.array([2, 4]), np.array([1.0, 0.5]))
    np.testing.assert_allclose(priorities._p, [3, 7, 1, 7, 0.5], rtol=1e-5)


def test_balanced_batches_are_half_old_half_new_whatever_the_priorities():
    priorities = prioritized(1.0)
    priorities.add(np.array([1e-3, 1e-3]))
    priorities.update(np.array([4, 5]), np.array([1e-3, 2e-3]))
    indices, weights = priorities.sample(64, balanced=True)
    assert (indices >= 4).sum() == 32
    new = np.array([1e-3, 2e-3]) + 1e-6
    np.testing.assert_allclose(weights[32:], ((new[0] / new) ** 0.4)[indices[32:] - 4])


def test_alpha_schedules_on_hand_worked_numbers():
    assert linear(0.2, 0.6, 0.5) == pytest.approx(0.4)
    assert cosine(1.0, 0.0, 0.5) == pytest.approx(0.5)
    # f = 1/5, t = 1/3: the odds of new samples have to double, which r = 16 does at alpha = 1/4.
    assert new_share_alpha(0.2, 16.0) == pytest.approx(0.25)
    alpha = new_share_alpha(0.1, 40.0)
    assert 0.1 * 40**alpha / (0.1 * 40**alpha + 0.9) == pytest.approx(1 / 3)
    assert new_share_alpha(0.01, 2.0) == 0.6  # would need more than 0.6
    assert new_share_alpha(0.2, 1.0) == 0.6
    assert new_share_alpha(0.4, 16.0) == 0.6
    priorities = prioritized(0.0, errors=(1.0, 3.0, 2.0, 2.0))
    priorities.add(np.array([32.0]))
    assert priorities.dynamic_alpha(np.mean) == pytest.approx(0.25)
    priorities.add(np.array([0.0]))  # f = 1/3
    assert priorities.dynamic_alpha(np.max) == 0.6


def test_augmentation():
    torch.manual_seed(0)
    frames = torch.arange(32 * 48).reshape(1, 1, 32, 48).remainder(251).to(torch.uint8).repeat(16, 4, 1, 1)
    empty = torch.zeros(32, 48)
    assert torch.equal(augment(frames, empty, 0, 0), frames)
    shifted = augment(frames, empty, 0, 3)
    assert shifted.shape == frames.shape
    assert (shifted[:, :1] == shifted).all()  # one shift for a stack
    inner = {tuple(stack[0, 3:-3, 3:-3].flatten().tolist()) for stack in shifted}
    possible = {
        tuple(frames[0, 0, 3 + y : 29 + y, 3 + x : 45 + x].flatten().tolist())
        for y in range(-3, 4)
        for x in range(-3, 4)
    }
    assert len(inner) > 1
    assert inner <= possible
    gray = torch.full((2, 4, 64, 128), 100, dtype=torch.uint8)
    still = torch.full((64, 128), 100.0)
    noisy = augment(gray, still, 5, 0)
    assert noisy.dtype == torch.uint8
    assert noisy.float().std() == pytest.approx(5, rel=0.1)
    assert augment(gray, still, 500, 0).float().min() == 0
    # What stands still stays where the model subtracts it.
    assert torch.equal(augment(frames, frames[0, 0].float(), 0, 3), frames)
    torch.manual_seed(1)
    shifted = augment(frames, empty, 0, 3)
    torch.manual_seed(1)
    coloured = augment(frames[:, :, None].repeat(1, 1, 3, 1, 1), torch.zeros(3, 32, 48), 0, 3)
    assert torch.equal(coloured, shifted[:, :, None].repeat(1, 1, 3, 1, 1))  # all channels move together
