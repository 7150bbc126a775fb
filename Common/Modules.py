"""Python modules and files that users name, such as those of their tasks and teachers."""

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from types import ModuleType

from Common.Errors import BadInput, brief


def load_module(where: str, kind: str) -> tuple[ModuleType, str]:
    """Import a module by its name, or execute a file, once in a process; it finds modules beside it.

    Returns the module, and its name or the file's absolute path. Raises `BadInput`, which calls it a `kind` module or file.
    """
    if where.endswith(".py") or os.sep in where:
        where = os.path.abspath(os.path.expanduser(where))
        return _load_file(where, kind), where
    return _import_module(where, kind), where


def _import_module(name: str, kind: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failure(name, error, kind) from error
        raise BadInput(f"{kind} module {name}: {error}; a file is given as path/to/file.py:NAME") from error
    except (Exception, SystemExit) as error:  # it is foreign code
        raise _failure(name, error, kind) from error


def _load_file(path: str, kind: str) -> ModuleType:
    """Execute a Python file as a module whose functions and classes can be sent to processes that do not have it."""
    name = f"file_{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    if not os.path.isfile(path):
        raise BadInput(f"{kind} file {path}: no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{kind} file {path}: a Python file, .py, is needed")
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)
    import cloudpickle

    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):  # it is foreign code
            raise _failure(path, error, kind) from error
        raise
    cloudpickle.register_pickle_by_value(module)
    return module


def _failure(where: str, error: Exception | SystemExit, kind: str) -> BadInput:
    """Return the error of a module that raised while it was imported; that of a file has the line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == where]
    line = f", line {lines[-1]}" if lines else ""
    said = f"it ends Python with status {error.code}" if isinstance(error, SystemExit) else brief(error)
    return BadInput(f"{kind} module {where}{line}: it fails while it is imported: {type(error).__name__}: {said}")
