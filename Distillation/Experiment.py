"""One experiment from its settings to its summary."""

import os
import shlex
import shutil
import sys
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from Algorithm.Logger import NullLogger, RunLogger, resolve_wandb_mode, start_wandb
from Algorithm.Policies import AnyTeacher, open_teacher
from Algorithm.Robustness import PHYSICS, TRAINED, robustness
from Algorithm.seeds import ID_TEST_SEEDS, OD_TEST_SEEDS
from Algorithm.Teacher_source import teacher_hash
from Algorithm.Test_model import Recording, StudentTest, table
from Algorithm.Training import Loop, no_test
from Algorithm.Video import write_video
from Common import Parallel
from Common.Errors import BadInput, decoration
from Common.Files import write_json
from Common.Machine import cores, resolve_device, resolve_precision
from Distillation.Check import unchecked
from Distillation.Datasets import collect
from Distillation.Fine_tuning import subtracts
from Distillation.Preparation import PAGE, SUMMARY, Inputs, Plan, as_begun, check_ranks, parents_teacher, prepare
from Distillation.Reports.Curves import draw
from Distillation.Reports.Page import write_page
from Distillation.Reports.Robustness import digest, draw_robustness
from Distillation.Reports.Runs import find_runs
from Distillation.Settings import TestSettings
from Distillation.Utils import AGGREGATED, LAST, Collection, DAggerExperiment, Experiment, Job, Parts, task_of
from Enviroment.Tasks import Task
from Enviroment.Utils import make_world
from Enviroment.World import World
from Models.Base_Model import TRAINED_WITH, ActorCritic
from Models.Model_Pusher import make_student

ROBUSTNESS = "robustness.png"  # in a run's folder
OD_WARP = "OD_warp"  # the closing figures of a run that Warp simulated, on the OD seeds in Warp
EXAMINED_STEPS = 100  # of an episode of the report of robustness; longer ones are fewer
INEXACT = "inexactly: the environment keeps something in Python that a checkpoint does not hold"


def run(job: Job, resume: bool, overwrite: bool) -> None:
    """Make a run or a dataset; raises `BadInput` and writes nothing where settings or files do not fit."""
    with ExitStack() as stack:
        if job.place.quiet or Parallel.rank():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        try:
            job = as_begun(job) if resume and isinstance(job, Experiment) else job
            device = own_device(job.place.device)
        except BadInput:
            if Parallel.local_rank():  # the machine's first rank prints the error
                Parallel.leave_it_to_another()
            raise
        stack.enter_context(Parallel.joined(device))
        job, task = job.replace(device=str(device)), task_of(job)
        job.training_task()  # or raise before anything is written
        if isinstance(job, DAggerExperiment) and job.place.teacher is None:
            job = job.replace(teacher=parents_teacher(job))
        with Parallel.agreed():
            teacher = open_teacher(job.place.teacher, task, job.place.device)
        with Parallel.agreed():
            check_ranks(job, teacher_hash(job.place.teacher, task))
        if not (Parallel.rank() or job.place.quiet or resume) and (warning := unchecked(task, job.place.teacher)):
            print(warning, file=sys.stderr)
        if isinstance(job, Experiment):
            distil(job, teacher, resume, overwrite)
        elif resume:
            raise BadInput("--resume is for runs; --C_data without it continues a collection that was cut off")
        elif isinstance(job, Collection):
            collect(job, teacher, overwrite)


