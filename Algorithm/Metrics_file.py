"""`metrics.csv`, which grows by rows and by columns."""

import csv
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from Common.Errors import BadFile
from Common.Files import sync, write_text

AXES = ("x_axis/optimization_steps", "x_axis/samples_collected", "x_axis/samples_seen")


class MetricsFile:
    """A CSV file of metrics; the cells of metrics that a row does not have are empty.

    Args:
        keep: rows to keep of a file that exists; later ones were written after the checkpoint that is resumed.
        columns: the first columns.
        crc32: the checksum of the rows to keep, if it is known.

    Attributes:
        rows: how many rows there are; `crc32` is the checksum of their content.

    Raises:
        BadFile: the file does not hold the rows to keep.
    """

    def __init__(self, path: Path, keep: int = 0, columns: Sequence[str] = AXES, crc32: int | None = None):
        self._path, self._columns = path, list(columns)
        try:
            found = self.read() if keep else []
        except (OSError, ValueError, csv.Error) as error:
            raise BadFile(f"{path}: damaged ({error})") from error
        if len(found) < keep or any(None in row or None in row.values() for row in found[:keep]):
            raise BadFile(f"{path}: damaged: the checkpoint needs {keep} whole rows")
        if found:
            self._columns = list(found[0])
        self.rows = self.crc32 = 0
        for row in found[:keep]:
            self._count(row)
        if crc32 not in (None, self.crc32):
            raise BadFile(f"{path}: damaged, or of another run: its rows are not those of the checkpoint")
        self._rewrite(found[:keep])

    def _count(self, row: Mapping[str, Any]) -> None:
        self.rows += 1
        held = sorted((key, str(value)) for key, value in row.items() if value not in ("", None))
        self.crc32 = zlib.crc32(repr(held).encode(), self.crc32)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._path, text.getvalue())

    def read(self) -> list[dict[str, str]]:
        """Return the rows as they stand in the file."""
        with self._path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; new keys become new columns."""
        if new := [key for key in row if key not in self._columns]:
            self._columns += new
            self._rewrite(self.read())
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)
        self._count(row)

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        with self._path.open("a") as file:
            sync(file)
