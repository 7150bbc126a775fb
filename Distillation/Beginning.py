"""What a run begins with, or goes on from: everything is checked before anything is written."""

import dataclasses
import json
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from Algorithm.Checkpoint import check_fits, load_checkpoint, load_policy
from Algorithm.Test_model import table
from Algorithm.Utils import Dataset
from Common import Parallel
from Common.Errors import BadFile, BadInput
from Common.Files import file_hash, locked, write_json
from Common.Machine import resolve_precision
from Common.Settings import differences
from Distillation import Utils
from Distillation.Data import open_matching
from Distillation.Utils import LAST, NOISE, CommonConfig, ExperimentConfig, check_folder, describe, task_folder
from Enviroment.Tasks import Task
from Models.Base_Model import ActorCritic

SUMMARY = "summary.json"
PAGE = "page.html"  # written last


@dataclass(frozen=True)
class Beginning:
    """What a run needs.

    Attributes:
        config: its settings, those that DAgger inherits included.
        task: the task, with as many frames in a stack.
        description: what `config.json` says.
        folder: where it writes.
        checkpoint: what it goes on from, of a run that was cut off.
        dataset: what it learns from, of cloning and DAgger.
        student: where DAgger begins.
        priorities: the dataset's, as cloning left them to DAgger.
    """

    config: ExperimentConfig
    task: Task
    description: dict[str, Any]
    folder: Path
    checkpoint: dict[str, Any] | None
    dataset: Dataset | None
    student: ActorCritic | None
    priorities: dict[str, Any] | None


def prepare(
    config: ExperimentConfig, task: Task, teacher_path: Path, resume: bool, overwrite: bool, open_things: ExitStack
) -> Beginning | None:
    """Check what was asked for, and lay out the run's folder; returns None if the run has finished already.

    Args:
        config: settings.
        task: the task.
        teacher_path: the teacher's file.
        resume: go on with the run.
        overwrite: replace it.
        open_things: gets the folder's lock.

    Raises:
        BadInput, BadFile: before anything is written.
    """
    start = cloned = student = checkpoint = dataset = None
    first = Parallel.rank() == 0
    with Parallel.agreed():
        if isinstance(config, Utils.DAgger):
            config, start, cloned = inherit(config)
    task = dataclasses.replace(task, stack=config.stack)
    description = describe(config, teacher_path, task.rendering(config.render_quality)) | {"ranks": Parallel.count()}
    folder = task_folder(config) / config.folder / config.name
    finished = folder / SUMMARY
    if start is not None and cloned is not None:
        description["start_sha256"] = file_hash(start)
        spent = {"x_axis/optimization_steps": cloned["trainer"]["counters"][0], "time/elapsed_s": cloned["elapsed_s"]}
        description["before"] = spent
        parent = json.loads((start.parents[1] / "config.json").read_text())
        description["parent"] = {key: value for key, value in parent.items() if key not in CommonConfig.free}
    with Parallel.agreed():
        if first:
            resume = check_folder(folder, resume, overwrite)
        if first and resume:
            open_things.enter_context(locked(folder))
    resume = Parallel.exchange(resume)[0]
    with Parallel.agreed():
        if resume:
            checkpoint = load_checkpoint(folder / LAST)
            if first:
                check_settings(folder, checkpoint["settings"], description, config.free)
    scores = None
    with Parallel.agreed():
        done = checkpoint is not None and checkpoint["trainer"]["counters"][0] >= config.optimization_steps
        if done and finished.is_file() and (folder / PAGE).is_file():
            try:
                scores = table(json.loads(finished.read_text())["OD"])
            except (ValueError, KeyError, TypeError, AttributeError):
                raise BadFile(f"{finished}: damaged; --overwrite makes the run anew") from None
    if scores is not None:
        print(f"the run in {folder} is finished\n{scores}")
        return None
    for turn in (first, not first):  # the first may collect what the others then find
        with Parallel.agreed():
            if turn and isinstance(config, Utils.Cloning | Utils.DAgger):
                dataset = open_matching(config, task, teacher_path, description)
    with Parallel.agreed():
        if dataset is not None:
            description["data"] = {
                "samples": len(dataset),
                **{key: dataset.meta.get(key) for key in NOISE},
                "crc32": dataset.meta["crc32"]["mean"],
            }
            if checkpoint and checkpoint["settings"].get("data") != description["data"]:
                raise BadInput(f"--resume: the run in {folder} began with another dataset than there is now")
        if start is not None:
            student, of = load_policy(start, config.device)
            check_fits(start, student, task)
            unlike = differences(of, description, ("task", "mode", "teacher_sha256"))
            if unlike:
                raise BadFile(f"{start}: not of the run it lies in: {unlike}")
            student.train()
        if first and not resume:
            open_things.enter_context(locked(folder))
            if folder.exists() and not overwrite and (folder / LAST).is_file():
                raise BadInput(f"{folder}: another process was faster")
            shutil.rmtree(folder, ignore_errors=True)
        if first:
            finished.unlink(missing_ok=True)
            write_json(folder / "config.json", description)
    priorities = cloned and cloned["trainer"]["priorities"]
    return Beginning(config, task, description, folder, checkpoint, dataset, student, priorities)


