"""Datasets on disk: one `.npy` file for each field, checked when they are read."""

import io
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Common.Errors import BadFile
from Common.Files import read_json, sync, write_json
from Common.Settings import differences

Arrays = dict[str, np.ndarray]

DATASET_VERSION = 2


def field(key: str) -> str:
    """Return the field of samples that holds an observation: of a camera `frame_` and its name, of `Frame` just `frame`."""
    return {"Frame": "frame", "State": "state", "PartialState": "proprioception"}.get(key, f"frame_{key}")


def to_arrays(samples: Mapping[str, torch.Tensor]) -> Arrays:
    """Return the fields of samples as they are written."""
    return {name: values.cpu().numpy() for name, values in samples.items()}


def episode_ends(episode_start: np.ndarray) -> np.ndarray:
    """Return where each episode ends, one past its last sample, from bool [N]."""
    return np.append(np.flatnonzero(episode_start)[1:], len(episode_start))


@dataclass(frozen=True)
class Dataset:
    """Samples on disk, memory-mapped, in the order of their episodes.

    Attributes:
        folder: the folder of their files.
        meta: their origin: task, teacher, render settings.
        fields: the frames of each camera uint8 [N, rows, columns] or [N, 3, rows, columns], those of `Frame` as `frame` and
            of another as `frame_` and its name, `state` float32 [N, S], `proprioception` float32 [N, P], `action` float32
            [N, A] as taken, the teacher's pre-tanh `mean` and `log_std` float32 [N, A], `reward` float64 [N],
            `terminated` bool [N] where the episode ended in a terminal state, `episode_start` bool [N], `seed` int64 [N].
    """

    folder: Path
    meta: dict[str, Any]
    fields: Arrays

    def __len__(self) -> int:
        return len(self.fields["seed"])

    def prefix(self, samples: int) -> "Dataset":
        """Return the first episodes, as many as hold `samples` samples, as a smaller collection would have them."""
        ends = episode_ends(self.fields["episode_start"])
        end = ends[np.searchsorted(ends, samples)]
        return Dataset(self.folder, self.meta, {name: values[:end] for name, values in self.fields.items()})


DATASET_FIELDS = (  # beside frames
    *("state", "proprioception", "action", "mean", "log_std"),
    *("reward", "terminated", "episode_start", "seed"),
)


def read_samples(folder: Path, samples: int, names: Iterable[str]) -> Arrays:
    """Map the first `samples` samples of some fields into memory; raises `BadFile` if a file is missing or damaged."""
    try:
        # "c" because PyTorch asks for memory that could be written; nobody writes it.
        fields = {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in names}
    except (OSError, ValueError, EOFError) as error:
        raise BadFile(f"{folder}: damaged samples ({error})") from error
    for name, values in fields.items():
        if len(values) < samples:
            raise BadFile(f"{folder}: damaged samples ({name}.npy holds {len(values)} instead of {samples})")
    return {name: values[:samples] for name, values in fields.items()}


def spaces(fields: Arrays) -> dict[str, list[Any]]:
    """Return dtype and shape of one sample of every field."""
    return {name: [values.dtype.name, *values.shape[1:]] for name, values in fields.items()}


def crc32(values: np.ndarray, before: int = 0) -> int:
    """Return the checksum of an array's bytes, after others whose checksum was `before`."""
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, before)


def check_samples(folder: Path, fields: Arrays, checksums: Mapping[str, int]) -> None:
    """Raise `BadFile` if the checksum of a field is another; `folder` is for the message."""
    for name, values in fields.items():
        if crc32(values) != checksums[name]:
            raise BadFile(f"{folder}: damaged samples ({name}.npy was altered)")


def open_dataset(folder: Path) -> Dataset:
    """Open a dataset; its files are read through once, to compare them with their checksums.

    Raises:
        BadFile: it is not whole, or of another version.
    """
    path = folder / "meta.json"
    meta = read_json(path)
    if meta.get("format") != "dataset" or meta.get("version") != DATASET_VERSION:
        raise BadFile(f"{path}: not a dataset of version {DATASET_VERSION}")
    try:
        if not meta["complete"]:
            raise BadFile(f"{path}: a collection that was cut off")
        names = [*(name for name in meta["crc32"] if name.startswith("frame")), *DATASET_FIELDS]
        fields = read_samples(folder, meta["samples"], [name for name in names if name in meta["crc32"]])
        for name, space in spaces(fields).items():
            if meta["spaces"][name] != space:
                raise BadFile(f"{folder}: damaged samples ({name}.npy holds {space}, not {meta['spaces'][name]})")
        check_samples(folder, fields, meta["crc32"])
        # Older datasets, of tasks that only truncate, do not have it.
        fields.setdefault("terminated", np.zeros(meta["samples"], np.bool_))
        dataset = Dataset(folder, meta, {name: fields[name] for name in names})
    except (KeyError, TypeError) as error:
        raise BadFile(f"{path}: damaged") from error
    return dataset


