"""Whole episodes."""

import torch

from Algorithm.CollectDataset import sample_rounds
from Algorithm.Dataset import episode_ends


def test_collect_reaches_the_samples_asked_for_in_whole_episodes(envs):
    seeds, count = [], 0

    def act(obs, first):
        return torch.zeros(3, 7), {}

    for part in sample_rounds(envs, 5, 401, act):
        seeds += sorted(set(part["seed"].tolist()))
        count += len(part["seed"])
        assert episode_ends(part["episode_start"])[-1] == len(part["seed"])
        assert part["frame"].shape[1:] == (64, 128)
    assert seeds == [5, 6, 7, 8, 9]
    assert count == 500
