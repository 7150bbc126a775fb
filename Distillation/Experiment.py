"""One experiment from its settings to its summary."""

import contextlib
import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from Algorithm.BehaviouralCloning import BehaviouralCloning, DAgger
from Algorithm.Checkpoint import check_fits
from Algorithm.Config import PPOConfig
from Algorithm.Logger import RunLogger, resolve_wandb_mode, start_wandb
from Algorithm.PPD import PPD
from Algorithm.PPO import GuidedPPO
from Algorithm.seeds import ID_TEST_SEEDS, OD_TEST_SEEDS, training_seed
from Algorithm.StudentTeacher_distillation import StudentDistillation, TeacherDistillation
from Algorithm.Test_model import Recording, StudentTest, table
from Algorithm.Training import Trainer, train
from Algorithm.Utils import Dataset
from Algorithm.Video import write_video
from Common import Parallel
from Common.Errors import BadDevice, BadInput
from Common.Files import RESULTS, file_hash, write_json
from Common.Machine import resolve_device, resolve_precision
from Distillation import Utils
from Distillation.Beginning import PAGE, SUMMARY, check_ranks, prepare
from Distillation.Data import collect
from Distillation.Page import write_page
from Distillation.Plot import draw
from Distillation.Runs import find_runs
from Distillation.Utils import CommonConfig, ExperimentConfig
from Enviroment.Tasks import Task
from Enviroment.Utils import make_vector_env
from Enviroment.Vector_env import WorkerVectorEnv
from Models.Base_Model import ActorCritic
from Models.Model_Pusher import Teacher, get_Teacher_model, make_student

# What a student's file says of it, beside its scores.
CARD = ("task", "method", "mode", "run_index", "precision", "render", "teacher_sha256")
ON_POLICY: dict[type, type[GuidedPPO]] = {  # what trains by rollouts, and with which settings
    Utils.PPD: PPD,
    Utils.StudentDistillation: StudentDistillation,
    Utils.TeacherDistillation: TeacherDistillation,
}
AGGREGATED = "aggregated"  # folder of what DAgger added


def run(config: CommonConfig, task: Task, resume: bool, overwrite: bool) -> None:
    """Do what `Pusher.py` was asked for.

    Raises:
        BadInput, BadDevice, BadFile, NoGLBackend: before anything is written.
    """
    with contextlib.ExitStack() as stack:
        if config.quiet or Parallel.rank():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        _run(config, task, resume, overwrite)


def _run(config: CommonConfig, task: Task, resume: bool, overwrite: bool) -> None:
    try:
        device = own_device(config.device)
    except (BadInput, BadDevice):
        if Parallel.local_rank():  # the first one of this machine says it
            Parallel.leave_it_to_another()
        raise
    with Parallel.joined(device):
        _do(dataclasses.replace(config, device=str(device)), task, resume, overwrite)


def own_device(name: str) -> torch.device:
    """Return the device that `name` means for this rank: each of several on a machine has a GPU of its own.

    Raises:
        BadDevice: it does not exist.
        BadInput: one GPU is named for several ranks, or there are more of them than GPUs.
    """
    device, ranks = resolve_device(name), Parallel.local_count()
    if device.type == "cuda":
        if device.index is not None and ranks > 1:
            raise BadInput(f"--device {name} is one device; cuda gives each of the {ranks} ranks its own")
        if ranks > torch.cuda.device_count():
            raise BadInput(f"{ranks} ranks on a machine with {torch.cuda.device_count()} GPUs: one each is needed")
        if device.index is None:
            device = torch.device("cuda", Parallel.local_rank())
        torch.cuda.set_device(device)  # or this process would also take memory of the first
    return device


def _do(config: CommonConfig, task: Task, resume: bool, overwrite: bool) -> None:
    device = torch.device(config.device)
    teacher_path = Path(config.teacher) if config.teacher else RESULTS / task.name / "Teacher" / "teacher.pt"
    with Parallel.agreed():
        teacher = get_Teacher_model(teacher_path, device, task.name)
        check_fits(teacher_path, teacher, task)
    with Parallel.agreed():
        check_ranks(config, file_hash(teacher_path))
    if isinstance(config, Utils.Collection):
        if resume:
            raise BadInput("--resume is for runs; --C_data without it goes on with a collection that was cut off")
        collect(config, task, teacher, teacher_path, overwrite)
    elif isinstance(config, ExperimentConfig):
        distil(config, task, teacher, teacher_path, resume, overwrite)


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
            env=environments(-(-config.num_envs // Parallel.count())),
            teacher=teacher,
            priorities=priorities,
            folder=folder / AGGREGATED,
        )
    assert isinstance(config, PPOConfig)
    seed = training_seed("training", config.run_index)
    return ON_POLICY[type(config)](
        student, environments(config.num_envs // Parallel.count()), task, config, seed, teacher=teacher
    )


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
    started = time.monotonic()
    with ExitStack() as open_things:
        beginning = prepare(config, task, teacher_path, resume, overwrite, open_things)
        if beginning is None:
            return
        config, task, description, folder = beginning.config, beginning.task, beginning.description, beginning.folder
        checkpoint, dataset, student = beginning.checkpoint, beginning.dataset, beginning.student
        print(heading(config, teacher_path, folder, checkpoint is not None), flush=True)
        sets = {
            "ID": range(ID_TEST_SEEDS[0], ID_TEST_SEEDS[0] + config.episodes),
            "OD": range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + config.episodes),
        }
        closing_sets = sets | {"OD": range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + config.final_episodes)}

        def environments(count: int) -> WorkerVectorEnv:
            frames, quality = config.mode != "State", config.render_quality
            cores = len(os.sched_getaffinity(0))
            workers = config.num_workers or max(1, cores // Parallel.local_count())
            env = make_vector_env(task, count, workers, frames=frames, render_quality=quality)
            open_things.callback(env.close)
            return env

        test_env = environments(1 if Parallel.rank() else 2 * config.episodes)  # other ranks: for its spaces
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
        trainer = make_trainer(config, task, student, teacher, dataset, beginning.priorities, environments, folder)
        loop: dict[str, Any] = {
            "optimization_steps": config.optimization_steps,
            "test_every": config.test_every,
            "checkpoint_every": config.checkpoint_every,
            "settings": description,
            "resume": checkpoint,
        }
        card = {key: description[key] for key in CARD}
        if Parallel.rank():
            train(trainer, None, None, folder, card, **loop)
            return
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

        seconds = train(trainer, test, logger, folder, card, film=film, film_every=config.video_every, **loop)

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
        write_json(folder / SUMMARY, summary)
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
            "on": f"{config.device} in {config.precision}{f', {Parallel.count()} ranks' if Parallel.count() > 1 else ''}",
            "run": f"{folder}{' (resumed)' if resume else ''}",
        }
    )


def columns(lines: dict[str, Any]) -> str:
    """Lay out names and values below one another."""
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())
