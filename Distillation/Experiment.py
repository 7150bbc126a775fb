"""One experiment from its settings to its summary."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch

from Algorithm.BehaviouralCloning import BehaviouralCloning, DAgger
from Algorithm.Checkpoint import check_fits, differences, load_checkpoint, load_policy
from Algorithm.CollectDataset import collect_dataset
from Algorithm.Config import BadInput, PPOConfig
from Algorithm.Logger import RunLogger, resolve_wandb_mode, start_wandb
from Algorithm.PPD import PPD
from Algorithm.PPO import GuidedPPO
from Algorithm.seeds import ID_TEST_SEEDS, OD_TEST_SEEDS, training_seed
from Algorithm.StudentTeacher_distillation import OnlineDistillation
from Algorithm.Test_model import Recording, StudentTest, table
from Algorithm.Training import Trainer, train
from Algorithm.Utils import Dataset, find_dataset, open_dataset
from Algorithm.Video import write_video
from Distillation import Utils
from Distillation.Page import write_page
from Distillation.Plot import draw, find_runs
from Distillation.Utils import (
    LAST,
    CommonConfig,
    ExperimentConfig,
    check_folder,
    describe,
    file_hash,
    task_folder,
    write_json,
)
from Enviroment.Tasks import Task
from Enviroment.Utils import make_vector_env
from Enviroment.Vector_env import WorkerVectorEnv
from Models.Base_Model import ActorCritic, resolve_device, resolve_precision
from Models.Files import BadFile, locked
from Models.Model_Pusher import RESULTS, Teacher, get_Teacher_model, make_student

# What a student's file says of it, beside its scores.
CARD = ("task", "method", "mode", "run_index", "precision", "render", "teacher_sha256")
ON_POLICY: dict[type, type[GuidedPPO]] = {  # what trains by rollouts, and with which settings
    Utils.PPD: PPD,
    Utils.StudentDistillation: OnlineDistillation,
    Utils.TeacherDistillation: OnlineDistillation,
}
AGGREGATED = "aggregated"  # folder of what DAgger added
PAGE = "page.html"  # written last


def run(config: CommonConfig, task: Task, resume: bool, overwrite: bool) -> None:
    """Do what `Pusher.py` was asked for.

    Raises:
        BadInput, BadDevice, BadFile, NoGLBackend: before anything is written.
    """
    with contextlib.ExitStack() as stack:
        if config.quiet:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        _run(config, task, resume, overwrite)


def _run(config: CommonConfig, task: Task, resume: bool, overwrite: bool) -> None:
    device = resolve_device(config.device)
    config = dataclasses.replace(config, device=str(device))
    teacher_path = Path(config.teacher) if config.teacher else RESULTS / task.name / "Teacher" / "teacher.pt"
    teacher = get_Teacher_model(teacher_path, device, task.name)
    check_fits(teacher_path, teacher, task)
    if isinstance(config, Utils.Collection):
        if resume:
            raise BadInput("--resume is for runs; --C_data without it goes on with a collection that was cut off")
        collect(config, task, teacher, teacher_path, overwrite)
    elif isinstance(config, ExperimentConfig):
        distil(config, task, teacher, teacher_path, resume, overwrite)


def dataset_folder(config: CommonConfig, task: Task, samples: int) -> Path:
    """Return where a dataset of so many samples is."""
    size = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    return task_folder(config) / "Teacher" / f"dataset_{size}"


def collect(config: Utils.Collection, task: Task, teacher: Teacher, teacher_path: Path, overwrite: bool) -> None:
    """Collect a dataset, and write it once more for Minari if that is wanted.

    Raises:
        BadInput: there is one already, and no export is wanted, or the one there has other settings.
        BadFile: another process is collecting it, or the one there is damaged.
    """
    folder = dataset_folder(config, task, config.num_data)
    description = describe(config, teacher_path, task.rendering(config.render_quality))
    if folder.exists() and not overwrite:
        if config.export_minari is None:
            raise BadInput(f"{folder} is there already; --overwrite collects it anew")
        check_same(open_dataset(folder), description, ("task", "teacher_sha256", "render", "teacher_noise"))
    if config.export_minari is not None:
        from Algorithm.Minari_export import check_minari, export_minari

        check_minari(Path(config.export_minari))
    if not folder.exists() or overwrite:
        meta = {key: description[key] for key in ("task", "teacher_sha256", "render", "versions")}
        folder.parent.mkdir(parents=True, exist_ok=True)  # or fail before time is spent
        started = time.monotonic()
        with (
            locked(folder),
            closing(
                make_vector_env(task, config.num_envs, config.num_workers, None, True, config.render_quality)
            ) as env,
        ):
            collect_dataset(folder, env, teacher, config.num_data, config.teacher_noise, meta, config.quiet, overwrite)
        seconds = time.monotonic() - started
        dataset = open_dataset(folder)
        returns = dataset.fields["reward"].sum() / dataset.fields["episode_start"].sum()
        print(f"{len(dataset)} samples, mean return {returns:.2f}, {seconds:.0f} s\ndataset  {folder}")
    if config.export_minari is not None:
        export_minari(open_dataset(folder), task, Path(config.export_minari))
        print(f"minari   {config.export_minari}")


def open_matching(
    config: Utils.Cloning | Utils.DAgger, task: Task, teacher_path: Path, description: dict[str, Any]
) -> Dataset:
    """Open the dataset a run asks for, or the beginning of a larger one; collect it if that is asked for too.

    Raises:
        BadInput: there is none, or only one with other settings.
        BadFile: it is damaged.
    """
    samples = 1000 * int(config.dataset.removesuffix("k"))
    wanted = dataset_folder(config, task, samples)
    folder = find_dataset(wanted, samples)
    if folder is None and isinstance(config, Utils.Cloning) and config.collect:
        common = {field.name: getattr(config, field.name) for field in dataclasses.fields(CommonConfig)}
        collection = Utils.Collection(num_data=samples, **common)
        collect(collection, task, get_Teacher_model(teacher_path, config.device), teacher_path, overwrite=False)
        folder = wanted
    if folder is None:
        raise BadInput(
            f"no dataset of {config.dataset} in {wanted.parent}: --C_data --num_data {samples} collects it, --BC_phase "
            "with --collect does so by itself"
        )
    dataset = open_dataset(folder)
    check_same(dataset, description, ("task", "teacher_sha256", *(["render"] if config.mode != "State" else [])))
    return dataset.prefix(samples)


def check_same(dataset: Dataset, description: dict[str, Any], keys: Sequence[str]) -> None:
    """Raise `BadInput` where a dataset is not what was asked for."""
    unlike = differences(dataset.meta, description, keys)
    if unlike:
        raise BadInput(f"{dataset.folder} has other settings than asked for: {unlike}")


def inherit(config: Utils.DAgger) -> tuple[Utils.DAgger, Path, dict[str, Any]]:
    """Take from a run of behavioural cloning what DAgger goes on with; returns it, the checkpoint and the priorities.

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
        raise BadInput(f"--folder_Dagger {folder}: no run of --BC_phase (no whole config.json)") from None
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
    return config, checkpoints / f"{config.start}.pt", checkpoint["trainer"]["priorities"]


