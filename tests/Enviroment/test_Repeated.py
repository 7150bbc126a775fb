"""Environments each of whose steps makes several of another's."""

import gymnasium as gym
import numpy as np
import pytest

from Enviroment.Repeated import make
from Enviroment.Snapshot import frames_per_second


def test_rewards_of_repeated_actions_are_added_up_and_time_passes_faster():
    single, repeated = gym.make("Pusher-v5").unwrapped, make("Pusher-v5", 3)
    assert np.array_equal(single.reset(seed=3)[0], repeated.reset(seed=3)[0])
    for action in np.linspace(-1, 1, 4):
        steps = [single.step(np.full(7, action)) for _ in range(3)]
        state, reward, *_ = repeated.step(np.full(7, action))
        assert np.array_equal(state, steps[-1][0])
        assert reward == pytest.approx(sum(step[1] for step in steps))
    assert frames_per_second(single) == 20
    assert frames_per_second(repeated) == 7


def test_an_episode_that_ends_ends_the_step():
    single, repeated = gym.make("InvertedPendulum-v5").unwrapped, make("InvertedPendulum-v5", 4)
    single.reset(seed=0), repeated.reset(seed=0)
    steps = 0
    while not single.step(np.full(1, 3.0))[2]:
        steps += 1
    assert steps % 4 != 3  # it falls in the middle of a step
    for _ in range(steps // 4):
        assert not repeated.step(np.full(1, 3.0))[2]
    _, reward, terminated, *_ = repeated.step(np.full(1, 3.0))
    assert terminated
    assert reward == steps % 4  # 1 for each step but the last
