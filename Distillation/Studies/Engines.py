"""Engines, on which the calls of a study run, and the engine of this machine."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from Common.Files import ROOT
from Common.Machine import cores
from Distillation.Studies.Jobs import Call

POLL_S = 0.2
SCRIPT = Path("Distillation") / "Pusher.py"


class Engine(Protocol):
    """Runs calls: on this machine (`Local`) or by Ray (`Distillation.Studies.Ray`).

    Attributes:
        at_once: how many calls run at once, to estimate the time that is left.
        slots: how many calls may be handed over at once.
    """

    at_once: int
    slots: int

    def start(self, call: Call) -> "Handle":
        """Start a call."""
        ...


class Handle(Protocol):
    """A call that was handed over."""

    @property
    def seconds(self) -> float:
        """The seconds it has taken; 0 until it runs."""
        ...

    def poll(self) -> int | None:
        """Return its exit status, None before it ends."""
        ...

    def terminate(self) -> None:
        """Tell it to save and stop."""
        ...

    def wait(self) -> object:
        """Wait until it has ended."""
        ...


class Local:
    """Processes of this machine, which share its cores.

    Args:
        at_once: how many run at once.
        logs: folder for their output.
    """

    def __init__(self, at_once: int, logs: Path):
        self.at_once = self.slots = at_once
        self._logs, self._threads = logs, max(1, cores() // at_once)

    def start(self, call: Call) -> Handle:
        """Start a call."""
        return Process(call, self._logs, self._threads)


class Process(subprocess.Popen):
    """A call's process, in a session of its own, so that Ctrl-C reaches the runner alone.

    Args:
        call: the call.
        logs: folder for its output.
        threads: the number of cores it uses.
        gpus: whether it may use a GPU.
    """

    def __init__(self, call: Call, logs: Path, threads: int, gpus: bool = True):
        self._began = time.monotonic()
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{call.name}.log").open("a") as output:
            super().__init__(
                [sys.executable, ROOT / SCRIPT, "--num_workers", str(threads), *call.command],
                cwd=ROOT,
                env={"OMP_NUM_THREADS": str(threads)} | os.environ | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_runner,
            )

    @property
    def seconds(self) -> float:
        """The seconds it has taken."""
        return time.monotonic() - self._began


def _end_with_runner() -> None:
    """Have Linux kill this process if the runner is killed; on other systems it goes on, and its folder is locked."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of sys/prctl.h
