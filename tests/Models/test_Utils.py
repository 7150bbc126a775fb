"""Frames as a network takes them."""

import pytest
import torch

from Models.Utils import screen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_screen_is_the_scaled_difference_to_the_background(dtype):
    frames = torch.randint(0, 256, (3, 4, 6, 10), dtype=torch.uint8)
    background = torch.rand(6, 10) * 255
    seen = screen(frames, background, dtype)
    assert torch.equal(seen, (frames.to(dtype) - background.to(dtype)) / 64)
    colours = torch.randint(0, 256, (2, 4, 3, 6, 10), dtype=torch.uint8)
    assert torch.equal(
        screen(colours, background, dtype).unflatten(1, (4, 3)), (colours.to(dtype) - background.to(dtype)) / 64
    )
    assert seen.dtype == dtype
    assert seen.is_contiguous(memory_format=torch.channels_last)
