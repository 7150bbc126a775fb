"""The errors that end a command.

All derive from `BadInput` or `RunError`, which carry the exit status; `Common.Command_line` prints them in one line.
"""

import contextlib
import functools
import signal
import sys
from collections.abc import Iterator

# Signals that ask a program to stop, Ctrl-C aside; SLURM warns by SIGUSR1 before a job's time is up.
STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class BadInput(ValueError):
    """The input is wrong, and nothing was lost. The message names the mistake and the right input."""

    exit_status = 2


class BadSetting(BadInput):
    """A setting is wrong. The message begins with the setting's name, which a command line shows as a flag."""


class BadFile(BadInput):
    """A file is missing, damaged, or not of the kind that is needed. The message names the file."""


class BadDevice(BadInput):
    """A device does not exist on this machine."""


class OutOfMemory(BadInput):
    """The settings need more memory than the machine has."""


class RunError(RuntimeError):
    """A run cannot continue; its last checkpoint is kept. `details` are further lines, such as a worker's traceback."""

    exit_status = 1

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


class NonFinite(RunError):
    """A number is infinite or not a number. The message names it."""


class Diverged(RunError):
    """Training produced a number that is not finite. The message says at which updates, and names the last good file."""


class LostRank(RunError):
    """Another rank has ended, so that this one cannot continue."""


class Stopped(RunError):
    """A signal asked the run to stop, and everything is saved. The exit status is a shell's: 128 plus the signal."""

    def __init__(self, number: int, where: str):
        super().__init__(f"stopped and saved at {where}")
        self.exit_status = 128 + number


@contextlib.contextmanager
def advice(text: str) -> Iterator[None]:
    """Append advice, such as a flag that helps, to the message of a `BadFile` that is raised in here."""
    try:
        yield
    except BadFile as error:
        raise type(error)(f"{error}; {text}") from error


@contextlib.contextmanager
def decoration(what: str) -> Iterator[None]:
    """Let a failure in here cost a line on stderr instead of the run, which `what` only decorates.

    The same line is printed once.
    """
    try:
        yield
    except Exception as error:  # of encoders, renderers, plots and servers, which raise anything
        _print_once(f"warning: {what} failed, and the run goes on without: {brief(error)}")


@functools.cache
def _print_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def brief(error: Exception | str) -> str:
    """Return an error's message, or its type, or a text, as one line of at most 200 characters."""
    return " ".join((str(error) or repr(error)).split())[:200]
