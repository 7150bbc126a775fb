"""Validates a run's inputs and creates or resumes its folder; everything is checked before anything is written."""

import os
import shutil
import sys
from collections.abc import Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from Algorithm.Checkpoint import Checkpoint
from Algorithm.Dataset import Dataset
from Algorithm.Policies import check_fits, load_policy
from Algorithm.Test_model import table
from Common import Parallel
from Common.Errors import BadFile, BadInput, BadSetting
from Common.Files import begun, file_hash, locked, read_json, remove_run, write_json
from Common.Machine import resolve_precision
from Common.Settings import differences
from Distillation.Datasets import VIEW_RANGES, describe, find_or_collect, open_matching, with_backend
from Distillation.Fine_tuning import check_source, find_source
from Distillation.Reports.Labels import complete, label, on_any
from Distillation.Utils import (
    AGGREGATED,
    LAST,
    CloningExperiment,
    DAggerExperiment,
    Experiment,
    Job,
    OnPolicyExperiment,
    run_folder,
    task_of,
)
from Enviroment.GL import choose_gl_backend
from Enviroment.Tasks import Task
from Enviroment.Utils import resumes_exactly
from Models.Base_Model import ActorCritic

SUMMARY = "summary.json"
PAGE = "page.html"  # written last
FURTHER = "--PPD --start_from {} trains its student further"
# Entries of config.json that may differ on resumption.
NOT_COMPARED = ("versions", "before", "parent", "label", "exact_resume")


@dataclass(frozen=True)
class Plan:
    """The first rank's decisions, in plain values."""

    job: Experiment  # with the settings that DAgger inherits
    description: dict[str, Any]  # the content of `config.json`
    folder: Path  # of the run
    resumes: bool  # whether the run continues from a checkpoint
    start: Path | None  # the file of the student that the run begins with, unless that is new
    data: Path | None  # the folder of the dataset, of cloning and DAgger
    scores: str | None  # the table of a run that has finished already


@dataclass(frozen=True)
class Inputs:
    """The content of the files that a run begins or continues with."""

    checkpoint: Checkpoint | None = None  # of a run that was cut off
    dataset: Dataset | None = None  # of cloning and DAgger
    student: ActorCritic | None = None  # the run begins with it
    priorities: dict[str, Any] | None = None  # of the dataset, as cloning left them to DAgger


def prepare(
    job: Experiment, family: str, resume: bool, overwrite: bool, open_things: ExitStack
) -> tuple[Plan, Inputs] | None:
    """Check a run's settings and files, and create and lock its folder; returns None if the run has finished already.

    The first rank decides and writes, the others only load. `family` is that of the teacher's distribution. `open_things`
    gets the lock.

    Raises:
        BadInput, BadFile: before anything is written.
    """
    first = Parallel.rank() == 0
    with Parallel.agreed():
        own = decide(job, resume, overwrite, open_things) if first else None
    plan: Plan = Parallel.exchange(own)[0]
    plan = replace(plan, job=plan.job.replace(device=job.place.device))  # each rank has its own
    if plan.scores is not None:
        shutil.rmtree(plan.folder / AGGREGATED, ignore_errors=True)  # a kill after the page was written leaves it
        print(f"the run in {plan.folder} is finished; {FURTHER.format(plan.folder)}\n{plan.scores}")
        return None
    with Parallel.agreed():
        if plan.job.student.mode != "State":
            choose_gl_backend()  # of DAgger's run only now its mode is known
        inputs = load(plan, family)
        if first:
            begin(plan, overwrite, open_things)
    return plan, inputs


def decide(job: Experiment, resume: bool, overwrite: bool, open_things: ExitStack) -> Plan:
    """Check the settings, the folder and the checkpoint, and find or collect the dataset; locks a run that is resumed."""
    start = None
    origin: dict[str, Any] = {}
    if isinstance(job, DAggerExperiment):
        job, start, origin = inherit(job)
    elif isinstance(job, OnPolicyExperiment) and job.start.start_from is not None:
        start, origin = start_of(job, job.start.start_from, resume)
    task = task_of(job)
    job = with_backend(job, task)
    description = describe(job, task) | {"ranks": Parallel.count()} | origin
    description["render"] |= {"stack": job.student.stack}
    description["label"] = label(description)
    description["exact_resume"] = resumes_exactly(task)
    folder = run_folder(job)
    resumes = check_folder(folder, resume, overwrite)
    scores = data = None
    if resumes:
        open_things.enter_context(locked(folder))
        checkpoint = Checkpoint.load(folder / LAST)
        check_settings(folder, checkpoint, description, job.free())
        scores = finished_scores(folder, checkpoint, job.method.optimization_steps, task)
    if scores is None and isinstance(job, CloningExperiment | DAggerExperiment):
        data = find_or_collect(job, task)
    return Plan(job, description, folder, resumes, start, data, scores)


