"""Command lines: errors in one line, parsers, and flags made from settings."""

import argparse
import contextlib
import dataclasses
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from Common import Parallel
from Common.Errors import STOPS, BadInput, BadSetting, RunError, Stopped, brief
from Common.Machine import writable_caches

NAME = r"\w[\w.+-]*"  # of a run or a task: no path, nothing that a shell treats specially


def one_line(message: str) -> str:
    """Escape characters that cannot be printed, line breaks among them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)


@contextlib.contextmanager
def one_line_errors(program: str, how_to_continue: str = "") -> Iterator[None]:
    """Turn errors into a line on stderr and an exit status: 2 for bad input, 1 for a run that cannot continue.

    What cannot be printed, such as after `head` has ended or a terminal was closed, is dropped and is no error.

    Args:
        program: the program's name.
        how_to_continue: advice that is added to the message of a run that was stopped.
    """
    with (
        _signals_that_stop(),
        _output_that_cannot_fail(),
        _errors_in_a_line(program, how_to_continue),
        writable_caches(),
    ):
        yield


@contextlib.contextmanager
def _signals_that_stop() -> Iterator[None]:
    """Let signals to stop raise in here, and not after it, where Python ends and would print a traceback for each."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, _stop) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Signalled(SystemExit):
    """Ends a command that was sent a signal to stop."""


def _stop(number: int, _: Any) -> NoReturn:
    raise _Signalled(128 + number)


@contextlib.contextmanager
def _errors_in_a_line(program: str, how_to_continue: str) -> Iterator[None]:
    def leave(message: str, status: int = BadInput.exit_status, details: str = "") -> NoReturn:
        rank = f"rank {Parallel.rank()}: " if Parallel.count() > 1 else ""
        print(f"{program}: error: {rank}{one_line(message)}{details}", file=sys.stderr)
        sys.exit(status)

    try:
        yield
    except (KeyboardInterrupt, _Signalled) as stop:
        if not Parallel.rank():
            print(f"stopped; {how_to_continue}" if how_to_continue else "stopped", file=sys.stderr)
        sys.exit(stop.code if isinstance(stop, _Signalled) else 128 + signal.SIGINT)
    except Stopped as stop:
        if Parallel.rank():
            Parallel.leave_it_to_another(stop.exit_status)
        print(f"{stop}; {how_to_continue}", file=sys.stderr)
        sys.exit(stop.exit_status)
    except BadInput as error:
        leave(setting_as_flag(error))
    except RunError as error:
        leave(str(error), error.exit_status, f"\n{error.details}\n{how_to_continue}" if error.details else "")
    except MemoryError as error:
        leave(f"it does not fit into memory ({str(error)[:100]})")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            kept = f", and {how_to_continue}" if how_to_continue else ""
            leave(f"{error.strerror}; what was saved is whole{kept}")
        leave(brief(error) if error.filename is None else f"{error.filename}: {error.strerror}")


class _Output:
    """A text stream that cannot fail: signs that it lacks are replaced, and what nobody reads any more is dropped."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; returns its length."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self._stream.write(text.encode(self._stream.encoding, "replace").decode(self._stream.encoding))
        except OSError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Send all that follows nowhere: `head` has ended, a terminal was closed, or a disk is full."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _output_that_cannot_fail() -> Iterator[None]:
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before Python began
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = outputs = _Output(sys.stdout), _Output(sys.stderr)  # type: ignore[assignment]
    try:
        yield
    finally:
        for output in outputs:
            output.flush()
        sys.stdout, sys.stderr = before


def setting_as_flag(error: BadInput) -> str:
    """Return an error's message, in which a leading name of a setting is shown as a flag."""
    return f"--{error}" if isinstance(error, BadSetting) else str(error)


def check_name(setting: str, name: str) -> None:
    """Raise `BadSetting` unless a run can have this name."""
    if not re.fullmatch(NAME, name):
        raise BadSetting(f"{setting} {name!r}: letters, digits and . _ + - only")


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Understand `--flag=true`, `--flag=false` and `--flag=[1, 2]` as well, which agents of sweeps write."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([part for word in words for part in self._written_out(word)], namespace)

    def _written_out(self, word: str) -> list[str]:
        """Return the words that mean the same: `--flag` or `--no-flag` for true or false, and a word for each entry of a list."""
        flag, equals, value = word.partition("=")
        action = self._option_string_actions.get(flag)
        if not equals or action is None or action.nargs in (None, "?"):
            return [word]
        if action.nargs != 0:
            return [flag, *filter(None, (each.strip("'\"") for each in re.split(r"[\s,]+", value.strip("[]()"))))]
        if value.lower() not in ("true", "false"):
            self.error(f"{flag}={value}: true or false is needed")
        meant = flag if value.lower() == "true" else f"--no-{flag[2:]}"
        return [meant] if meant in action.option_strings else []

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with status 2."""
        if Parallel.local_rank():  # the ranks of a machine have the same command line
            Parallel.leave_it_to_another()
        print(f"{self.prog}: error: {one_line(message)}", file=sys.stderr)
        sys.exit(BadInput.exit_status)


def add_flag(group: Any, flags: list[str], fields: Mapping[str, dataclasses.Field]) -> None:
    """Add the flag of a setting, with all its spellings, to a parser or a group of its arguments.

    `fields` has the setting as each method declares it; their defaults may differ.
    """
    field: Any = next(iter(fields.values()))
    defaults = {method: _text(field.default) for method, field in fields.items()}
    differ = len(set(defaults.values())) > 1
    shown = ", ".join(map(" ".join, defaults.items())) if differ else _text(field.default)
    choices = max((field.metadata["choices"] or () for field in fields.values()), key=len)
    options: dict[str, Any] = {"type": str if field.default is None else type(field.default)}
    if options["type"] is bool:
        options = {"action": argparse.BooleanOptionalAction}
    elif field.default == ():
        options = {"nargs": "+", "metavar": "NAME"}
    elif options["type"] is tuple:
        numbers = {"type": int, "nargs": len(field.default), "metavar": "N"}
        options = numbers if field.default else {"nargs": "*", "metavar": "TEXT"}
    elif field.metadata["parse"]:
        options = {"type": _number_or_text}
    elif choices:
        options["metavar"] = f"{{{','.join(map(str, choices))}}}"
    help_text = (field.metadata["meaning"] + (f" (default: {shown})" if shown else "")).replace("%", "%%")
    group.add_argument(*flags, dest=field.name, help=help_text, **options)


def as_flags(settings: dict[str, Any]) -> Iterator[str]:
    """Yield the words of a command line."""
    for name, value in settings.items():
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        elif value is not None:
            yield from (f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value]))


def _number_or_text(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def _text(default: Any) -> str:
    return " ".join(map(str, default)) or "none" if isinstance(default, tuple) else str(default)
