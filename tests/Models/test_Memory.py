"""Stacks of frames."""

import numpy as np
import torch

from Models.Memory import FrameStacker, stack_ages


def test_frame_stacks_against_a_naive_stack_across_episode_boundaries():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (40, 2, 3, 5), dtype=np.uint8)
    first = random.random((40, 2)) < 0.15
    first[0] = True
    stacker = FrameStacker(stack=4, stride=2)
    for t in range(40):
        stacks = stacker.reset(frames[0]) if t == 0 else stacker.push(frames[t], first[t])
        for n in range(2):
            start = max(s for s in range(t + 1) if first[s, n])
            for position, back in enumerate((6, 4, 2, 0)):
                np.testing.assert_array_equal(stacks[n, position], frames[max(t - back, start), n])


def test_stack_ages_fill_with_the_first_frame():
    np.testing.assert_array_equal(stack_ages(torch.tensor([0, 3, 9]), 4, 2), [[0, 0, 0, 0], [3, 3, 2, 0], [6, 4, 2, 0]])