def start_of(job: Experiment, reference: str, resume: bool) -> tuple[Path | None, dict[str, Any]]:
    """Return the file of the student that a run begins with, and entries of `config.json` on it.

    A run that is resumed has its student in its checkpoint, and its source may be gone. Raises `BadInput` and `BadFile` as
    `find_source`, and for a source that the run would replace.
    """
    folder = run_folder(job)
    if resume and (folder / LAST).is_file():
        settings = Checkpoint.load(folder / LAST).settings
        return None, {key: settings[key] for key in ("start_sha256", "parent") if key in settings}
    start, origin = find_source(reference)
    if Path(os.path.realpath(folder)) in Path(os.path.realpath(start)).parents:
        raise BadInput(f"--start_from {reference}: it lies in the run's own folder; --run_name names another")
    return start, origin


def load(plan: Plan, family: str) -> Inputs:
    """Load the files that a run begins or continues with, and compare them with its settings and its teacher's `family`."""
    dataset = student = priorities = None
    job, description = plan.job, plan.description
    checkpoint = Checkpoint.load(plan.folder / LAST) if plan.resumes else None
    if plan.data is not None and isinstance(job, CloningExperiment | DAggerExperiment):
        dataset = open_matching(job, plan.data, description)
        description["data"] = {
            "samples": len(dataset),
            **{key: dataset.meta.get(key) for key in vars(job.noise)},
            "crc32": dataset.meta["crc32"]["mean"],
        }
        if checkpoint and checkpoint.settings.get("data") != description["data"]:
            raise BadInput(f"--resume: the run in {plan.folder} began with another dataset than there is now")
    if plan.start is not None:
        student, card = load_policy(plan.start, job.place.device)
        if isinstance(job, DAggerExperiment):
            unlike = differences(card, description, ("task", "mode", "teacher_sha256", "render", VIEW_RANGES))
            if unlike:
                raise BadFile(f"{plan.start}: not of the run it lies in: {unlike}")
            priorities = Checkpoint.load(plan.start.with_name(LAST.name)).trainer["priorities"]
        else:
            check_source(plan.start, student, card, description, family)
        check_fits(plan.start, student, task_of(job))
    return Inputs(checkpoint, dataset, student, priorities)


def begin(plan: Plan, overwrite: bool, open_things: ExitStack) -> None:
    """Create the run's folder and lock it, unless it is resumed, and write `config.json`."""
    folder = plan.folder
    if not plan.resumes:
        open_things.enter_context(locked(folder))
        if not overwrite and (folder / LAST).is_file():
            raise BadInput(f"{folder}: another process was faster")
        remove_run(folder)
    (folder / SUMMARY).unlink(missing_ok=True)
    write_json(folder / "config.json", plan.description)


def check_folder(folder: Path, resume: bool, overwrite: bool) -> bool:
    """Return whether there is a checkpoint to resume from; `BadInput` where a folder's content would be lost."""
    if resume and overwrite:
        raise BadInput("--resume and --overwrite: one continues the run, the other replaces it; give one")
    if folder.exists() and not (resume or overwrite):
        kept = "--resume continues it, --run_name names another, --overwrite replaces it"
        raise BadInput(f"{folder} holds a run: {kept}{if_finished(folder)}")
    return resume and begun(folder) and (folder / LAST).is_file()


def if_finished(folder: Path) -> str:
    """Return the end of a message on a run: of a finished one, how its student is trained further."""
    return f"; it is finished, and {FURTHER.format(folder)}" if (folder / SUMMARY).is_file() else ""


def finished_scores(folder: Path, checkpoint: Checkpoint, optimization_steps: int, task: Task) -> str | None:
    """Return the table of closing figures if a run has finished, page included."""
    summary = folder / SUMMARY
    if checkpoint.updates < optimization_steps or not summary.is_file() or not (folder / PAGE).is_file():
        return None
    try:
        return table(read_json(summary)["OD"], task)
    except (BadFile, KeyError, TypeError, AttributeError):
        raise BadFile(f"{summary}: damaged; --overwrite makes the run anew") from None


def as_begun(job: Experiment) -> Experiment:
    """Return the settings of a run that is resumed, with what it began with in place of `auto`, whatever machine this is.

    A run that began on a GPU needs one, but any will do.
    """
    own = inherit(job)[0] if isinstance(job, DAggerExperiment) else job
    for backend in ("workers", "warp") if own.world.backend == "auto" else (own.world.backend,):
        last = run_folder(own.replace(backend=backend)) / LAST
        if last.is_file():
            before = Checkpoint.load(last).settings
            begun = {name: before.get(name) for name in ("precision", "backend")}
            begun["device"] = "cpu" if before.get("device") == "cpu" else None
            given = job.flat()
            resumed = job.replace(**{name: value for name, value in begun.items() if value and given[name] == "auto"})
            try:
                resumed.check()
            except BadSetting as error:
                raise BadFile(f"{last}: damaged: its {error}") from None
            return resumed
    return job


