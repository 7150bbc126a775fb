"""The calls of Pusher.py that a study still needs, in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from Common.Command_line import as_flags
from Distillation.Reports.Labels import DEFAULT_TASK
from Distillation.Settings import DATASET_SIZES
from Distillation.Studies.File import StudyRun
from Distillation.Utils import LAST, CloningExperiment, DAggerExperiment, dataset_folder, task_of


@dataclass(frozen=True, eq=False)
class Call:
    """A call of Pusher.py."""

    name: str  # of the run or dataset that it makes
    arguments: list[str]
    needs: list["Call"]  # calls that come before it
    run: StudyRun | None = None  # None where it collects a dataset

    @property
    def command(self) -> list[str]:
        """Its arguments at this moment: a run that was begun is resumed."""
        run = self.run
        if run is None:
            return self.arguments
        begun = (run.folder / LAST).is_file() and not run.unlike(run.folder)
        resumes = begun and (run.parent is None or run.parent.finished(run.parent.folder))
        return [*self.arguments, "--resume" if resumes else "--overwrite"]

    @property
    def kind(self) -> tuple[str, str] | None:
        """Method and mode: calls of one kind take about as long."""
        return (self.run.job.flag, self.run.job.student.mode) if self.run else None


def missing_calls(runs: Sequence[StudyRun]) -> list[Call]:
    """Return the calls that are left to make, in a possible order: one run of each experiment, then a second one of each.

    They make the runs that are not released, the datasets that these learn from, and the runs that they continue and of
    which only the figures are there.
    """
    missing = {run for run in runs if not run.finished(run.released)}
    new = missing
    while new := {run.parent for run in new if run.parent and not run.parent.finished(run.parent.folder)} - missing:
        missing |= new
    todo = sorted((run for run in runs if run in missing), key=lambda run: run.job.student.run_index)
    datasets = _collections(todo)
    calls: dict[StudyRun, Call] = {}
    for run in todo:
        needs = [calls[run.parent]] if run.parent in calls else []
        if isinstance(run.job, CloningExperiment | DAggerExperiment) and _source(run.job) in datasets:
            needs.append(datasets[_source(run.job)])
        calls[run] = Call(run.name, run.command, needs, run)
    return [*datasets.values(), *calls.values()]


def _source(job: CloningExperiment | DAggerExperiment) -> Path:
    """Return what tells the source of a run's dataset from others: the task, what is seen of it, and the teacher's noise."""
    return dataset_folder(job, job.noise, max(DATASET_SIZES.values()))


def _collections(runs: Sequence[StudyRun]) -> dict[Path, Call]:
    """Return for each of these the collection of the largest dataset that runs learn from, unless it exists."""
    learning = [run.job for run in runs if isinstance(run.job, CloningExperiment | DAggerExperiment)]
    calls = {}
    for job in sorted(learning, key=lambda job: DATASET_SIZES[job.data.dataset]):
        samples = DATASET_SIZES[job.data.dataset]
        sizes = (size for size in DATASET_SIZES.values() if size >= samples)
        if not any(dataset_folder(job, job.noise, size).exists() for size in sizes):
            keys = {*vars(job.world), "device", "teacher", "results_dir", *vars(job.noise)} - {"num_workers"}
            flags = {key: value for key, value in job.flat().items() if key in keys and value != ()}
            flags["num_data"] = samples
            # Each task has a folder of its own, but the logs share one.
            name = dataset_folder(job, job.noise, samples).name
            name += "" if job.world.task == DEFAULT_TASK else f"_{task_of(job).name}"
            calls[_source(job)] = Call(name, ["--C_data", *as_flags(flags)], [])
    return calls
