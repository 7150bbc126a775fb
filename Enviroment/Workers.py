"""Worker processes that each hold an object and call its methods, and arrays that they share with their parent.

This module knows no environment: it imports neither Gymnasium, MuJoCo nor PyTorch.
"""

import ctypes
import multiprocessing as mp
import os
import select
import signal
import sys
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from Common.Errors import STOPS, RunError

START_TIMEOUT_S = 120.0  # a worker imports its factory's module first, which takes a while on a loaded machine
SLOW_START_S = 20.0
SLOW_S, HUNG_S = 5.0, 60.0  # a worker that has not answered for so long is named, and given up

# Workers are forked from a process that has imported the factory's module once. It is no copy of this one, which may hold threads.
# Windows cannot fork, and libraries of macOS crash in forks: there each worker imports the module itself.
_CONTEXT: Any = mp.get_context("forkserver" if sys.platform == "linux" else "spawn")
# POSIX's own calls are faster than those of a `Connection`, which Windows needs.
_POSIX = hasattr(select, "poll")
# Each message in a pipe begins with a byte. A step is only that byte, in both directions: nearly all messages are steps,
# and pickling a message takes as long as several steps of an environment.
_STEP, _MESSAGE = b"s", b"m"


class WorkerError(RunError):
    """A worker died, hung or raised. The message says which and why; `details` holds its traceback."""


class SharedArrays:
    """Named arrays of zeros in anonymous shared memory, which ends with the last process that holds it.

    It can be passed to workers as an argument of their factory, and be pickled in no other way. `fields` has the shape and
    dtype of each array.
    """

    def __init__(self, fields: Mapping[str, tuple[tuple[int, ...], Any]]):
        self._fields: dict[str, tuple[Any, tuple[int, ...], Any]] = {
            name: (_CONTEXT.RawArray(ctypes.c_uint8, int(np.prod(shape)) * np.dtype(dtype).itemsize), shape, dtype)
            for name, (shape, dtype) in fields.items()
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays, as views of the shared memory."""
        return {name: np.frombuffer(raw, dtype).reshape(shape) for name, (raw, shape, dtype) in self._fields.items()}


class Workers:
    """Processes that each make an object and call its methods. All of them do the same thing at the same time.

    They start in the background; the first call waits for them. They ignore Ctrl-C and signals to stop, and end when they are
    closed, when this object is no longer referenced, or when their parent ends. Any error closes them.

    Args:
        factory: makes a worker's object, which has the methods that are called, and `close()`. It must be importable.
        arguments: one tuple of the factory's arguments for each worker.
        name: a worker's name in messages.
    """

    def __init__(self, factory: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], name: str = "worker"):
        self.processes: list[Any] = []
        self.closed, self._starting = False, True
        self._name = name
        self._connections: list[Connection] = []
        self._readable: list[Callable[[float], Any]] = []  # wait so many seconds for an answer, one for each connection
        # It runs at exit before `multiprocessing` would end the workers by SIGTERM, which they ignore, and wait for them.
        self._end = weakref.finalize(self, _end, self.processes, self._connections)
        _CONTEXT.set_forkserver_preload([factory.__module__])
        try:
            for own in arguments:
                ours, theirs = _CONTEXT.Pipe()
                process = _CONTEXT.Process(target=_work, args=(theirs, factory, own, dict(os.environ)), daemon=True)
                _start(process)
                theirs.close()  # so that our end of the pipe ends with the worker
                self.processes.append(process)
                self._connections.append(ours)
                self._readable.append(_poller(ours))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self.processes)

    def call(self, command: str, *arguments: Any) -> list[Any]:
        """Call a method of every worker's object and return the results in the order of the workers.

        Raises `WorkerError` if a worker died, hangs, or raised.
        """
        return self._ask((command, arguments))

    def step(self) -> None:
        """Call every object's `step()`, which takes and returns nothing; much cheaper than `call`, and raises as that."""
        self._ask(None)

    def close(self) -> None:
        """Stop the workers in any state; closing twice is harmless."""
        self.closed = True
        self._end()

    def _ask(self, message: tuple[str, Any] | None) -> list[Any]:
        if self.closed:
            raise WorkerError(f"the {self._name}s are closed")
        try:
            if self._starting:
                self._gather()
                self._starting = False
            for number, connection in enumerate(self._connections):
                try:
                    _send(connection, message)
                except (BrokenPipeError, ConnectionResetError):
                    raise self._death(number) from None
            return self._gather()
        except BaseException:
            self.close()
            raise

    def _gather(self) -> list[Any]:
        results = []
        for number, connection in enumerate(self._connections):
            try:
                self._wait(number)
                status, result = _receive(connection) or ("done", None)
            except (EOFError, OSError):
                raise self._death(number) from None
            if status == "error":
                raise WorkerError(f"{self._name} {number} failed:", str(result))
            results.append(result)
        return results

    def _wait(self, number: int) -> None:
        """Wait for a worker's answer; print a line about one that is slow, raise for one that hangs."""
        slow, limit = (SLOW_START_S, START_TIMEOUT_S) if self._starting else (SLOW_S, HUNG_S)
        readable = self._readable[number]
        if readable(slow):
            return
        print(f"{self._name} {number} has not answered for {slow:g} s", file=sys.stderr, flush=True)
        if not readable(limit - slow):
            raise WorkerError(f"{self._name} {number} hangs: no answer for {limit:g} s")

    def _death(self, number: int) -> WorkerError:
        self.processes[number].join(5)
        return WorkerError(f"{self._name} {number} died (exit code {self.processes[number].exitcode})")


def _start(process: Any) -> None:
    """Start a process. The server of forks, which the first one starts, has to import this repository's modules too."""
    own, before = str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([own, before] if before else [own])
    try:
        process.start()
    finally:
        del os.environ["PYTHONPATH"]
        os.environ |= {} if before is None else {"PYTHONPATH": before}


def _poller(connection: Connection) -> Callable[[float], Any]:
    if not _POSIX:
        return connection.poll
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return lambda seconds: poller.poll(1000 * seconds)


def _send(connection: Connection, message: tuple[str, Any] | None) -> None:
    """Send a message; None stands for a step."""
    kind = _STEP if message is None else _MESSAGE
    os.write(connection.fileno(), kind) if _POSIX else connection.send_bytes(kind)
    if message is not None:
        connection.send(message)


def _receive(connection: Connection) -> tuple[str, Any] | None:
    """Receive a message of `_send`."""
    kind = os.read(connection.fileno(), 1) if _POSIX else connection.recv_bytes()
    if not kind:
        raise EOFError
    return None if kind == _STEP else connection.recv()


def _work(
    connection: Connection, factory: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str]
) -> None:
    """Make an object and call its methods as the parent asks, until the parent's end of the pipe is closed."""
    # Ctrl-C and a batch system's signals may reach all processes of a job. The parent handles them: it still needs its
    # workers to save, and then closes them.
    for number in (signal.SIGINT, *STOPS):
        signal.signal(number, signal.SIG_IGN)
    os.environ.update(environment)  # the process that this one was forked from may have begun with another
    held = None
    try:
        held = factory(*arguments)
        _send(connection, ("done", None))
        while True:
            message = _receive(connection)
            if message is None:
                held.step()
                _send(connection, None)
            else:
                command, given = message
                _send(connection, ("done", getattr(held, command)(*given)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        if held is not None:
            held.close()
    except Exception:
        _send(connection, ("error", traceback.format_exc()))


def _end(processes: Sequence[Any], connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.close()  # a worker that waits for a command ends at once; one that is busy ends after its work
    for process in processes:
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
