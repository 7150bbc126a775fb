"""What the benchmarks share: candidates measured in turn, each in a process of its own, and the machine they ran on."""

import multiprocessing as mp
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from Common.Machine import cores, keep_freed_memory


class Apart:
    """A candidate in a process of its own, until the context ends: calling it makes one call there.

    Args:
        build: called there with an `ExitStack`, closed at the end, and `arguments`; returns what is measured.
        stock: the process has PyTorch's own settings of threads and the C library's of memory, as a script of its own would.
    """

    def __init__(self, build: Callable[..., Callable[..., Any]], *arguments: Any, stock: bool = False):
        context = mp.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments, stock))
        with patch.dict(os.environ, {"GOMP_SPINCOUNT": "300000"} if stock else {}):  # GNU OpenMP's own
            self._process.start()
        theirs.close()

    def __call__(self, *arguments: Any) -> Any:
        """Make one call; returns its result."""
        self._connection.send(arguments)
        return self._connection.recv()

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Any, build: Callable[..., Callable[..., Any]], arguments: Sequence[Any], stock: bool) -> None:
    if not stock:
        keep_freed_memory()
    with ExitStack() as open_things:
        call = build(open_things, *arguments)
        while True:
            try:
                arguments = connection.recv()
            except EOFError:
                return
            connection.send(call(*arguments))


def in_turn(candidates: Mapping[str, Callable[[], Any]], repeats: int, calls: int = 1) -> dict[str, float]:
    """Return the median seconds of a call of each candidate, measured one after the other, `repeats` times over.

    Taking turns lets a machine's noise fall on all alike. Every candidate is called once beforehand.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    for _ in range(repeats):
        for name, call in candidates.items():
            time.sleep(0.05)  # until the threads of the one before have come to rest
            started = time.perf_counter()
            for _ in range(calls):
                call()
            seconds[name].append((time.perf_counter() - started) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """Describe the processor, and the versions that matter."""
    import mujoco
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "mujoco": mujoco.__version__,
    }