def find_dataset(folder: Path, samples: int, like: Mapping[str, Any]) -> Path | None:
    """Return `folder` if it exists, else the smallest dataset beside it with at least `samples` samples, else None.

    The `meta.json` of a dataset beside it has to hold everything that is in `like`; None stands for what it lacks.
    """
    if folder.exists():
        return folder
    larger = []
    for path in folder.parent.glob("dataset_*/meta.json"):
        try:
            meta = read_json(path)
            if meta["complete"] and meta["samples"] >= samples and all(meta.get(key) == like[key] for key in like):
                larger.append((meta["samples"], path.parent))
        except (BadFile, KeyError, TypeError):
            continue  # it is damaged, but it is not the one that was asked for
    return min(larger)[1] if larger else None


def episode_ages(episode_start: np.ndarray) -> torch.Tensor:
    """Return how many steps every sample is from the first of its episode, int [N], from bool [N]."""
    index = np.arange(len(episode_start))
    return torch.from_numpy(index - np.maximum.accumulate(np.where(episode_start, index, 0)))


class SampleWriter:
    """Appends samples to one `.npy` file for each field; `meta.json` says how many of them are whole, and their checksums."""

    def __init__(self, folder: Path, meta: dict[str, Any]):
        self.folder = folder
        self.meta = meta | {"complete": False, "samples": 0, "episodes": 0, "crc32": {}}

    def resume(self) -> None:
        """Continue after the samples in the folder; raises `BadFile` if they are damaged, or have other settings."""
        path = self.folder / "meta.json"
        if not path.exists():
            return
        before = read_json(path)
        compared = self.meta.keys() - {"samples", "episodes", "crc32", "complete", "versions"}
        if unlike := differences(before, self.meta, sorted(compared)):
            raise BadFile(f"{self.folder}: begun with other settings: {unlike}")
        try:
            counts = int(before["samples"]), int(before["episodes"]), dict(before["crc32"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"{path}: damaged") from error
        self.cut(*counts)

    def cut(self, samples: int, episodes: int, checksums: dict[str, int]) -> None:
        """Forget everything after the first `samples`; raises `BadFile` if they are missing or damaged."""
        if samples:
            check_samples(self.folder, read_samples(self.folder, samples, tuple(checksums)), checksums)
        self.meta |= {"samples": samples, "episodes": episodes, "crc32": checksums}

    def append(self, samples: Arrays) -> None:
        """Add whole episodes."""
        count, checksums = self.meta["samples"], self.meta["crc32"]
        if not count:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.meta["crc32"] = {name: crc32(values, checksums.get(name, 0)) for name, values in samples.items()}
        for name, values in samples.items():
            path = self.folder / f"{name}.npy"
            with path.open("r+b" if count else "w+b") as file:
                # NumPy pads a header so that the first axis can grow in place. The header is written last: until then the
                # old content is whole.
                header = _header((count + len(values), *values.shape[1:]), values.dtype)
                file.seek(len(header) + values[:1].nbytes * count)
                file.write(np.ascontiguousarray(values).data)
                file.truncate()
                sync(file)
                file.seek(0)
                file.write(header)
                sync(file)
        self.meta["samples"] += len(samples["seed"])
        self.meta["episodes"] += int(samples["episode_start"].sum())
        write_json(self.folder / "meta.json", self.meta)

    def finish(self) -> None:
        """Mark the samples as complete, and describe them in `meta.json`."""
        fields = {path.stem: np.load(path, mmap_mode="r") for path in sorted(self.folder.glob("*.npy"))}
        starts = np.flatnonzero(fields["episode_start"]).tolist()
        self.meta |= {"complete": True, "spaces": spaces(fields), "episode_starts": starts}
        write_json(self.folder / "meta.json", self.meta)


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    buffer, descr = io.BytesIO(), np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
