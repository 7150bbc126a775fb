"""Evaluations."""

import numpy as np
import pytest
import torch

from Algorithm.Policies import play
from Algorithm.Test_model import Baseline, Recording, evaluate, normalized_return, parse_seeds
from Models.Memory import NoMemory
from tests.Algorithm.trainers import build, on_devices
from tests.helpers import DeviceWorld


class RandomPolicy:
    """Acts uniformly within the bounds."""

    inputs = images = ()

    def __init__(self, action_space):
        self._low, self._high = action_space.low, action_space.high
        self._random = np.random.default_rng(0)

    def memory(self, num_envs):
        return NoMemory()

    def act(self, obs, deterministic=True):
        return self._random.uniform(self._low, self._high, (len(obs["State"]), len(self._low))).astype(np.float32)


def test_evaluation_repeats_itself_and_knows_its_figures(env, task, teacher):
    zero = evaluate(Baseline(env.action_space), env, task, [1900, 1901, 1902])
    again = evaluate(Baseline(env.action_space), env, task, [1902])
    assert again.returns[0] == zero.returns[2]  # whatever the round and the neighbours
    random = evaluate(RandomPolicy(env.action_space), env, task, [1900, 1901, 1902], teacher=teacher)
    assert random.returns.mean() < zero.returns.mean() < -30
    assert normalized_return(zero, zero, random) == 0
    assert normalized_return(random, zero, random) == 1
    assert not zero.success.any()
    recording = Recording()
    perfect = evaluate(teacher, env, task, [1900, 1901], teacher=teacher, recording=recording)
    np.testing.assert_allclose(perfect.action_accuracy, 1)
    assert (len(recording.actions), len(recording.stacks)) == (100, 0)  # it sees no frames, and none were rendered
    guided = evaluate(RandomPolicy(env.action_space), env, task, [1900, 1901], teacher=teacher, driver=teacher)
    np.testing.assert_array_equal(guided.returns, perfect.returns)
    assert (guided.action_accuracy < 1).all()


def test_a_recording_holds_what_a_policy_that_sees_was_shown(env, task, statistics):
    student = build(env, task, statistics).student
    recording = Recording()
    evaluate(student, env, task, [1900], recording=recording)
    assert len(recording.actions) == len(recording.stacks) == 100
    assert recording.stacks[0]["Frame"].shape == (2, 4, 64, 128)
    assert (
        recording.stacks[0]["Frame"][0] == recording.stacks[0]["Frame"][0, -1]
    ).all()  # the first frame fills the stack
    assert (recording.stacks[6]["Frame"][0, 0] == recording.stacks[0]["Frame"][0, -1]).all()


@on_devices
def test_a_world_on_a_device_gives_the_same_scores_and_recording(env, task, statistics, teacher, device):
    student = build(env, task, statistics).student
    recordings = Recording(), Recording()
    here, there = (
        evaluate(student, world, task, [1900, 1901, 1902], teacher=teacher, recording=recording)
        for world, recording in zip((env, DeviceWorld(env, device)), recordings)
    )
    assert str(here) == str(there)
    np.testing.assert_equal(vars(recordings[0]), vars(recordings[1]))
    returns, states = play(DeviceWorld(env, device), teacher, [1900, 1901])
    np.testing.assert_array_equal(returns, evaluate(teacher, env, task, [1900, 1901]).returns)
    assert states.shape == (200, 23)


def test_an_evaluation_leaves_the_random_numbers_alone(env, task, teacher):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    evaluate(teacher, env, task, [1900], deterministic=False)
    assert torch.rand(1) == expected


def test_seeds_are_read_from_ranges_and_lists():
    assert parse_seeds("1900-1902,7") == [1900, 1901, 1902, 7]
    for bad in ("", "a", "5-", "9-3", "99999999999999999999", "0-99999999999"):
        with pytest.raises(ValueError, match="1900-1999"):
            parse_seeds(bad)
    with pytest.raises(ValueError, match="1,000,001 episodes, where at most 100,000"):
        parse_seeds("7,0-999999")
