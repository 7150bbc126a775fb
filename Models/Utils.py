"""Visual input: how frames become a network's input."""

import torch


def screen(frames: torch.Tensor, background: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn stacked `uint8` frames into a network's input [B, channels, rows, columns]: zero where nothing has changed.

    Stacks are [B, stack, rows, columns], or [B, stack, 3, rows, columns], which has 3 * stack channels. Differences to
    `background`, of a frame's shape, are divided by 64, so that those that matter are about 1; channels last.
    """
    still = background.to(dtype).expand(frames.shape[1:]).flatten(0, -3)[None]
    seen, channels_last = frames.flatten(1, -3), torch.channels_last
    return torch.sub(seen.contiguous(memory_format=channels_last), still.contiguous(memory_format=channels_last)).mul_(
        1 / 64
    )
