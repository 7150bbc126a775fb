"""Sequences of consecutive samples for students with a recurrent state, by truncated back-propagation through time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from Models.Memory import FIRST, Observation


class Sequences:
    """Walks through episodes of a dataset in several streams, and carries along what the student remembers.

    Each stream goes through an episode from its first sample to its last, `window` samples at a time, and then begins another
    one, drawn uniformly. What the student remembered at the end of a window is given to it at the beginning of the next: by
    then its weights have changed a little, but an episode's first frames can tell in its last window (Williams and Peng 1990,
    https://doi.org/10.1162/neco.1990.2.4.490).

    Args:
        streams: S, the sequences of an update.
        window: W, the samples of each.
        memory_shapes: of one thing that the student remembers, by its key.
        device: the student's.
        share: the streams whose memory is this rank's.
    """

    def __init__(
        self,
        streams: int,
        window: int,
        memory_shapes: Mapping[str, tuple[int, ...]],
        device: torch.device,
        share: slice = slice(None),
    ):
        self._window, self._device = window, device
        # The next sample of each stream, and its episode's end.
        self._next, self._end = np.zeros((2, streams), np.int64)
        own = len(range(streams)[share])
        self.memory = {key: torch.zeros(own, *shape, device=device) for key, shape in memory_shapes.items()}

    def draw(self, starts: np.ndarray, size: int, generator: torch.Generator) -> np.ndarray:
        """Return the next samples of all streams, int [S, W]; `starts` are those of the episodes among `size` samples."""
        indices = np.empty((len(self._next), self._window), np.int64)
        ends = np.append(starts[1:], size)
        for step in range(self._window):
            (over,) = np.nonzero(self._next == self._end)
            if len(over):
                episodes = torch.randint(len(starts), (len(over),), generator=generator).numpy()
                self._next[over], self._end[over] = starts[episodes], ends[episodes]
            indices[:, step] = self._next
            self._next += 1
        return indices

    def observations(self, age: torch.Tensor) -> Observation:
        """Return what else a recurrent student needs of this rank's samples, of `age` int [B] in their episodes."""
        return {**self.memory, FIRST: (age == 0).to(self._device)} if self.memory else {}

    def remember(self, memory: Mapping[str, torch.Tensor]) -> None:
        """Keep what the student remembers after each of this rank's samples [B, ...], for the next windows."""
        self.memory = {key: memory[key][self._window - 1 :: self._window].clone() for key in self.memory}

    def state_dict(self) -> dict[str, Any]:
        """Return where the streams are."""
        return {"next": self._next.tolist(), "end": self._end.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; the memory is kept by each rank."""
        self._next[:], self._end[:] = state["next"], state["end"]
