"""Visual input: how frames become a network's input."""

import torch


def screen(frames: torch.Tensor, background: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn stacked `uint8` [B, stack, rows, columns] frames into a network's input: zero where nothing has changed.

    Differences to `background` [rows, columns] are divided by 64, so that those that matter are about 1; channels last.
    """
    still = background.to(dtype).expand(frames.shape[1:])[None].contiguous(memory_format=torch.channels_last)
    return torch.sub(frames.contiguous(memory_format=torch.channels_last), still).mul_(1 / 64)
