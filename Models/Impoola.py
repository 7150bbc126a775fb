"""The IMPALA residual backbone, pooled to a fixed grid (Impoola), and the heads that stand on it.

IMPALA: Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, figure 3. Pooling in place of the flattened map:
Trumpp et al. 2025 (Impoola), https://arxiv.org/abs/2503.05546.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from Models.Utils import screen


def orthogonal(layer: nn.Linear | nn.Conv2d, gain: float = math.sqrt(2)) -> nn.Module:
    """Initialize a layer's weight orthogonally and its bias to zero; returns the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3 convolutions, same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = orthogonal(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = orthogonal(nn.Conv2d(channels, channels, 3, padding=1), gain=0.5)  # six blocks must not blow up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        inner = self.second(F.relu(self.first(F.relu(x)), inplace=True))
        return inner.add_(x)  # no convolution's backward needs its output


class Impoola(nn.Module):
    """Per stage a 3x3 convolution, a 3x3 stride-2 max-pool and two residual blocks; then ReLU and average pooling.

    The input has `in_channels` channels, and each stage those of `filters`. The last map is averaged to the rows and columns
    of `grid`: more than one cell, since a single average cannot tell where things are.
    """

    def __init__(self, in_channels: int, filters: Sequence[int], grid: tuple[int, int]):
        super().__init__()
        stages: list[nn.Module] = []
        for previous, channels in zip((in_channels, *filters), filters):
            stages += [orthogonal(nn.Conv2d(previous, channels, 3, padding=1)), nn.MaxPool2d(3, stride=2, padding=1)]
            stages += [ResidualBlock(channels), ResidualBlock(channels)]
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.out_features = filters[-1] * grid[0] * grid[1]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [B, C, H, W] to features [B, out_features]."""
        return self.pool(F.relu(self.stages(x), inplace=True)).flatten(1)


class Encoder(nn.Module):
    """Maps the stacks of one camera to features: an Impoola backbone over what differs from the camera's background.

    Args:
        shape: of a stack, (stack, rows, columns) or (stack, channels, rows, columns), whose channels are all one picture's.
        filters, grid: the backbone's.
    """

    background: torch.Tensor

    def __init__(self, shape: Sequence[int], filters: Sequence[int], grid: Sequence[int]):
        super().__init__()
        self.register_buffer("background", torch.full(tuple(shape[1:]), 128.0))
        self.backbone = Impoola(math.prod(shape[:-2]), filters, (grid[0], grid[1]))

    def forward(self, frames: torch.Tensor, precision: str) -> torch.Tensor:
        """Map stacks uint8 [B, ...] to features float32 [B, backbone.out_features], computed in `fp32` or `bf16`."""
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return self.backbone(screen(frames, self.background, dtype)).float()


def head(in_features: int, hidden: int, out_features: int, gain: float) -> nn.Sequential:
    """Build an actor or critic head: two SiLU layers and a linear one, its initial outputs scaled by `gain`."""
    return nn.Sequential(
        orthogonal(nn.Linear(in_features, hidden)),
        nn.SiLU(),
        orthogonal(nn.Linear(hidden, hidden)),
        nn.SiLU(),
        orthogonal(nn.Linear(hidden, out_features), gain),
    )
