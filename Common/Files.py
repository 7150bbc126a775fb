"""Files on disk: written whole or not at all, read without executing anything."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock

from Common.Errors import BadFile, BadInput

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "Results"
VERSIONS = {"teacher": 1, "student": 1, "checkpoint": 3}  # of the kinds of tensor files


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` when the context ends without an error; its folder is made.

    Until then, and after an error, a kill or a power failure, `path` keeps its content.
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


def check_output(path: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Raise `BadInput`, before time is spent, unless a file can be written at `path`; its folders need not exist.

    It may be none of the `inputs`, of which those that are not given are None.
    """
    place = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if os.path.isdir(path):
        raise BadInput(f"{path} is a folder; a file's name is needed")
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        raise BadInput(f"{path} cannot be written: {place} is no folder that can be written")
    if any(each is not None and os.path.realpath(each) == os.path.realpath(path) for each in inputs):
        raise BadInput(f"{path} would be read and replaced; give another name")


def sync(file: IO[Any]) -> None:
    """Wait until a file's content is on the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a folder, which need not exist, by a lock file beside it.

    The lock ends with the process that holds it. A file system without locks is warned of, and then nothing is locked.
    Raises `BadFile` if another process holds the lock.
    """
    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=0, fallback_to_soft=False)  # a soft one would outlive a lost machine
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BadFile(f"{folder}: another process is writing it; wait for it, or stop it first") from None
    except OSError as error:
        if error.filename is not None:  # the lock file cannot be made
            raise
        missing = f"warning: no lock for {folder} ({error.strerror})"
        print(f"{missing}; make sure that no other process writes it", file=sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):  # Windows keeps a file that is open, which does no harm
            path.unlink(missing_ok=True)  # a process that has opened it meanwhile notices, and makes a new one
        lock.release()


def begun(folder: Path) -> bool:
    """Return whether there is a run that `--resume` can continue; where there is nothing yet, print that it begins.

    Raises `BadInput` if the folder holds something else.
    """
    if (folder / "config.json").is_file():
        return True
    if folder.exists() and (not folder.is_dir() or any(path.suffix != ".tmp" for path in folder.iterdir())):
        raise BadInput(f"--resume: nothing to resume in {folder}, and it holds something else than a run")
    print(f"--resume: nothing to resume in {folder}, so the run begins", flush=True)
    return False


def remove_run(folder: Path) -> None:
    """Remove a run's folder, if there is one. Its `config.json` goes last: by it `begun` knows what a kill in here left over."""
    for path in folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "config.json":
            with contextlib.suppress(OSError):
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; its folder is made."""
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # names of files may hold what is no text


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON, whole or not at all; the folder is made."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def plain(content: Any) -> Any:
    """Return plain values as they are read back from JSON, such as lists for tuples."""
    return json.loads(json.dumps(content))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `BadFile` if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: missing or damaged") from error
    if not isinstance(content, dict):
        raise BadFile(f"{path}: damaged")
    return content


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_tensors(path: Path | str, kind: str, content: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    import torch  # late: commands that write no tensors start without it

    buffer = io.BytesIO()  # torch.save hides a full disk behind errors of its own
    torch.save({"format": kind, "version": VERSIONS[kind], **content}, buffer)
    with replacing(Path(path)) as file:
        file.write(buffer.getbuffer())


def load_tensors(path: Path | str, *kinds: str) -> dict[str, Any]:
    """Read a file of `save_tensors` without executing anything; the entry `format` is its kind.

    Raises `BadFile` if the file is missing, damaged, or of another kind or version than is needed.
    """
    import torch

    path, wanted = Path(path), " or ".join(kinds)
    if not path.is_file():
        near = f"; there is {path}.pt" if Path(f"{path}.pt").is_file() else ""
        raise BadFile(f"{path}: no such file (a {wanted} file is needed{near})")
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
