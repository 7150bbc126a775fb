"""Runs of a study as tasks of Ray (https://docs.ray.io), on this machine's cores or on a cluster.

The machines of a cluster share the repository's folder and have its packages. A run whose machine is lost is resumed on
another one from its checkpoint, and results lie where they always do.
"""

import contextlib
import logging
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from Common.Errors import STOPS, BadInput, brief
from Common.Files import ROOT
from Distillation.Studies.Engines import POLL_S, Process
from Distillation.Studies.Jobs import Call

CONNECT_S = 10
RETRIES = 10  # of a run whose process, or whose machine, was lost


class Killed(Exception):
    """A run's process was killed, so that it can be resumed."""


def make(call: Call, logs: Path, cpus: int, gpus: bool) -> tuple[int, float]:
    """Make a call on the machine that Ray has chosen, from its last checkpoint if there is one; returns status and seconds.

    Raises:
        Killed: its process was killed, or stopped by somebody else, as when a machine is taken away.
        FileNotFoundError: this machine does not see the study's folder.
    """
    if not logs.is_dir():
        raise FileNotFoundError(f"{socket.gethostname()} does not see {logs}: the machines have to share it")
    # Ray cancels by SIGINT, which processes ignore that were started in the background of a script.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = Process(call, logs, cpus, gpus)
    try:
        while (status := process.poll()) is None:
            time.sleep(POLL_S)  # Ray cancels between two lines of Python
    except BaseException:  # cancelled
        cancel = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ray cancels again and again while the run is saving
        process.terminate()
        process.wait()
        signal.signal(signal.SIGINT, cancel)
        raise
    if status < 0 or status - 128 in STOPS:
        raise Killed(f"status {status}")
    return status, process.seconds


class RayCall:
    """A call that was handed to Ray, with the methods of a `Process`."""

    def __init__(self, reference: Any):
        self._reference = reference
        self.seconds = 0.0

    def poll(self) -> int | None:
        """Return its exit status, None before it ends."""
        if not ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            status, self.seconds = ray.get(self._reference)
        except ray.exceptions.RayError as error:
            print(f"Ray: {brief(error)}", flush=True)
            return 1
        return status

    def terminate(self) -> None:
        """Tell it to save and stop."""
        ray.cancel(self._reference)

    def wait(self) -> None:
        """Wait until it has ended."""
        ray.wait([self._reference], timeout=60)


class Ray:
    """Ray as an engine: it chooses a machine with `cpus` and `gpus` for every call, and repeats calls that were lost."""

    slots = 10**6  # calls wait in Ray until they fit

    def __init__(self, cpus: int, gpus: float, logs: Path):
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        machines = [(each.get("CPU", 0), each.get("GPU", 0)) for each in resources]
        self.at_once = sum(int(min(c / cpus, g / gpus if gpus else c / cpus)) for c, g in machines)
        if not self.at_once:
            there = ", ".join(f"{c:g} cores and {g:g} GPUs" for c, g in machines)
            raise BadInput(f"--cpus {cpus} --gpus {gpus:g}: no machine has them; Ray has {there}")
        wanted: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus}
        wanted |= {"max_retries": RETRIES, "retry_exceptions": [Killed]}
        self._make: Any = ray.remote(**wanted)(make)
        self._arguments = logs, cpus, gpus > 0

    @classmethod
    @contextlib.contextmanager
    def connected(cls, address: str, cpus: int, gpus: float, logs: Path) -> Iterator["Ray"]:
        """Connect to the cluster at `address`; `local` starts Ray on this machine.

        Raises:
            BadInput: Ray does not answer, or lacks the cores or GPUs of a run.
        """
        logs.mkdir(parents=True, exist_ok=True)
        stop = signal.getsignal(signal.SIGTERM)
        try:
            place = re.fullmatch(r"(ray://)?(.+?)(?::(\d+))?", address)
            if place and address not in ("auto", "local"):  # Ray itself would try for minutes
                port = int(place[3] or (10001 if place[1] else 6379))
                socket.create_connection((place[2], port), timeout=CONNECT_S).close()
            own = {"env_vars": {"PYTHONPATH": str(ROOT)}}  # not another repository that is installed
            context = ray.init(address, runtime_env=own, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # OSError, RuntimeError, ValueError and others
            raise BadInput(f"--ray {address}: {brief(error)}") from None
        signal.signal(signal.SIGTERM, stop)  # Ray has put its own there
        try:
            if context.dashboard_url:
                print(f"Ray's dashboard: http://{context.dashboard_url}", flush=True)
            yield cls(cpus, gpus, logs)
        finally:
            ray.shutdown()

    def start(self, call: Call) -> RayCall:
        """Hand a call to Ray."""
        return RayCall(self._make.options(name=call.name).remote(call, *self._arguments))