def own_device(name: str) -> torch.device:
    """Return this rank's device: each of several ranks on a machine has a GPU of its own.

    Raises:
        BadDevice, BadInput: it does not exist, or the machine's ranks would share it.
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


def distil(job: Experiment, teacher: AnyTeacher, resume: bool, overwrite: bool) -> None:
    """Train a student, test it, and write its folder."""
    started = time.monotonic()
    precision = resolve_precision(job.student.precision, torch.device(job.place.device))
    job = job.replace(precision=precision, wandb_mode=resolve_wandb_mode(job.wandb.wandb_mode))
    with ExitStack() as open_things:
        prepared = prepare(job, teacher.family, resume, overwrite, open_things)
        if prepared is None:
            return
        plan, inputs = prepared
        print(heading(plan), flush=True)
        session = Session(plan, inputs, teacher, open_things)
        seconds = session.train()
        if Parallel.rank() == 0:
            session.report(seconds)
            minutes = f"{(time.monotonic() - started) / 60:.1f} in all"
            print(columns({**session.outcome(), "minutes": minutes}))


def seed_sets(settings: TestSettings, closing: bool = False) -> dict[str, range]:
    """Return the seeds of each set of test episodes by its name: of tests while training, or of the closing one."""
    known, unseen = ID_TEST_SEEDS[0], OD_TEST_SEEDS[0]
    number = settings.final_episodes if closing else settings.episodes
    return {"ID": range(known, known + settings.episodes), "OD": range(unseen, unseen + number)}


def examined_seeds(episodes: int, max_episode_steps: int) -> range:
    """Return the seeds of the closing report of robustness: fewer where episodes are long, but two, to swap their frames."""
    number = min(episodes, episodes * EXAMINED_STEPS // max_episode_steps)
    return range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + max(2, number))


class Session:
    """A run under way: its environments, student, trainer and logger; `open_things` closes environments and logger."""

    def __init__(self, plan: Plan, inputs: Inputs, teacher: AnyTeacher, open_things: ExitStack):
        self.plan, self.inputs, self.task, self.teacher = plan, inputs, task_of(plan.job), teacher
        self.job, self._open_things = plan.job, open_things
        # Other ranks only need the spaces.
        self.test_world = self.world(self.task, 1 if Parallel.rank() else 2 * self.job.test.episodes)
        self.student = self._student()
        parts = Parts(self.student, teacher, self._share, plan.folder, inputs.dataset, inputs.priorities)
        self.trainer = self.job.trainer(parts)
        self.logger = NullLogger() if Parallel.rank() else self._logger()

    def world(self, task: Task, num_envs: int, backend: str = "workers") -> World:
        """Make environments, which are closed when the run ends."""
        places = self._workers, self.job.student.mode != "State", self.job.world.render_quality
        world = make_world(task, num_envs, *places, backend, self.job.place.device)
        self._open_things.callback(world.close)
        return world

    @property
    def _workers(self) -> int:
        return self.job.world.num_workers or max(1, cores() // Parallel.local_count())

    def _share(self, num_envs: int) -> World:
        return self.world(self.job.training_task(), -(-num_envs // Parallel.count()), self.job.world.backend)

    def _student(self) -> ActorCritic:
        """Return a new student, or the one that the run begins with, which is trained as a new one would be."""
        settings = self.job.student
        torch.manual_seed(self.job.seed())
        student = make_student(
            settings.mode,
            self.test_world.spaces,
            self.test_world.action_space,
            None if settings.proprioception == "none" else self.task.proprioception,
            self.teacher.statistics,
            settings.stack,
            settings.grid,
            self.task.stack_stride,
            self.teacher.family,
            subtracts(self.job.flat()),
            self.job.method.hidden_state > 0,
            self.job.flat().get("critic", "same"),
            settings.memory,
        )
        if self.inputs.student is not None:
            student = self.inputs.student.rebuilt(**{name: student.arguments[name] for name in TRAINED_WITH})
        student.precision = settings.precision
        return student.to(self.job.place.device)

    def _logger(self) -> RunLogger:
        """Return the first rank's logger, which continues a checkpoint's rows."""
        job, checkpoint, dataset = self.job, self.inputs.checkpoint, self.inputs.dataset
        traits = [job.flag, job.student.mode, *([job.flat()["dataset"]] if dataset is not None else [])]
        run = start_wandb(
            job.wandb.wandb_mode,
            self.plan.folder,
            self.plan.description,
            group="_".join(traits),
            name=job.name,
            tags=[self.task.name, *traits, f"run{job.student.run_index}"],
            entity=job.wandb.wandb_entity,
            project=job.wandb.wandb_project,
            run_id=checkpoint.wandb_id if checkpoint else None,
        )
        done: dict[str, Any] = {}
        if checkpoint:
            done = {"done": checkpoint.updates, "keep": checkpoint.rows, "crc32": checkpoint.rows_crc32}
        logger = RunLogger(self.plan.folder, job.method.optimization_steps, run, quiet=job.place.quiet, **done)
        self._open_things.callback(logger.close)
        if dataset is not None:
            logger.dataset(dataset.folder, dataset.meta)
        return logger

    def train(self) -> float:
        """Train the student; returns the seconds it took, without tests."""
        job, first = self.job, Parallel.rank() == 0
        loop = Loop(
            self.trainer,
            self.plan.folder,
            {key: value for key, value in self.plan.description.items() if key not in job.free()},
            self.plan.description,
            optimization_steps=job.method.optimization_steps,
            test_every=job.test.test_every,
            checkpoint_every=job.log.checkpoint_every,
            test=StudentTest(self.test_world, self.task, self.teacher, seed_sets(job.test)) if first else no_test,
            logger=self.logger,
            film=self.film,
            film_every=job.test.video_every if first else 0,
            resume=self.inputs.checkpoint,
        )
        return loop.run()

    def film(self, recording: Recording, update: int) -> None:
        """Write the video of a test's OD episodes."""
        name = f"{update:07d}" if update < self.job.method.optimization_steps else "final"
        video = self.plan.folder / "videos" / f"{name}_OD.mp4"
        seeds = [seed for part in seed_sets(self.job.test, closing=True).values() for seed in part]
        recordings, first = {"student": recording}, self.job.test.episodes
        with decoration(f"the video {video.name}"):
            write_video(video, self.task, seeds, recordings, teacher=self.teacher, first=first)
            self.logger.video(video, update)

    def report(self, seconds: float) -> None:
        """Score the student, write the closing figures and print them, then decorate them; `seconds` were spent training."""
        assert isinstance(self.logger, RunLogger)
        self.logger.end_bar()
        recording = Recording() if self.job.test.video_every else None
        seeds = seed_sets(self.job.test, closing=True)
        episodes = self.job.test.final_episodes
        print("\ntraining has ended; its closing figures follow", flush=True)
        report = StudentTest(self.test_world, self.task, self.teacher, seeds).report(self.student, recording)
        if self.job.world.backend == "warp":
            world = self.world(self.task, len(seeds["OD"]), "warp")
            report |= StudentTest(world, self.task, self.teacher, {OD_WARP: seeds["OD"]}).report(self.student)
        summary: dict[str, Any] = {
            "optimization_steps": self.trainer.optimization_steps,
            "samples_collected": self.trainer.samples_collected,
            "training_seconds": round(seconds, 1),
            **report,
        }
        write_json(self.plan.folder / SUMMARY, summary)
        print(
            f"\n{episodes} episodes on seeds it never trained on (OD), deterministic:\n{table(report['OD'], self.task)}"
        )
        print(in_warp(report[OD_WARP]) + "\n" if OD_WARP in report else "", flush=True)
        self.decorate(summary, recording)

    def decorate(self, summary: dict[str, Any], recording: Recording | None) -> None:
        """Write the report of robustness, video, curve and page. One that fails costs a line and leaves the others."""
        assert isinstance(self.logger, RunLogger)
        folder = self.plan.folder
        if self.job.test.robustness_episodes:
            with decoration("the report of robustness"):
                summary["robustness"] = self.examine()
                write_json(folder / SUMMARY, summary)
                print(f"{digest(summary['robustness'])}\n")
                draw_robustness(summary["robustness"], folder / ROBUSTNESS)
        if recording is not None:
            self.film(recording, self.trainer.optimization_steps)
        self.logger.summarize(summary, [folder / "checkpoints" / name for name in ("last.pt", "best_ID.pt")])
        with decoration("the curve"):
            draw(find_runs([folder]), folder / "curve")
        with decoration("the page"):
            write_page(find_runs([folder]), folder / PAGE)
        if (folder / PAGE).is_file():  # else a resumption makes up for it, which needs the rollouts
            shutil.rmtree(folder / AGGREGATED, ignore_errors=True)

    def examine(self) -> dict[str, Any]:
        """Return the student's report of robustness, which the dashboard gets as well.

        To save time, of the shifts of pictures it has those alone that the views small and large vary, or the run's own.
        """
        assert isinstance(self.logger, RunLogger)
        seeds = examined_seeds(self.job.test.robustness_episodes, self.test_world.max_episode_steps)
        own = self.task.views.table() if self.job.student.mode != "State" else PHYSICS
        kinds = dict.fromkeys((*TRAINED, *own))
        report = robustness(
            self.student,
            self.teacher,
            self.task,
            seeds,
            kinds=kinds,
            render_quality=self.job.world.render_quality,
            num_workers=self._workers,
            quiet=self.job.place.quiet,
        )
        self.logger.robustness(report, self.trainer.optimization_steps)
        return report

    def outcome(self) -> dict[str, Any]:
        """Return where the run's results are, by name."""
        assert isinstance(self.logger, RunLogger)
        folder = self.plan.folder
        files = {"video": "videos/final_OD.mp4", "curve": "curve.png", "page": PAGE, "student": str(LAST)}
        if self.job.test.robustness_episodes:
            files["robustness"] = ROBUSTNESS
        outcome: dict[str, Any] = {name: folder / file for name, file in files.items() if (folder / file).is_file()}
        if self.logger.offline:
            program = "wandb" if shutil.which("wandb") else Path(sys.executable).with_name("wandb")
            outcome["W&B"] = shlex.join([str(program), "leet", str(folder / "wandb")])
        elif self.logger.url is not None:
            outcome["W&B"] = self.logger.url
        return outcome