def check_ranks(config: CommonConfig, teacher: str) -> None:
    """Raise `BadInput` unless all ranks are to do the same, and can share it evenly; `teacher` is its file's hash."""
    count = Parallel.count()
    if count == 1:
        return
    device = torch.device(config.device)
    alike = {"method": config.method, **dataclasses.asdict(config), "teacher's SHA-256": teacher, "device": device.type}
    if isinstance(config, ExperimentConfig):
        alike["precision"] = resolve_precision(config.precision, device)
    for number, other in enumerate(Parallel.exchange(alike)):
        unlike = differences(other, alike)
        if unlike:
            raise BadInput(f"ranks {number} and {Parallel.rank()} have other settings: {unlike}")
    if not isinstance(config, ExperimentConfig):
        raise BadInput(f"--{config.method} is for one process, which uses all cores: start it without torchrun")
    for name in ("num_envs", "minibatch_size"):
        value = getattr(config, name, count)
        if value % count and not (name == "num_envs" and isinstance(config, Utils.DAgger)):
            raise BadInput(f"--{name} {value} cannot be shared by {count} ranks: a multiple of {count} is needed")


def inherit(config: Utils.DAgger) -> tuple[Utils.DAgger, Path, dict[str, Any]]:
    """Take from a run of behavioural cloning what DAgger goes on with.

    Returns:
        its settings, where its student begins, and what the run's last checkpoint holds.

    Raises:
        BadInput: there is no such run.
        BadFile: its checkpoint is damaged.
    """
    if config.folder_Dagger is None:
        raise BadInput("--Dagger_phase needs --folder_Dagger, the folder of a run of --BC_phase")
    folder = Path(config.folder_Dagger).expanduser().resolve()
    try:
        parent = json.loads((folder / "config.json").read_text())
        if parent["method"] != Utils.Cloning.method:
            raise BadInput(f"--folder_Dagger {folder}: a run of --{parent['method']}; one of --BC_phase is needed")
        if parent["task"] != config.task:
            raise BadInput(f"--folder_Dagger {folder}: a run on {parent['task']}; --task {parent['task']} is for it")
        inherited = {name: parent[name] for name in config.inherited}
        inherited["grid"] = tuple(inherited["grid"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadInput):
            raise
        wrong = f"its config.json has no {error}" if isinstance(error, KeyError) else "no whole config.json"
        raise BadInput(f"--folder_Dagger {folder}: no run of --BC_phase ({wrong})") from None
    config = dataclasses.replace(config, folder_Dagger=str(folder), **inherited)
    try:
        config.check()
    except BadInput as error:
        raise BadInput(f"--folder_Dagger {folder}: its config.json is damaged ({error})") from None
    config.check_sight()
    checkpoints = folder / "checkpoints"
    for name in ("last", config.start):
        if not (checkpoints / f"{name}.pt").is_file():
            raise BadInput(f"--folder_Dagger {folder}: the run has no checkpoints/{name}.pt")
    checkpoint = load_checkpoint(checkpoints / "last.pt")
    unlike = differences(
        checkpoint["settings"], parent, checkpoint["settings"].keys() - Utils.Cloning.free - {"versions"}
    )
    if unlike or "priorities" not in checkpoint["trainer"]:
        raise BadFile(f"{checkpoints / 'last.pt'}: not of the run it lies in: {unlike or 'no priorities'}")
    return config, checkpoints / f"{config.start}.pt", checkpoint


def check_settings(folder: Path, before: dict[str, Any], now: dict[str, Any], free: frozenset[str]) -> None:
    """Compare the settings of a run's checkpoint with those it is to go on with; `free` ones may differ.

    Raises:
        BadInput: others differ.
    """
    unlike = differences(before, now, [key for key in now if key not in free | {"versions", "before"}])
    if unlike:
        raise BadInput(f"--resume: the run in {folder} has other settings: {unlike}")
    versions = differences(before.get("versions", {}), now["versions"])
    if versions:
        print(f"begun with other versions, so that numbers may differ: {versions}", file=sys.stderr)
