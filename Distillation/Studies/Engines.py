"""Engines make the calls of a study: one of this machine, and the protocol that Ray's follows too."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from Common.Errors import STOPS
from Common.Files import ROOT
from Common.Machine import cores
from Distillation.Studies.Jobs import Call

if TYPE_CHECKING:
    from Distillation.Studies.Ray import RayCall

POLL_S = 0.2
STOP = {signal.SIGINT, *STOPS}
SCRIPT = Path("Distillation") / "Pusher.py"


class Engine(Protocol):
    """Makes calls: on this machine (`Local`) or by Ray (`Distillation.Studies.Ray`)."""

    at_once: int  # how many calls run at once, to estimate the time that is left
    slots: int  # how many calls may be handed over at once

    def start(self, call: Call) -> "Process | RayCall":
        """Start a call; returns its process, or one like it on another machine."""
        ...


class Local:
    """Processes of this machine, which share its cores; their output goes to files in `logs`."""

    def __init__(self, at_once: int, logs: Path):
        self.at_once = self.slots = at_once
        self._logs, self._threads = logs, max(1, cores() // at_once)

    def start(self, call: Call) -> "Process":
        """Start a call."""
        return Process(call, self._logs, self._threads)


class Process(subprocess.Popen):
    """A call's process, which uses `threads` cores, perhaps a GPU, and writes its output into `logs`.

    It has a session of its own, so that Ctrl-C reaches the runner alone.
    """

    def __init__(self, call: Call, logs: Path, threads: int, gpus: bool = True):
        self._began = time.monotonic()
        logs.mkdir(parents=True, exist_ok=True)
        command: list[Any] = [sys.executable, ROOT / SCRIPT, "--num_workers", str(threads), *call.command]
        given = os.environ.get("OMP_NUM_THREADS", "")
        env = os.environ | {"OMP_NUM_THREADS": str(min(threads, int(given)) if given.isdecimal() else threads)}
        env |= {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
        apart: dict[str, Any] = {"cwd": ROOT}
        if os.name == "posix":
            apart |= {"start_new_session": True, "preexec_fn": partial(_end_with_runner, os.getpid())}
        with (logs / f"{call.name}.log").open("a") as output, _stops_held_back():
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            super().__init__(command, env=env, **streams, **apart)

    @property
    def seconds(self) -> float:
        """The seconds it has taken."""
        return time.monotonic() - self._began


@contextlib.contextmanager
def _stops_held_back() -> Iterator[None]:
    """Hold back requests to stop: while it forks, Python drops the exception of a signal's handler, and with it the request."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_runner(runner: int) -> None:
    """Let this process be stopped, and be killed if the runner is killed (on Linux; elsewhere its folder stays locked)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of sys/prctl.h
    if os.getppid() != runner:  # it was killed before
        os._exit(1)