def check_settings(folder: Path, before: dict[str, Any], now: dict[str, Any], free: frozenset[str]) -> None:
    """Compare the settings of a run's checkpoint with those it is to go on with; `free` ones may differ.

    Raises:
        BadInput: others differ.
    """
    unlike = differences(before, now, [key for key in now if key not in free | {"versions"}])
    if unlike:
        raise BadInput(f"--resume: the run in {folder} has other settings: {unlike}")
    versions = differences(before.get("versions", {}), now["versions"])
    if versions:
        print(f"begun with other versions, so that numbers may differ in the last digits: {versions}", file=sys.stderr)


def make_trainer(
    config: ExperimentConfig,
    task: Task,
    student: ActorCritic,
    teacher: Teacher,
    dataset: Dataset | None,
    priorities: dict[str, Any] | None,
    environments: Callable[[int], WorkerVectorEnv],
    folder: Path,
) -> Trainer:
    """Build what trains the student; `environments` makes as many as are asked for, if any are."""
    if isinstance(config, Utils.Cloning):
        assert dataset is not None
        seed = training_seed("BC", config.run_index)
        return BehaviouralCloning(student, dataset.fields, task, config, seed)
    if isinstance(config, Utils.DAgger):
        assert dataset is not None
        assert priorities is not None
        return DAgger(
            student,
            dataset.fields,
            task,
            config,
            training_seed("DAgger", config.run_index),
            env=environments(config.num_envs),
            teacher=teacher,
            priorities=priorities,
            folder=folder / AGGREGATED,
        )
    assert isinstance(config, PPOConfig)
    seed = training_seed("training", config.run_index)
    return ON_POLICY[type(config)](student, environments(config.num_envs), task, config, seed, teacher=teacher)