def check_settings(folder: Path, checkpoint: Checkpoint, now: dict[str, Any], free: set[str]) -> None:
    """Raise `BadInput` where the settings of a run's checkpoint and of its resumption differ, other than `free` ones."""
    before = complete(checkpoint.settings)
    compared = [key for key in now if key not in free and key not in NOT_COMPARED]
    unlike = differences(on_any(before), on_any(now), compared)
    if unlike:
        other = f"--resume: the run in {folder} has other settings: {unlike}; --run_name names another"
        raise BadInput(other + if_finished(folder))
    versions = differences(before.get("versions", {}), now["versions"])
    if versions:
        print(f"the run began with other versions, and numbers may differ: {versions}", file=sys.stderr)


def check_ranks(job: Job, teacher: str) -> None:
    """Raise `BadInput` unless all ranks have the same job and can share it evenly; `teacher` is its file's hash."""
    count, device = Parallel.count(), torch.device(job.place.device)
    if count == 1:
        return
    alike = {"method": job.flag, **job.flat(), "teacher's SHA-256": teacher, "device": device.type}
    if isinstance(job, Experiment):
        alike["precision"] = resolve_precision(job.student.precision, device)
    for number, other in enumerate(Parallel.exchange(alike)):
        unlike = differences(other, alike)
        if unlike:
            raise BadInput(f"ranks {number} and {Parallel.rank()} have other settings: {unlike}")
    if not isinstance(job, Experiment):
        raise BadInput(f"--{job.flag} is for one process, which uses all cores: start it without torchrun")
    for name in ("num_envs", "minibatch_size"):
        value = job.flat().get(name, count)
        if value % count and not (name == "num_envs" and isinstance(job, DAggerExperiment)):
            raise BadInput(f"--{name} {value} cannot be shared by {count} ranks: a multiple of {count} is needed")


def inherit(job: DAggerExperiment) -> tuple[DAggerExperiment, Path, dict[str, Any]]:
    """Return the settings with those that DAgger inherits, the file of its first student, and entries of `config.json`.

    Raises:
        BadInput, BadFile: there is no such run of behavioural cloning, or it is damaged.
    """
    if job.data.folder_Dagger is None:
        raise BadInput("--Dagger_phase needs --folder_Dagger, the folder of a run of --BC_phase")
    folder = Path(os.path.realpath(os.path.expanduser(job.data.folder_Dagger)))  # resolve() raises for a loop of links
    inherited = job.settings().keys() - job.flags().keys()
    parent = _parent(folder, job, inherited)
    job = job.replace(folder_Dagger=str(folder), **{name: parent[name] for name in inherited})
    try:
        job.check()
    except BadInput as error:
        raise BadInput(f"--folder_Dagger {folder}: its config.json is damaged ({error})") from None
    job.check_student()
    start = (folder / LAST).with_stem(job.data.start)
    for file in (folder / LAST, start):
        if not file.is_file():
            raise BadInput(f"--folder_Dagger {folder}: the run has no checkpoints/{file.name}")
    last = Checkpoint.load(folder / LAST)
    compared = last.settings.keys() - CloningExperiment.free() - set(NOT_COMPARED)
    unlike = differences(on_any(last.settings), on_any(parent), sorted(compared))
    if unlike or "priorities" not in last.trainer:
        raise BadFile(f"{folder / LAST}: not of the run it lies in: {unlike or 'no priorities'}")
    origin = {
        "start_sha256": file_hash(start),
        "before": {"x_axis/optimization_steps": last.updates, "time/elapsed_s": last.elapsed_s},
        "parent": {key: value for key, value in parent.items() if key not in CloningExperiment.free() | {"label"}},
    }
    return job, start, origin


def parents_teacher(job: DAggerExperiment) -> str | None:
    """Return the teacher of the run of cloning that DAgger continues, None for the task's own or where there is no such run."""
    config = Path(os.path.expanduser(job.data.folder_Dagger or "")) / "config.json"
    try:
        parent = read_json(config)
    except BadFile:
        return None  # `inherit` says what is wrong
    return parent.get("teacher") if parent.get("task") == job.world.task else None


def _parent(folder: Path, job: DAggerExperiment, inherited: Set[str]) -> dict[str, Any]:
    """Return the `config.json` of the run of cloning that DAgger continues."""
    whose = f"--folder_Dagger {folder}"
    try:
        parent = complete(read_json(folder / "config.json"))
    except BadFile:
        raise BadInput(f"{whose}: no run of --BC_phase (no whole config.json)") from None
    missing = {"method", "task", *inherited} - parent.keys()
    if missing:
        raise BadInput(f"{whose}: no run of --BC_phase (its config.json has no {min(missing)!r})")
    if parent["method"] != CloningExperiment.flag:
        raise BadInput(f"{whose}: a run of --{parent['method']}; one of --BC_phase is needed")
    if parent["task"] != job.world.task:
        raise BadInput(f"{whose}: a run on {parent['task']}; --task {parent['task']} is for it")
    return parent
