"""The datasets of the command line: finds and collects them, and compares one with a run."""

import time
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from Algorithm.CollectDataset import collect_dataset
from Algorithm.Config import TeacherNoiseConfig
from Algorithm.Dataset import Dataset, find_dataset, open_dataset
from Algorithm.Policies import open_teacher
from Algorithm.Teacher_source import teacher_hash
from Common.Errors import BadInput, advice
from Common.Files import ROOT, locked, plain
from Common.Machine import versions
from Common.Settings import differences
from Distillation.Settings import DATASET_SIZES
from Distillation.Utils import CloningExperiment, Collection, DAggerExperiment, Job, dataset_folder
from Enviroment.Tasks import Task
from Enviroment.Utils import find_backend, make_world
from Models.Base_Model import GaussianPolicy

AnyJob = TypeVar("AnyJob", bound=Job)
NOISE = vars(TeacherNoiseConfig())  # the default
VIEW_RANGES = "view_ranges"  # the entry of files that has what varies by how much; they have none where nothing does
BACKEND = "backend"  # the entry of datasets that Warp simulated; the others have none
EPISODE_STEPS = "episode_steps"  # likewise, of those whose episodes were cut off
VARYING = (VIEW_RANGES, BACKEND, EPISODE_STEPS)
WARP = ("mujoco-warp", "warp-lang")  # packages
HOW_TO_REPAIR = "--C_data continues a collection that was cut off, and with --overwrite begins it anew"


def describe(job: Job, task: Task) -> dict[str, Any]:
    """Return the content of `config.json`: settings, rendering, views, teacher, versions of packages and of this code."""
    return plain(
        {
            "method": job.flag,
            **job.flat(),
            "teacher_sha256": teacher_hash(job.place.teacher, task),
            "render": task.rendering(job.world.render_quality),
            **({VIEW_RANGES: task.views.table()} if task.views.table() else {}),
            "versions": versions(ROOT) | {name: version(name) for name in WARP if job.world.backend == "warp"},
        }
    )


def with_backend(job: AnyJob, task: Task) -> AnyJob:
    """Return a job with its backend, which `auto` leaves open."""
    world = job.world
    return job.replace(backend=find_backend(world.backend, task, job.place.device, world.render_quality))


def collect(job: Collection, teacher: GaussianPolicy, overwrite: bool) -> None:
    """Collect a dataset, and also write it for Minari if that is wanted.

    Raises:
        BadInput: it exists already, and no export is wanted, or it has other settings.
        BadFile: another process is collecting it, or the existing one is damaged.
    """
    task = job.training_task()
    job = with_backend(job, task)
    wanted = job.collection
    folder = dataset_folder(job, job.noise, wanted.num_data)
    description = describe(job, task)
    if folder.exists() and not overwrite:
        if wanted.export_minari is None:
            raise BadInput(f"{folder} exists already; --overwrite collects it anew")
        with advice(HOW_TO_REPAIR):
            check_same(
                open_dataset(folder), description, ("task", "teacher_sha256", "render", *VARYING, *vars(job.noise))
            )
    if wanted.export_minari is not None:
        from Algorithm.Minari_export import check_minari, export_minari

        check_minari(Path(wanted.export_minari))
    if not folder.exists() or overwrite:
        _collect_anew(job, folder, task, teacher, description, overwrite)
    if wanted.export_minari is not None:
        export_minari(open_dataset(folder), task, Path(wanted.export_minari))
        print(f"minari   {wanted.export_minari}")


def _collect_anew(
    job: Collection, folder: Path, task: Task, teacher: GaussianPolicy, description: dict[str, Any], overwrite: bool
) -> None:
    wanted, world = job.collection, job.world
    keys: tuple[str, ...] = ("task", "teacher_sha256", "render", VIEW_RANGES, "versions")
    keys += (BACKEND,) if world.backend == "warp" else ()
    keys += (EPISODE_STEPS,) if world.episode_steps else ()
    places = world.num_workers, True, world.render_quality, world.backend, job.place.device
    meta = {key: description[key] for key in keys if key in description}
    folder.parent.mkdir(parents=True, exist_ok=True)  # or fail before time is spent
    started = time.monotonic()
    with (
        locked(folder),
        closing(make_world(task, wanted.num_envs, *places)) as envs,
        advice(HOW_TO_REPAIR),
    ):
        collect_dataset(folder, envs, teacher, wanted.num_data, job.noise, meta, job.place.quiet, overwrite)
    seconds, dataset = time.monotonic() - started, open_dataset(folder)
    returns = dataset.fields["reward"].sum() / dataset.fields["episode_start"].sum()
    print(f"{len(dataset)} samples, mean return {returns:.2f}, {seconds:.0f} s\ndataset  {folder}")


def find_or_collect(job: CloningExperiment | DAggerExperiment, task: Task) -> Path:
    """Return the folder of a run's dataset, or of a larger one; collects it where `collect` is set, or raises `BadInput`."""
    samples = DATASET_SIZES[job.data.dataset]
    wanted = dataset_folder(job, job.noise, samples)
    like: dict[str, Any] = {VIEW_RANGES: task.views.table() or None, EPISODE_STEPS: job.world.episode_steps or None}
    like[BACKEND] = "warp" if job.world.backend == "warp" else None
    seen = {"render": task.rendering(job.world.render_quality)} if job.student.mode != "State" else {}
    folder = find_dataset(wanted, samples, vars(job.noise) | like | seen)
    if folder is None and isinstance(job, CloningExperiment) and job.data.collect:
        usual = Collection.of({}).collection.num_envs
        collection = Collection.of(job.flat() | {"num_data": samples, "num_envs": usual})
        collect(collection, open_teacher(job.place.teacher, task, job.place.device), overwrite=False)
        folder = wanted
    if folder is None:
        flags = "".join(f"--{key} {value:g} " for key, value in vars(job.noise).items() if value != NOISE[key])
        flags += task.flags + ("" if job.world.views == "none" else f"--views {job.world.views} ")
        flags += f"--episode_steps {job.world.episode_steps} " if job.world.episode_steps else ""
        flags += "--backend warp " if job.world.backend == "warp" else ""
        raise BadInput(
            f"no {wanted.name} in {wanted.parent}: --C_data --num_data {samples} {flags}collects it, --BC_phase with "
            "--collect does so by itself"
        )
    return folder


def open_matching(job: CloningExperiment | DAggerExperiment, folder: Path, description: dict[str, Any]) -> Dataset:
    """Open a run's dataset, or the beginning of a larger one; `BadInput` or `BadFile` where it differs or is damaged."""
    with advice(HOW_TO_REPAIR):
        dataset = open_dataset(folder)
    seen = ["render"] if job.student.mode != "State" else []
    check_same(dataset, description, ("task", "teacher_sha256", *VARYING, *vars(job.noise), *seen))
    return dataset.prefix(DATASET_SIZES[job.data.dataset])


def check_same(dataset: Dataset, description: dict[str, Any], keys: Sequence[str]) -> None:
    """Raise `BadInput` where a dataset has other settings than asked for, apart from how its frames are stacked."""
    found, wanted = {BACKEND: "workers", EPISODE_STEPS: 0} | dataset.meta, dict(description)
    for settings in (found, wanted):
        if isinstance(render := settings.get("render"), dict):
            settings["render"] = {key: value for key, value in render.items() if not key.startswith("stack")}
    unlike = differences(found, wanted, keys)
    if unlike:
        raise BadInput(f"{dataset.folder} has other settings than asked for: {unlike}")
