"""Calls of Pusher.py that a study is made of, and what they run on."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from Common.Files import ROOT
from Distillation.Study_file import StudyRun
from Distillation.Utils import LAST

POLL_S = 0.2


@dataclass(frozen=True, eq=False)
class Job:
    """A call of Pusher.py.

    Attributes:
        name: of what it makes.
        arguments: its arguments.
        needs: jobs that come before.
        run: the run, unless it collects a dataset.
    """

    name: str
    arguments: list[str]
    needs: list["Job"]
    run: StudyRun | None = None

    @property
    def command(self) -> list[str]:
        """Its arguments now: a run that was begun is gone on with."""
        run = self.run
        if run is None:
            return self.arguments
        begun = (run.folder / LAST).is_file() and not run.unlike(run.folder)
        goes_on = begun and (run.parent is None or run.parent.finished(run.parent.folder))
        return [*self.arguments, "--resume" if goes_on else "--overwrite"]

    @property
    def kind(self) -> tuple[str, str] | None:
        """What takes about as long."""
        return (self.run.config.method, self.run.config.mode) if self.run else None


class Engine(Protocol):
    """What jobs run on: this machine (`Local`), or Ray (`Study_ray.Ray`).

    Attributes:
        at_once: how many jobs run at once, for what is left to be said.
        slots: how many may be handed over at once.
    """

    at_once: int
    slots: int

    def start(self, job: Job) -> "Handle":
        """Begin a job."""
        ...


class Handle(Protocol):
    """A job that was handed over.

    Attributes:
        seconds: what it has taken, 0 until it runs.
    """

    @property
    def seconds(self) -> float:
        """What it has taken; 0 until it runs."""
        ...

    def poll(self) -> int | None:
        """Return its exit status, None before."""
        ...

    def terminate(self) -> None:
        """Tell it to save and stop."""
        ...

    def wait(self) -> object:
        """Wait until it has."""
        ...


class Local:
    """Processes of this machine, which share its cores.

    Args:
        at_once: how many.
        logs: folder for what they print.
    """

    def __init__(self, at_once: int, logs: Path):
        self.at_once = self.slots = at_once
        self._logs, self._threads = logs, max(1, len(os.sched_getaffinity(0)) // at_once)

    def start(self, job: Job) -> Handle:
        """Begin a job."""
        return Process(job, self._logs, self._threads)


class Process(subprocess.Popen):
    """A job's process, in a session of its own: Ctrl-C is the runner's.

    Args:
        job: the job.
        logs: folder for what it prints.
        threads: how many cores it is to use.
        gpus: whether it may use a GPU.
    """

    def __init__(self, job: Job, logs: Path, threads: int, gpus: bool = True):
        self._began = time.monotonic()
        logs.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("Pusher.py")
        with (logs / f"{job.name}.log").open("a") as output:
            super().__init__(
                [sys.executable, script, "--num_workers", str(threads), *job.command],
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
        """What it has taken."""
        return time.monotonic() - self._began


def _end_with_runner() -> None:
    """Have Linux kill this process if the runner is killed; elsewhere it goes on, and its folder is locked."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of sys/prctl.h
