"""Whole episodes."""

import numpy as np

from Algorithm.CollectDataset import collect
from Algorithm.Dataset import episode_ends
from Models.Memory import FrameStacker


def test_collect_reaches_the_samples_asked_for_in_whole_episodes(envs):
    seeds, count = [], 0

    def act(obs):
        return np.zeros((3, 7), np.float32), {}

    for part in collect(envs, 5, 401, act, FrameStacker(4, 2)):
        seeds += sorted(set(part["seed"].tolist()))
        count += len(part["seed"])
        assert episode_ends(part["episode_start"])[-1] == len(part["seed"])
        assert part["frame"].shape[1:] == (64, 128)
    assert seeds == [5, 6, 7, 8, 9]
    assert count == 500
