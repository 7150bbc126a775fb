"""Teachers by reference: the file that one is in, its hash, and functions of states from any Python file or module."""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Common.Errors import BadInput
from Common.Files import RESULTS, file_hash
from Common.Modules import load_module
from Enviroment.Tasks import Task

if TYPE_CHECKING:  # a study's command line answers before NumPy and PyTorch are loaded
    import numpy as np


def teacher_source(reference: str | Path | None, task: Task) -> Path:
    """Return the file that a teacher is in (see `open_teacher`); of a function the Python file.

    Raises `BadInput` if there is no such module, or if it is no reference.
    """
    if not isinstance(reference, str | Path | None):  # from a damaged config.json
        raise BadInput(f"teacher {reference!r}: a file, package.module:function or path/to/file.py:function is needed")
    if not reference:
        return RESULTS / task.name / "Teacher" / "teacher.pt"
    in_code = function_name(reference)
    if in_code is None or in_code[0].endswith(".py"):
        return Path(in_code[0] if in_code else reference)
    try:
        spec = importlib.util.find_spec(in_code[0])
    except (Exception, SystemExit) as error:  # it imports the packages around it, which are foreign code
        raise BadInput(f"teacher {reference}: {type(error).__name__}: {error}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise BadInput(f"teacher {reference}: no module {in_code[0]}; a file is given as path/to/file.py:function")
    return Path(spec.origin)


def whole_reference(reference: str | None) -> str | None:
    """Return a reference that names the same teacher in any folder."""
    if not reference:
        return reference
    where, *name = function_name(reference) or (reference,)
    if name and not where.endswith(".py"):  # a module
        return reference
    return ":".join([os.path.abspath(os.path.expanduser(where)), *name])


def teacher_hash(reference: str | Path | None, task: Task) -> str:
    """Return the SHA-256 that tells teachers apart: of the file, or of the Python file and the function's name."""
    in_code, source = function_name(reference), teacher_source(reference, task)
    return hashlib.sha256(source.read_bytes() + in_code[1].encode()).hexdigest() if in_code else file_hash(source)


def function_name(reference: str | Path | None) -> tuple[str, str] | None:
    """Return the module or file, and the name in it, of a teacher in code; None for a teacher file."""
    where, colon, name = str(reference).rpartition(":")
    return (where, name) if colon and name.isidentifier() and not Path(str(reference)).exists() else None


def load_function(where: str, name: str) -> "Callable[[np.ndarray], Any]":
    """Import a module, or execute a file, and return a function of it; raises `BadInput` if that fails."""
    function = getattr(load_module(where, "teacher")[0], name, None)
    if not callable(function):
        raise BadInput(f"teacher {where}:{name}: there is no function {name!r} in it")
    return function
