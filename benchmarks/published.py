"""Print our students of DeepMind Control from pixels beside what others publish, as a table: of the released runs of a study,
`Results/Studies/<study>`, of their teachers' `training.csv`, and of `published.toml`."""

import csv
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Common.Command_line import OneLineParser, one_line_errors
from Common.Errors import BadInput
from Common.Files import RESULTS
from Distillation.Reports.Runs import Run, read_run
from Enviroment.Tasks import find_task

PUBLISHED = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class Cost:
    """What training took: frames of the simulator, all steps of a repeated action counted, and minutes."""

    frames: int
    minutes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.frames + other.frames, self.minutes + other.minutes)

    def __str__(self) -> str:
        return f"{self.frames:,} | {self.minutes:.0f}"


def student_cost(run: Run, repeat: int) -> Cost:
    """Return what a run and those that it continues took, its first dataset's frames included."""
    return Cost(int(run.last("x_axis/samples_collected")) * repeat, run.last("time/elapsed_s") / 60)


def teacher_cost(task: str, repeat: int) -> Cost:
    """Return what a task's teacher took, by the last row of its `training.csv`."""
    with (RESULTS / task / "Teacher" / "training.csv").open() as file:
        *_, last = csv.DictReader(file)
    return Cost(int(last["timesteps"]) * repeat, float(last["minutes"]))


def rows(runs: dict[str, list[Run]], published: dict[str, Any]) -> Iterator[list[str]]:
    """Yield a row for each task: of its runs the mean."""
    for task, own in runs.items():
        repeat = find_task(task).keywords.get("repeat", 1)
        student, teacher = (fmean(run.score("return", who) for run in own) for who in ("student", "teacher"))
        costs = [student_cost(run, repeat) for run in own]
        mean = Cost(round(fmean(cost.frames for cost in costs)), fmean(cost.minutes for cost in costs))
        others = [f"{entry['returns'][task]}" if task in entry["returns"] else "—" for entry in published.values()]
        share = f"{student / teacher:.3f}"
        before = teacher_cost(task, repeat)
        yield [task, f"{student:.0f}", share, f"{teacher:.0f}", f"{mean}", f"{before}", f"{mean + before}", *others]


def table(folder: Path) -> str:
    """Return the table of the DAgger runs from pixels alone below a study's folder, in Markdown, and what others' columns are.

    Raises `BadInput` if there is no such folder, or none in it that is finished.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; one as Results/Studies/students is needed")
    runs: dict[str, list[Run]] = {}
    for run in filter(None, map(read_run, sorted(folder.glob("*/run*")))):
        pixels_alone = run.config["method"] == "Dagger_phase" and run.config.get("proprioception") == "none"
        if pixels_alone and run.closing is not None:
            runs.setdefault(run.task, []).append(run)
    if not runs:
        raise BadInput(
            f"{folder}: it has no finished runs of DAgger from pixels alone; a folder as Results/Studies/students is needed"
        )
    published = tomllib.loads(PUBLISHED.read_text())
    costs = [f"{unit} of {who}" for who in ("student", "teacher", "both") for unit in ("frames", "minutes")]
    lines = [["task", "student's return", "its share of the teacher's", "teacher's return", *costs, *published]]
    lines += [["---"] * len(lines[0]), *rows(runs, published)]
    text = [f"| {' | '.join(line)} |" for line in lines]
    notes = [f"{name}: {entry['source']}; {entry['setting']}; {entry['date']}." for name, entry in published.items()]
    return "\n".join([*text, "", *notes])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS / "Studies" / "students", help="a study's runs")
    arguments = parser.parse_args(argv)
    with one_line_errors(parser.prog):
        print(table(arguments.folder))


if __name__ == "__main__":
    main()
