"""One run on several processes, the ranks, which torchrun starts. In a single process these functions do nothing.

Gradients are averaged by PyTorch's DistributedDataParallel (Li et al. 2020, https://arxiv.org/abs/2006.15704). This file has
all other collective calls of the project. Every rank has to make them in the same order.
"""

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NoReturn

import numpy as np

from Common.Errors import LostRank, RunError, brief

TIMEOUT = timedelta(hours=1)  # the others wait while the first rank tests, or collects a dataset
GRACE_S = 60  # for another rank to print its error


def _launched(name: str, alone: int) -> int:
    return int(os.environ[name]) if "TORCHELASTIC_RUN_ID" in os.environ else alone


def count() -> int:
    """Return how many ranks there are."""
    return _launched("WORLD_SIZE", 1)


def rank() -> int:
    """Return which of them this is; the first, 0, tests, logs, and writes files."""
    return _launched("RANK", 0)


def local_rank() -> int:
    """Return which one of its machine's ranks this is."""
    return _launched("LOCAL_RANK", 0)


def local_count() -> int:
    """Return how many ranks share this machine."""
    return _launched("LOCAL_WORLD_SIZE", 1)


@contextlib.contextmanager
def joined(device: Any) -> Iterator[None]:
    """Connect the ranks, by gloo and between CUDA devices by NCCL; raises `LostRank` if one of them has ended."""
    if count() == 1:
        yield
        return
    from torch import distributed

    backend, own = ("cpu:gloo,cuda:nccl", device) if device.type == "cuda" else ("gloo", None)
    with communicating():
        distributed.init_process_group(backend, timeout=TIMEOUT, device_id=own)
    yield
    exchange(None)
    gc.collect()  # trainers refer to the group, whose threads have to end before Python does
    distributed.destroy_process_group()


@contextlib.contextmanager
def communicating() -> Iterator[None]:
    """Turn a collective call that fails in here, as it does when another rank has ended, into `LostRank`."""
    try:
        yield
    except RuntimeError as error:
        import torch

        if count() == 1 or isinstance(error, RunError | torch.OutOfMemoryError):
            raise
        raise LostRank(f"another rank has ended ({brief(error)})") from error


def exchange(value: Any) -> list[Any]:
    """Return every rank's value, in their order."""
    if count() == 1:
        return [value]
    from torch import distributed

    values = [None] * count()
    with communicating():
        distributed.all_gather_object(values, value)
    return values


def leave_it_to_another(status: int = 2) -> NoReturn:
    """End this rank after another one, which prints the error: torchrun ends all ranks as soon as one has ended."""
    time.sleep(GRACE_S)
    sys.exit(status)


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """End all ranks if one of them fails in here; the first of those that fail prints its error."""
    error = None
    try:
        yield
    except Exception as found:
        error = found
    failed = [number for number, wrong in enumerate(exchange(error is not None)) if wrong]
    if failed and rank() != failed[0]:
        leave_it_to_another()
    if error is not None:
        raise error


def interleave(values: np.ndarray) -> np.ndarray:
    """Put together the ranks' shares `whole[rank::count]`, [n, ...] of the same n."""
    if count() == 1:
        return values
    import torch

    own = torch.from_numpy(values)
    parts = [torch.empty_like(own) for _ in range(count())]
    with communicating():
        torch.distributed.all_gather(parts, own)
    return torch.stack(parts, 1).flatten(0, 1).numpy()


def mean_and_std(values: Any) -> tuple[Any, Any]:
    """Return mean and standard deviation of all ranks' tensors [n], of the same n, together."""
    if count() == 1:
        return values.mean(), values.std()
    import torch

    exact = values.double()
    sums = torch.stack([exact.sum(), exact.square().sum()])
    with communicating():
        torch.distributed.all_reduce(sums)
    number = len(values) * count()
    mean = sums[0] / number
    variance = (sums[1] - number * mean.square()).clamp(min=0) / (number - 1)
    return mean.to(values), variance.sqrt().to(values)


def averaging(student: Any, loss: Callable[..., Any], unused: bool = False) -> Callable[..., Any]:
    """Return `loss` so that its `backward` leaves the mean of all ranks' gradients in the student's parameters.

    PyTorch has to find the tensors in what `loss` returns. `unused` says whether some parameters have no part in it.
    """
    if count() == 1:
        return loss
    from torch import distributed, nn

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = student

        def forward(self, *arguments: Any) -> Any:
            return loss(*arguments)

    # A group of its own, for DDP never lets go of it: a thread that is still busy when Python ends would abort the rank.
    with communicating():
        return nn.parallel.DistributedDataParallel(
            Loss(), forward_sync_buffers=False, find_unused_parameters=unused, process_group=distributed.new_group()
        )
