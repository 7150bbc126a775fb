"""Does a long collection, or a long run, need ever more memory or file handles? Real commands, their whole process tree.

    python benchmarks/soak.py --minutes 10

Each command runs for that long, is then told to stop, and must leave cleanly. Memory is what its processes own, without
mapped files; the medians of the second and the last fifth of the time stand beside each other. Prints JSON.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine
from crash import DATASET, PUSHER, TEACHER, descendants, start

ENDLESS = "--wandb_mode offline --video_every 0 --optimization_steps 100000000"
COMMANDS = {
    "collection": f"{PUSHER} --C_data --num_data 100000000",
    "BC": f"{PUSHER} --BC_phase {ENDLESS} --mode ImpaalaSmall --dataset 5k --alpha 0.6",
    "PPD": f"{PUSHER} --PPD {ENDLESS} --mode State --test_every 1000",
    "PPD_memory": f"{PUSHER} --PPD {ENDLESS} --mode State --memory gru --test_every 1000",
    "teacher": f"{TEACHER} --wandb_mode offline --total_timesteps 100000000 --eval_freq 2000 --checkpoint_freq 2000 "
    "--learning_starts 1000 --buffer_size 10000",  # which is soon full
}


def footprint(pids: list[int]) -> dict[str, float]:
    """Return memory in MiB, open files and threads of some processes together."""
    total = {"MiB": 0.0, "files": 0.0, "threads": 0.0}
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            total["files"] += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:  # it has just ended
            continue
        total["threads"] += int(fields["Threads"])
        total["MiB"] += sum(int(fields.get(name, "0 kB").split()[0]) / 1024 for name in ("RssAnon", "RssShmem"))
    return total


def soak(command: str, results: Path, minutes: float) -> dict[str, Any]:
    """Run a command for some minutes, from when it has first saved; returns what it needed early and late, and how it ended."""
    log, began = results / "log.txt", time.time()
    run = start(command.split(), results, log)
    while run.poll() is None and not any(
        path.stat().st_mtime > began
        for name in ("last.pt", "last.zip", "*.partial/meta.json")
        for path in results.rglob(name)
    ):
        time.sleep(0.2)
    samples, end = [], time.monotonic() + 60 * minutes
    while time.monotonic() < end and run.poll() is None:
        time.sleep(1)
        samples.append(footprint([run.pid, *descendants(run.pid)]))
    run.send_signal(signal.SIGTERM)
    status, fifth = run.wait(600), len(samples) // 5
    report: dict[str, Any] = {"command": command, "exit_status": status, "last_line": log.read_text().splitlines()[-1]}
    for name in samples[0]:
        early, late = (
            statistics.median(s[name] for s in part) for part in (samples[fifth : 2 * fifth], samples[-fifth:])
        )
        report[name] = {"early": round(early), "late": round(late), "most": round(max(s[name] for s in samples))}
    return report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of each command")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as place:  # not in /tmp, which may lie in memory
        results = Path(place).resolve()
        if start(DATASET.split(), results, results / "log.txt").wait():
            sys.exit((results / "log.txt").read_text())
        reports = {name: soak(COMMANDS[name], results, arguments.minutes) for name in arguments.commands}
    print(json.dumps({"machine": machine(), "minutes": arguments.minutes, "commands": reports}, indent=2))


if __name__ == "__main__":
    main()
