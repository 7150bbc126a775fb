"""Stacks of frames."""

import numpy as np
import torch

from Models.Memory import FrameStack, FrameStacks


def test_frame_stacks_against_a_naive_stack_across_episode_boundaries():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (40, 2, 3, 5), dtype=np.uint8)
    first = random.random((40, 2)) < 0.15
    first[0] = True
    memory = FrameStacks(FrameStack(length=4, stride=2), ("Picture",), 2)
    for t in range(40):
        state = torch.full((2, 1), t)
        if t == 20:  # a memory continues from its state
            saved, memory = memory.state(), FrameStacks(FrameStack(4, 2), ("Picture",), 2)
            memory.restore(saved)
        seen = memory.see({"Picture": torch.from_numpy(frames[t]), "State": state}, torch.from_numpy(first[t]))
        assert seen["State"] is state
        stacks = seen["Picture"].numpy()
        for n in range(2):
            start = max(s for s in range(t + 1) if first[s, n])
            for position, back in enumerate((6, 4, 2, 0)):
                np.testing.assert_array_equal(stacks[n, position], frames[max(t - back, start), n])


def test_stack_ages_fill_with_the_first_frame():
    np.testing.assert_array_equal(
        FrameStack(4, 2).steps_back(torch.tensor([0, 3, 9])), [[0, 0, 0, 0], [3, 3, 2, 0], [6, 4, 2, 0]]
    )