def distil(
    config: ExperimentConfig, task: Task, teacher: Teacher, teacher_path: Path, resume: bool, overwrite: bool
) -> None:
    """Train a student, test it, and write its folder."""
    device = torch.device(config.device)
    config = dataclasses.replace(
        config,
        precision=resolve_precision(config.precision, device),
        wandb_mode=resolve_wandb_mode(config.wandb_mode),
    )
    start = priorities = student = checkpoint = dataset = None
    if isinstance(config, Utils.DAgger):
        config, start, priorities = inherit(config)
    description = describe(config, teacher_path, task.rendering(config.render_quality))
    folder = task_folder(config) / config.folder / config.name
    finished = folder / "summary.json"
    if start is not None:
        description["start_sha256"] = file_hash(start)
        parent = json.loads((start.parents[1] / "config.json").read_text())
        description["parent"] = {key: value for key, value in parent.items() if key not in CommonConfig.free}
    started = time.monotonic()
    with ExitStack() as open_things:
        resume = check_folder(folder, resume, overwrite)
        if resume:
            open_things.enter_context(locked(folder))
            checkpoint = load_checkpoint(folder / LAST)
            check_settings(folder, checkpoint["settings"], description, config.free)
            done = checkpoint["trainer"]["counters"][0] >= config.optimization_steps
            if done and finished.is_file() and (folder / PAGE).is_file():
                try:
                    scores = table(json.loads(finished.read_text())["OD"])
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise BadFile(f"{finished}: damaged; --overwrite makes the run anew") from None
                print(f"the run in {folder} is finished\n{scores}")
                return
        if isinstance(config, Utils.Cloning | Utils.DAgger):
            dataset = open_matching(config, task, teacher_path, description)
            description["data"] = {
                "samples": len(dataset),
                "teacher_noise": dataset.meta.get("teacher_noise"),
                "crc32": dataset.meta["crc32"]["mean"],
            }
            if checkpoint and checkpoint["settings"].get("data") != description["data"]:
                raise BadInput(f"--resume: the run in {folder} began with another dataset than there is now")
        if start is not None:
            student, of = load_policy(start, device)
            check_fits(start, student, task)
            unlike = differences(of, description, ("task", "mode", "teacher_sha256"))
            if unlike:
                raise BadFile(f"{start}: not of the run it lies in: {unlike}")
            student.train()
        if not resume:
            open_things.enter_context(locked(folder))
            if folder.exists() and not overwrite and (folder / LAST).is_file():
                raise BadInput(f"{folder}: another process was faster")
            shutil.rmtree(folder, ignore_errors=True)
        finished.unlink(missing_ok=True)
        write_json(folder / "config.json", description)
        print(heading(config, teacher_path, folder, resume), flush=True)
        sets = {
            "ID": range(ID_TEST_SEEDS[0], ID_TEST_SEEDS[0] + config.episodes),
            "OD": range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + config.episodes),
        }
        closing_sets = sets | {"OD": range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + config.final_episodes)}

        def environments(count: int) -> WorkerVectorEnv:
            frames, quality = config.mode != "State", config.render_quality
            env = make_vector_env(task, count, config.num_workers, frames=frames, render_quality=quality)
            open_things.callback(env.close)
            return env

        test_env = environments(2 * config.episodes)
        if student is None:
            torch.manual_seed(training_seed("training", config.run_index))
            student = make_student(
                config.mode,
                test_env.single_observation_space,
                test_env.single_action_space,
                task.proprioception,
                teacher.statistics,
                task.stack,
                config.grid,
            ).to(device)
        student.precision = config.precision
        trainer = make_trainer(config, task, student, teacher, dataset, priorities, environments, folder)
        traits = [config.method, config.mode, *([description["dataset"]] if dataset is not None else [])]
        wandb_run = start_wandb(
            config.wandb_mode,
            folder,
            description,
            group="_".join(traits),
            name=config.name,
            tags=[task.name, *traits, f"run{config.run_index}"],
            entity=config.wandb_entity,
            project=config.wandb_project,
            run_id=checkpoint["wandb_id"] if checkpoint else None,
        )
        begun: tuple[int, int, int | None] = (0, 0, None)  # updates, rows, their checksum
        if checkpoint:
            begun = checkpoint["trainer"]["counters"][0], checkpoint["rows"], checkpoint["rows_crc32"]
        logger = RunLogger(folder, config.optimization_steps, wandb_run, *begun, config.quiet)
        open_things.callback(logger.close)
        if dataset is not None:
            logger.dataset(dataset.folder, dataset.meta)
        test = StudentTest(test_env, task, teacher, sets)  # the workers, which were starting meanwhile, are needed now

        def film(recording: Recording, step: int) -> Path:
            name = f"{step:07d}" if step < config.optimization_steps else "final"
            video, seeds = folder / "videos" / f"{name}_OD.mp4", [*closing_sets["ID"], *closing_sets["OD"]]
            write_video(video, task, seeds, recording, teacher=teacher, first=config.episodes)
            logger.video(video, step)
            return video

        seconds = train(
            trainer,
            test,
            logger,
            folder,
            {key: description[key] for key in CARD},
            optimization_steps=config.optimization_steps,
            test_every=config.test_every,
            checkpoint_every=config.checkpoint_every,
            settings=description,
            film=film,
            film_every=config.video_every,
            resume=checkpoint,
        )

        logger.end_bar()
        recording = Recording()
        report = StudentTest(test_env, task, teacher, closing_sets).report(student, recording)
        video = film(recording, trainer.optimization_steps)
        summary = {
            "optimization_steps": trainer.optimization_steps,
            "samples_collected": trainer.samples_collected,
            "training_seconds": round(seconds, 1),
            **report,
        }
        write_json(finished, summary)
        students = [folder / "checkpoints" / name for name in ("last.pt", "best_ID.pt")]
        logger.summarize(summary, students)
        runs = find_runs([folder])
        curve, page = draw(runs, folder / "curve"), write_page(runs, folder / PAGE)
        shutil.rmtree(folder / AGGREGATED, ignore_errors=True)  # only a resumption needs it
        print(
            f"\n{config.final_episodes} episodes on seeds it never trained on (OD), deterministic:\n{table(report['OD'])}\n"
        )
        outcome: dict[str, Any] = {"video": video, "curve": curve, "page": page, "student": students[0]}
        if wandb_run is not None and wandb_run.offline:
            program = "wandb" if shutil.which("wandb") else Path(sys.executable).with_name("wandb")
            outcome["W&B"] = f"{program} leet {folder / 'wandb'}"
        elif wandb_run is not None:
            outcome["W&B"] = wandb_run.url
        print(columns({**outcome, "minutes": f"{(time.monotonic() - started) / 60:.1f} in all"}))


def heading(config: ExperimentConfig, teacher: Path, folder: Path, resume: bool) -> str:
    """Say what runs, on what, and where it writes."""
    what = f"{config.title.partition(':')[0]} of {teacher.name} into {config.mode}"
    return columns(
        {
            f"{config.method}": what,
            "updates": f"{config.optimization_steps}, tested every {config.test_every} on {config.episodes} ID and OD episodes",
            "on": f"{config.device} in {config.precision}",
            "run": f"{folder}{' (resumed)' if resume else ''}",
        }
    )


def columns(lines: dict[str, Any]) -> str:
    """Lay out names and values below one another."""
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())
