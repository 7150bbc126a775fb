"""Visual input: what stands still in frames, and how frames become a network's input."""

import numpy as np
import torch


def background(frames: np.ndarray) -> torch.Tensor:
    """Return what stands still in `frames` uint8 [N, rows, columns], their median pixel by pixel, float32."""
    return torch.from_numpy(np.median(frames, axis=0).astype(np.float32))


def screen(frames: torch.Tensor, background: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn stacked `uint8` [B, stack, rows, columns] frames into a network's input: zero where nothing has changed.

    Differences to `background` [rows, columns] are divided by 64, so that those that matter are about 1; channels last.
    """
    still = background.to(dtype).expand(frames.shape[1:])[None].contiguous(memory_format=torch.channels_last)
    return torch.sub(frames.contiguous(memory_format=torch.channels_last), still).mul_(1 / 64)
