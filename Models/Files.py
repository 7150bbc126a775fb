"""Files on disk: written whole or not at all, and read without executing anything."""

import contextlib
import fcntl
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

VERSIONS = {"teacher": 1, "student": 1, "checkpoint": 3}  # of the kinds of files, counted up when one changes


class BadFile(ValueError):
    """A file is missing, damaged, or not what it should be; the message says which and what would be right."""


def brief(error: Exception) -> str:
    """Return what an error says, or is, in one line of at most 200 letters."""
    return " ".join((str(error) or repr(error)).split())[:200]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` when the context ends well; its folder is made.

    Until then, and after an error, a kill or a power failure, `path` holds what it held before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            sync(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # a system on which folders cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a folder, which need not exist, by a lock beside it.

    The lock ends with the process that holds it, however that ends.

    Raises:
        BadFile: another process holds it.
    """
    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BadFile(f"{folder}: another process is writing it; wait for it, or stop it first") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                break
        file.close()  # whoever held it has just removed it
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def sync(file: IO[Any]) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def save_tensors(path: Path | str, kind: str, content: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    import torch  # late: what writes no tensors does without it

    buffer = io.BytesIO()  # torch.save hides what is wrong with a disk behind errors of its own
    torch.save({"format": kind, "version": VERSIONS[kind], **content}, buffer)
    with replacing(Path(path)) as file:
        file.write(buffer.getbuffer())


def load_tensors(path: Path | str, *kinds: str) -> dict[str, Any]:
    """Read what `save_tensors` wrote, executing nothing; its kind stands in `format`.

    Raises:
        BadFile: the file is missing, damaged, or of another kind or version than is wanted.
    """
    import torch

    path, wanted = Path(path), " or ".join(kinds)
    if not path.is_file():
        raise BadFile(f"{path}: no such file (a {wanted} file is needed)")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare checksums
            spoilt = archive.testzip()
        if spoilt:
            raise ValueError(spoilt)
        content = torch.load(path, map_location="cpu", weights_only=True)
        kind, version = content["format"], content["version"]
        known = VERSIONS[kind]
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise BadFile(f"{path}: damaged, or not a {wanted} file") from error
    if kind not in kinds:
        raise BadFile(f"{path}: a {kind} file where a {wanted} file is needed")
    if version != known:
        raise BadFile(f"{path}: a {kind} file of version {version}; this code reads version {known}")
    return content