def heading(plan: Plan) -> str:
    """Return the lines that a run prints first: the method, the updates, the device and the folder."""
    job = plan.job
    teacher = os.path.basename(job.place.teacher or "teacher.pt")
    ranks = f", {Parallel.count()} ranks" if Parallel.count() > 1 else ""
    warp = ", simulated by MuJoCo Warp" if job.world.backend == "warp" else ""
    tests = f"tested every {job.test.test_every} on {job.test.episodes} ID and OD episodes"
    return columns(
        {
            job.flag: f"{job.title.partition(':')[0]} of {teacher} into {job.student.mode}, {task_of(job).name}",
            "updates": f"{job.method.optimization_steps}, {tests}",
            "on": f"{job.place.device} in {job.student.precision}{ranks}{warp}",
            "run": f"{plan.folder}{' (resumed)' if plan.resumes else ''}",
            "if cut off": "--resume continues it " + ("exactly" if plan.description["exact_resume"] else INEXACT),
        }
    )


def in_warp(found: dict[str, dict[str, float]]) -> str:
    """Return a line on the closing figures in Warp, `[student or teacher][figure]`."""
    names = {"return": "return {:.2f}", "normalized_return": "normalized {:.3f}", "success": "success {:.2f}"}
    student, teacher = (
        ", ".join(text.format(found[who][name]) for name, text in names.items() if name in found[who])
        for who in ("student", "teacher")
    )
    return f"the same episodes in Warp: {student}; teacher: {teacher}"


def columns(lines: dict[str, Any]) -> str:
    """Lay out names and values below one another."""
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())
