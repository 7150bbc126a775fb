"""Random changes of training frames, each drawn anew for every sample of a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from Algorithm.Config import transforms
from Models.Memory import Observation


@dataclass(frozen=True)
class Transform:
    """A random change of differences to the background, int16 [B, C, rows, columns], by at most `amount`."""

    amount: float

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the changed frames, each sample changed as a whole."""
        raise NotImplementedError

    def draw(self, frames: torch.Tensor) -> torch.Tensor:
        """Draw a number in [-1, 1] for each sample, float32 [B, 1, 1, 1]."""
        return 2 * torch.rand(len(frames), 1, 1, 1, device=frames.device) - 1


def _window(frames: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return pixels [B, C, R, K] at rows int [B, R] and columns int [B, K]; those outside repeat the border."""
    batch = torch.arange(len(frames), device=frames.device)[:, None, None]
    rows, columns = rows.clamp(0, frames.shape[2] - 1), columns.clamp(0, frames.shape[3] - 1)
    # Channels last, so that a pixel's channels move together.
    return frames.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Shift(Transform):
    """Moves a picture by up to `amount` pixels along both axes (Kostrikov et al. 2020, https://arxiv.org/abs/2004.13649)."""

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the moved frames."""
        most = round(self.amount)
        offsets = torch.randint(-most, most + 1, (2, len(frames), 1), device=frames.device)
        rows, columns = (torch.arange(size, device=frames.device) for size in frames.shape[2:])
        return _window(frames, rows + offsets[0], columns + offsets[1])


class Crop(Transform):
    """Shows a part, smaller by up to the share `amount` and anywhere in the picture, in the picture's size."""

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the parts, each pixel the nearest."""
        count, device = len(frames), frames.device
        cut = self.amount * torch.rand(count, 1, device=device)
        at = []
        for size in frames.shape[2:]:
            first = cut * (size - 1) * torch.rand(count, 1, device=device)
            at.append((first + (1 - cut) * torch.arange(size, device=device)).round().long())
        return _window(frames, *at)


class Brightness(Transform):
    """Adds up to `amount` gray levels to all pixels, or takes them away."""

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return brighter and darker frames."""
        return frames + (self.amount * self.draw(frames)).round().to(frames.dtype)


class Contrast(Transform):
    """Scales all differences by up to the share `amount`, up or down."""

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames of more contrast and of less."""
        return (frames * (1 + self.amount * self.draw(frames))).round().to(frames.dtype)


class Noise(Transform):
    """Adds Gaussian noise of a standard deviation of `amount` gray levels to every pixel."""

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return noisy frames."""
        noise = torch.randn(frames.shape, device=frames.device)
        return frames + noise.mul_(self.amount).round_().to(frames.dtype)


class Cutout(Transform):
    """Covers a square of `amount` pixels anywhere with one random gray (DeVries & Taylor 2017,
    https://arxiv.org/abs/1708.04552)."""

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames with a covered part."""
        count, _, rows, columns = frames.shape
        inside = []
        for size in (rows, columns):
            centre = torch.rand(count, 1, device=frames.device) * size
            inside.append((torch.arange(size, device=frames.device) + 0.5 - centre).abs() < self.amount / 2)
        covered = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(covered, (128 * self.draw(frames)).to(frames.dtype), frames)


TRANSFORMS: dict[str, type[Transform]] = {
    "shift": Shift,
    "crop": Crop,
    "brightness": Brightness,
    "contrast": Contrast,
    "noise": Noise,
    "cutout": Cutout,
}


class Augmentation:
    """Transforms, one after the other, of all images of a batch.

    They change the difference to the background that a student subtracts, which stays where it is.

    Args:
        augment: each as `name=amount`.
        backgrounds: of each image, [rows, columns] or with channels before them.
    """

    def __init__(self, augment: Sequence[str], backgrounds: Mapping[str, torch.Tensor]):
        self._backgrounds = backgrounds
        self._transforms: list[Callable[[torch.Tensor], torch.Tensor]] = [
            TRANSFORMS[name](amount) for name, amount in transforms(augment)
        ]

    def __call__(self, obs: Observation) -> Observation:
        """Return the observations with changed images, uint8 [B, stack, ..., rows, columns]."""
        return obs | {image: self._change(obs[image], image) for image in self._backgrounds if self._transforms}

    def _change(self, frames: torch.Tensor, image: str) -> torch.Tensor:
        still = self._backgrounds[image].round().to(torch.int16)
        changed = (frames - still).flatten(1, -3)
        for transform in self._transforms:
            changed = transform(changed)
        return (changed.unflatten(1, frames.shape[1:-2]) + still).clamp_(0, 255).to(torch.uint8)
