"""Frame stacks: which frames a student sees at once, and how they are put together without copies being kept."""

import numpy as np
import torch


def stack_ages(age: torch.Tensor, stack: int, stride: int) -> torch.Tensor:
    """Return how many steps back each frame of a stack lies, oldest first.

    Args:
        age: int [...], steps since the first observation of the episode.
        stack: frames in a stack.
        stride: steps between them.

    Returns:
        int [..., stack]: `min(k * stride, age)`, so that an episode's first frame fills the stack.
    """
    return (torch.arange(stack - 1, -1, -1, device=age.device) * stride).minimum(age[..., None])


class FrameStacker:
    """Stacks of the newest frames of N environments that are being stepped.

    Keeps the last `(stack - 1) * stride + 1` single frames, `uint8` [history, N, rows, columns].
    """

    def __init__(self, stack: int, stride: int):
        self.stack, self.stride = stack, stride
        self._history: np.ndarray | None = None
        self._age = torch.zeros(0, dtype=torch.int64)
        self._newest = -1

    def reset(self, frames: np.ndarray) -> np.ndarray:
        """Start an episode everywhere with `frames` uint8 [N, rows, columns]; returns the stacks."""
        length = (self.stack - 1) * self.stride + 1
        self._history = np.empty((length, *frames.shape), np.uint8)
        self._age = torch.zeros(len(frames), dtype=torch.int64)
        return self.push(frames, np.ones(len(frames), bool))

    def push(self, frames: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Add the newest frames and return the stacks, oldest first: uint8 [N, stack, rows, columns].

        `first` bool [N] marks frames that begin an episode.
        """
        assert self._history is not None, "reset() comes first"
        self._newest = (self._newest + 1) % len(self._history)
        self._history[self._newest] = frames
        self._age = torch.where(torch.from_numpy(first), 0, self._age + 1)
        back = stack_ages(self._age, self.stack, self.stride).numpy()
        return self._history[(self._newest - back) % len(self._history), np.arange(len(frames))[:, None]]


def background(frames: np.ndarray) -> torch.Tensor:
    """Return what stands still in `frames` uint8 [N, rows, columns], their median pixel by pixel, float32."""
    return torch.from_numpy(np.median(frames, axis=0).astype(np.float32))


def screen(frames: torch.Tensor, background: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn stacked `uint8` [B, stack, rows, columns] frames into a network's input: zero where nothing has changed.

    Differences to `background` [rows, columns] are divided by 64, so that what matters is about 1; channels last.
    """
    still = background.to(dtype).expand(frames.shape[1:])[None].contiguous(memory_format=torch.channels_last)
    return torch.sub(frames.contiguous(memory_format=torch.channels_last), still).mul_(1 / 64)
