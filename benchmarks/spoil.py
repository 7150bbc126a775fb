"""Bad input for `fuzz.py`: values, odd files, and what can be wrong with a file, inside and out."""

import io
import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

NUMBERS = ["0", "-1", "1", "2", "7", "2.5", "1e-3", "nan", "inf", "-inf", "1e999", "1e308", "0x10", "1_000", "१", "-0.0"]
NUMBERS += ["1000000", "4294967296", "99999999999999999999", "1-", "3-1", "1900-1900", "1900,,1", "0-99999999999", "1:2@3"]
WORDS = ["", " ", "State", "ImpaalaMid", "auto", "10k", "--PPD", "--", "-", "a\nb", "äöü", "名前", "None", "True", "[1, 2]"]
WORDS += ["\udcff", "\x1b[31m", "x" * 300, "../..", "~", "~nobody/x", "%s {}", "cuda", "cuda:99", "mps", "gray", "warp", "small"]
WORDS += ["os:system", "math:sin", "nothing.here:NAME", "tasks.py:act", "tasks.py:SHORT", "tasks.py:", ":act", "json:loads"]
PATHS = ["gone/file.pt", ".", "Results", "fifo", "loop", "dangling", "empty.pt", "empty.toml", "noise.zip", "/dev/null"]
PATHS += ["/dev/zero", "/dev/full", "/proc/self/mem", "a b/ä.toml", "tasks.py/x", "pickle.pt", "pickle.pkl", "bom.toml"]
VALUES = [None, -1, 0, 1e999, float("nan"), 2**70, "", "x", "ä", [], {}, [1, "a"], True, [[]], {"a": {}}, "/dev/null", -1e-9]


KNOWN = (".json", ".toml", ".csv", ".py", ".pt", ".npy", ".zip", ".pkl")


class Foreign:
    """Executes something where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def make_odd_files(work: Path) -> None:
    """Make what `PATHS` names: pipes, loops of links, files that are empty, noise or the wrong kind of pickle."""
    os.mkfifo(work / "fifo")
    (work / "loop").symlink_to("loop")
    (work / "dangling").symlink_to("gone")
    (work / "a b").mkdir()
    (work / "a b" / "ä.toml").write_text("light = 0.1\n")
    (work / "bom.toml").write_bytes(b"\xef\xbb\xbflight = 0.1\n\xff")
    for name in ("empty.pt", "empty.toml"):
        (work / name).touch()
    (work / "noise.zip").write_bytes(random.Random(0).randbytes(5000))
    torch.save({"format": "teacher", "version": 1, "weights": Foreign()}, work / "pickle.pt")
    (work / "pickle.pkl").write_bytes(pickle.dumps(Foreign()))


def spoil_file(path: Path, others: Sequence[Path], choose: random.Random) -> str:
    """Spoil a file, or one in a folder; returns what was done."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.suffix in KNOWN and file.is_file())
        return spoil_file(choose.choice(inside), others, choose) if inside else "nothing"
    kinds = ["cut", "flip", "noise", "empty", "swap", "gone", "folder", "loop", "fifo", *["inside"] * 8]
    kind = choose.choice(kinds)
    content = bytearray(path.read_bytes())
    if kind == "inside" and (changed := spoil_inside(path, bytes(content), choose)) is not None:
        content[:] = changed
    elif kind in ("cut", "inside"):
        del content[choose.randrange(len(content) + 1) :]
    elif kind == "flip":
        for _ in range(choose.randint(1, 8) if content else 0):
            content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    elif kind in ("noise", "empty"):
        content[:] = choose.randbytes(len(content)) if kind == "noise" else b""
    elif kind == "swap":
        content[:] = choose.choice(others).read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "gone":
        path.write_bytes(content)
    return f"{kind} {path.name}"


def spoil_inside(path: Path, content: bytes, choose: random.Random) -> bytes | None:
    """Return a file's content in its own format with something else somewhere in it; None for formats it does not know."""
    if path.suffix == ".json":
        return json.dumps(spoil_value(json.loads(content), choose)).encode()
    if path.suffix in (".toml", ".csv", ".py"):
        return spoil_text(content.decode(), choose).encode()
    buffer = io.BytesIO()
    if path.suffix in (".pt", ".pth"):
        tensors = torch.load(io.BytesIO(content), weights_only=True)
        torch.save(spoil_value(tensors, choose), buffer)
    elif path.suffix == ".npy":
        array = np.load(io.BytesIO(content))
        changes = [array[:-1], array[:0], array[..., None], array.astype(np.float64), array.astype("U8"), ~array.astype(bool)]
        changes += [array.ravel()[::-1], np.full_like(array, np.nan if array.dtype.kind == "f" else -1 % 256)]
        np.save(buffer, choose.choice(changes))
    elif path.suffix == ".zip":
        _spoil_zip(content, buffer, choose)
    elif path.suffix == ".pkl":
        found = pickle.loads(content)
        values = [None, [], {}, 1.5, {"obs_rms": 1}, Foreign(), np.zeros(3)]
        inner = [vars(found), *(vars(part) for part in vars(found).values() if hasattr(part, "mean"))]
        spoil_value(choose.choice(inner), choose)
        pickle.dump(choose.choice([*values, *[found] * len(values)]), buffer)
    else:
        return None
    return buffer.getvalue()


def _spoil_zip(content: bytes, buffer: io.BytesIO, choose: random.Random) -> None:
    """Write a zip in which one member is spoilt, or missing."""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = choose.choice([*old.namelist(), "data", "data", "policy.pth"])
        for name in old.namelist():
            member = old.read(name)
            if name == chosen:
                member = spoil_inside(Path("data.json" if name == "data" else name), member, choose) or member[:-1]
            if name != chosen or choose.random() < 0.8:
                new.writestr(name, member)


def spoil_value(value: Any, choose: random.Random) -> Any:
    """Replace, rename or remove something somewhere in a nested value, mostly in place."""
    if isinstance(value, torch.Tensor):
        changes = [value[..., :0], value[None], value.double(), value.flatten()[:1], value * float("nan"), value.bool()]
        return choose.choice([*changes, value.tolist() if value.numel() < 100 else 0, None])
    keys = [*value] if isinstance(value, dict) else [*range(len(value))] if isinstance(value, list) else []
    if not keys or choose.random() < 0.05:
        return choose.choice(VALUES)
    key = choose.choice(keys)
    if isinstance(value, dict) and choose.random() < 0.15:
        moved = value.pop(key)
        if choose.random() < 0.5:
            value[f"{key}x" if isinstance(key, str) else -1] = moved
    else:
        value[key] = spoil_value(value[key], choose)
    return value


def spoil_text(text: str, choose: random.Random) -> str:
    """Change a line of a text, or a word of it."""
    lines = text.splitlines()
    number = choose.choice([i for i, line in enumerate(lines) if line.strip()] or [0])
    kind = choose.choice(["gone", "twice", "garbage", "word", "word", "word", "word"])
    if kind == "word":
        words = lines[number].replace(",", " , ").replace("=", " = ").split()
        words[choose.randrange(len(words))] = choose.choice([*NUMBERS, *WORDS[:-8], "[]", "{}", '"x"', "true", "[[runs]]", "''"])
        lines[number] = " ".join(words)
    else:
        garbage = choose.choice(["\x00", "[[[", "raise KeyError", "import sys; sys.exit(3)", "print(", "= 3", "ä = 1", "x" * 500])
        lines[number : number + 1] = {"gone": [], "twice": [lines[number]] * 2, "garbage": [garbage]}[kind]
    return "\n".join(lines) + "\n"
