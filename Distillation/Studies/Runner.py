"""The runner of a study: it makes calls on an engine, several at once, and releases the runs."""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from Common.Files import read_json, write_json
from Distillation.Studies.Engines import POLL_S, Engine
from Distillation.Studies.File import PLACES, StudyRun
from Distillation.Studies.Jobs import Call


class Runner:
    """Makes the calls of a study on an engine, which writes their output into `logs`.

    The seconds that released runs took, `finished`, are a first estimate of the time that is left.
    """

    def __init__(self, calls: Sequence[Call], engine: Engine, logs: Path, finished: Sequence[StudyRun]):
        self._waiting, self._running, self._done = list(calls), dict[Call, Any](), set[Call]()  # processes that run
        self._engine, self._logs = engine, logs
        self._spent: dict[Any, list[float]] = {}  # seconds of finished runs, [method, mode]
        for run in finished:
            kind = run.job.flag, run.job.student.mode
            self._spent.setdefault(kind, []).append(read_json(run.released / "summary.json")["training_seconds"])

    def run(self) -> bool:
        """Make the calls and print how each ended; returns whether all succeeded."""
        print(self._left(), flush=True)
        failed = False
        try:
            while self._waiting or self._running:
                ready = [call for call in self._waiting if self._done.issuperset(call.needs)]
                for call in ready[: self._engine.slots - len(self._running)]:
                    self._waiting.remove(call)
                    self._running[call] = self._engine.start(call)
                if not self._running:
                    break
                time.sleep(POLL_S)
                for call, handle in list(self._running.items()):
                    status = handle.poll()
                    if status is not None:
                        failed |= status != 0
                        self._ended(call, status)
        finally:
            for handle in self._running.values():
                handle.terminate()
            for handle in self._running.values():
                handle.wait()
        for call in self._waiting:
            print(f"{call.name} was not started: a call that it needs has failed")
        return not failed

    def _ended(self, call: Call, status: int) -> None:
        """Print how a call ended, and release its run."""
        handle = self._running.pop(call)
        if status:
            log = self._logs / f"{call.name}.log"
            last = (
                log.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2] if log.is_file() else ""
            )
            print(f"{call.name} failed ({status}): {last} ({log})", flush=True)
            return
        self._done.add(call)
        seconds, scores = handle.seconds, ""
        if call.run is not None:
            summary = release(call.run)
            self._spent.setdefault(call.kind, []).append(max(seconds, summary["training_seconds"]))
            student = summary["OD"]["student"]
            shown = {"normalized": "normalized_return", "success": "success"}
            scores = "".join(f"{name} {student[key]:.3f}  " for name, key in shown.items() if key in student)
        print(f"{call.name:<30}{_clock(seconds):>8}  {scores}{self._left()}", flush=True)

    def _left(self) -> str:
        """Return how many calls are left, and about how long they take."""
        calls = [*self._waiting, *self._running]
        every = [seconds for each in self._spent.values() for seconds in each]
        if not calls or not every:
            return f"{len(calls)} left"
        expected = {call: float(np.mean(self._spent.get(call.kind) or every)) for call in calls}
        gone = {call: handle.seconds for call, handle in self._running.items()}
        seconds = sum(max(expected[call] - gone.get(call, 0), 0) for call in calls) / self._engine.at_once
        return f"{len(calls)} left, about {_clock(seconds)}"


def _clock(seconds: float) -> str:
    for unit, length in (("s", 1), ("min", 60)):
        if seconds < 100 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def release(run: StudyRun) -> dict[str, Any]:
    """Copy the part of a finished run that is worth committing, unless that was done; returns its summary.

    The summary is written last and so says that the rest is there. `config.json` is copied without the places of files,
    `metrics.csv` without rows that hold no test.
    """
    if not run.finished(run.released):
        (run.released / "summary.json").unlink(missing_ok=True)
        config = read_json(run.folder / "config.json")
        write_json(run.released / "config.json", {key: config[key] for key in config if key not in PLACES})
        with (run.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["test/OD/return"]]
        with (run.released / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        write_json(run.released / "summary.json", read_json(run.folder / "summary.json"))
    return read_json(run.released / "summary.json")
