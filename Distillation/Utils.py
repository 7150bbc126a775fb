"""Experiments: groups of settings, a folder, and the trainer they make."""

import functools
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import Field, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from Algorithm import Config
from Algorithm.Config import TeacherNoiseConfig
from Algorithm.seeds import training_seed
from Common.Errors import BadSetting
from Common.Files import ROOT
from Common.Settings import FREE, Composed
from Distillation import Settings
from Enviroment.Tasks import Task, find_task
from Enviroment.Views import find_views, views_name

if TYPE_CHECKING:  # the command line answers before PyTorch is loaded
    from Algorithm.Dataset import Dataset
    from Algorithm.Training import Trainer
    from Enviroment.World import World
    from Models.Base_Model import ActorCritic, GaussianPolicy

LAST = Path("checkpoints") / "last.pt"  # in a run's folder
SEEING = "students that see: mode ImpaalaSmall, ImpaalaMid or ImpaalaBig"
AGGREGATED = "aggregated"  # folder of DAgger's rollouts, in the run's folder


@dataclass(frozen=True)
class Parts:
    """The parts of a trainer; cloning and DAgger have a dataset, DAgger also the priorities that cloning left to it."""

    student: "ActorCritic"  # on its device, as the teacher
    teacher: "GaussianPolicy"
    world: Callable[[int], "World"]  # makes this rank's share of so many environments
    folder: Path  # of the run
    dataset: "Dataset | None" = None
    priorities: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Job(Composed):
    """One thing that `Pusher.py` does."""

    flag: ClassVar[str]  # the method's, without dashes
    title: ClassVar[str]  # for the command line's help
    inherits: ClassVar[bool] = False  # whether inherited settings come from another run and are no flags

    world: Settings.WorldSettings
    place: Settings.PlaceSettings

    @classmethod
    def flags(cls) -> dict[str, Field]:
        """Return the settings that are flags."""
        every = cls.settings().items()
        return {name: field for name, field in every if not (cls.inherits and field.metadata["inherited"])}

    @classmethod
    def free(cls) -> set[str]:
        """Return the settings that may change when a run is resumed."""
        return cls.named(*FREE)

    def training_task(self) -> Task:
        """Return the task with the episodes that students learn from; raises `BadSetting` where its own are shorter."""
        task, steps = task_of(self), self.world.episode_steps
        if not steps:
            return task
        from Enviroment.Snapshot import time_limit

        with closing(task.make()) as env:
            limit = time_limit(env)
        if limit is not None and steps > limit._max_episode_steps:
            raise BadSetting(f"episode_steps {steps}: {task.name}'s episodes have at most {limit._max_episode_steps}")
        return replace(task, max_episode_steps=steps)


@dataclass(frozen=True, kw_only=True)
class Experiment(Job):
    """A run that trains a student."""

    called: ClassVar[str]  # in tables and plots
    folders: ClassVar[str]  # pattern of the method's folder, in which settings are replaced by their values
    names: ClassVar[str]  # likewise, of the run's folder in there

    student: Settings.StudentSettings
    method: Config.TrainingConfig
    test: Settings.TestSettings
    log: Settings.LogSettings
    wandb: Config.WandbSettings

    @property
    def folder(self) -> str:
        """The method's folder."""
        return self.folders.format(**self.flat())

    @property
    def default_name(self) -> str:
        """The run's folder in there, unless it is given a name."""
        fields = self.settings()
        values = {
            name: in_names(value) if fields[name].metadata["parse"] else value for name, value in self.flat().items()
        }
        return self.names.format(**values | {"mode": self.student.called}) + world_suffix(self)

    @property
    def name(self) -> str:
        """The run's name and folder."""
        return self.log.run_name or self.default_name + Config.sweep_suffix()

    def trainer(self, parts: Parts) -> "Trainer":
        """Build the method's trainer."""
        raise NotImplementedError

    def seed(self, phase: str = "training") -> int:
        """Return the run's first seed of a phase: `training`, `BC` or `DAgger`."""
        return training_seed(phase, self.student.run_index)

    def check(self) -> None:
        """Raise `BadSetting` for the first setting that violates a limit."""
        super().check()
        if not self.inherits:
            self.check_student()

    def check_student(self) -> None:
        """Raise `BadSetting` for settings of frames where the student sees none, or of sequences that cannot be made."""
        values = self.flat()
        for name, field in self.settings().items():
            if self.student.mode == "State" and field.metadata["sees"] and values[name] != field.default:
                raise BadSetting(f"{name} is for {SEEING}")
        views = find_views(self.world.views)
        if self.student.mode == "State" and views.table() and not views.physical:
            raise BadSetting(f"views {self.world.views} changes only frames, and is for {SEEING}")
        if self.student.memory != "none":
            self.method.check_sequences()
        elif self.method.window != self.settings()["window"].default:
            raise BadSetting(f"window {self.method.window} is for students with a memory: --memory gru")


@dataclass(frozen=True, kw_only=True)
class OnPolicyExperiment(Experiment):
    """A run of a method that learns from rollouts."""

    method: Config.PPOConfig
    start: Settings.StartSettings

    @property
    def default_name(self) -> str:
        """Named by its settings and by the student that it begins with."""
        source = self.start.start_from
        return super().default_name + (f"_from_{Path(source).name.removesuffix('.pt')}" if source else "")

    def algorithm(self) -> Callable[..., "Trainer"]:
        """Return the method's trainer, which is imported here: the command line answers before PyTorch is loaded."""
        raise NotImplementedError

    def trainer(self, parts: Parts) -> "Trainer":
        """Build the method's trainer."""
        world = parts.world(self.method.num_envs)
        return self.algorithm()(parts.student, world, self.method, self.seed(), teacher=parts.teacher)


@dataclass(frozen=True, kw_only=True)
class PPDExperiment(OnPolicyExperiment):
    """A run of proximal policy distillation."""

    flag = called = folders = "PPD"
    title = "proximal policy distillation"
    names = "lambda{PPD_parameter}_{mode}_run{run_index}"

    method: Config.PPDConfig

    def algorithm(self) -> Callable[..., "Trainer"]:
        """Return PPD."""
        from Algorithm.PPD import PPD

        return PPD


@dataclass(frozen=True, kw_only=True)
class StudentDistillationExperiment(OnPolicyExperiment):
    """A run of student distillation."""

    flag = "Sdistillation"
    title = "student distillation: the student drives"
    called = "student distillation"
    folders = "StudentDistillation"
    names = "rl{rl_coef}_{mode}_run{run_index}"

    method: Config.StudentDistillationConfig

    def algorithm(self) -> Callable[..., "Trainer"]:
        """Return student distillation."""
        from Algorithm.StudentTeacher_distillation import StudentDistillation

        return StudentDistillation


@dataclass(frozen=True, kw_only=True)
class TeacherDistillationExperiment(OnPolicyExperiment):
    """A run of teacher distillation."""

    flag = "Tdistillation"
    title = "teacher distillation: the teacher drives"
    called = "teacher distillation"
    folders = "TeacherDistillation"
    names = "noise{teacher_noise:g}_{mode}_run{run_index}"

    method: Config.OnlineDistillationConfig
    noise: TeacherNoiseConfig

    def algorithm(self) -> Callable[..., "Trainer"]:
        """Return teacher distillation, with the teacher's noise."""
        from Algorithm.StudentTeacher_distillation import TeacherDistillation

        return functools.partial(TeacherDistillation, noise=self.noise)


@dataclass(frozen=True, kw_only=True)
class CloningExperiment(Experiment):
    """A run of behavioural cloning."""

    flag = "BC_phase"
    title = "behavioural cloning of a dataset"
    called = "BC"
    folders = "OurAlgorithm1_{loss_type}/Phase_One"

    method: Config.CloningConfig
    data: Settings.DatasetSettings
    noise: TeacherNoiseConfig

    @property
    def default_name(self) -> str:
        """Named by dataset, alpha, loss, student and views."""
        method, student = self.method, self.student
        alpha = f"{method.alpha:g}" if method.mode_alpha == "constant" else method.mode_alpha
        name = f"{self.data.dataset}_alpha{alpha}_{method.loss_type}_{student.called}_run{student.run_index}"
        return name + world_suffix(self)

    def trainer(self, parts: Parts) -> "Trainer":
        """Build behavioural cloning."""
        from Algorithm.BehaviouralCloning import BehaviouralCloning

        assert parts.dataset is not None
        return BehaviouralCloning(parts.student, parts.dataset.fields, self.method, self.seed("BC"))


@dataclass(frozen=True, kw_only=True)
class DAggerExperiment(Experiment):
    """A run of DAgger, which continues one of behavioural cloning."""

    flag = "Dagger_phase"
    title = "DAgger: continues a run of behavioural cloning"
    called = "DAgger"
    folders = "OurAlgorithm1_{loss_type}/Phase_Two"
    inherits = True

    method: Config.DAggerConfig
    data: Settings.ParentSettings
    noise: TeacherNoiseConfig

    @property
    def default_name(self) -> str:
        """Named by its parent, alpha and sampling."""
        assert self.data.folder_Dagger is not None
        method = self.method
        alpha = f"alpha{method.alpha:g}" if method.mode_alpha == "constant" else method.mode_alpha
        return f"{Path(self.data.folder_Dagger).name}_{alpha}_{method.sampling}"

    def trainer(self, parts: Parts) -> "Trainer":
        """Build DAgger."""
        from Algorithm.BehaviouralCloning import DAgger

        assert parts.dataset is not None
        assert parts.priorities is not None
        return DAgger(
            parts.student,
            parts.dataset.fields,
            self.method,
            self.seed("DAgger"),
            world=parts.world(self.method.num_envs),
            teacher=parts.teacher,
            priorities=parts.priorities,
            folder=parts.folder / AGGREGATED,
        )


@dataclass(frozen=True, kw_only=True)
class Collection(Job):
    """The collection of a dataset."""

    flag = "C_data"
    title = "collect a dataset"

    collection: Settings.CollectionSettings
    noise: TeacherNoiseConfig


JOBS: dict[str, type[Job]] = {
    job.flag: job
    for job in (
        PPDExperiment,
        Collection,
        StudentDistillationExperiment,
        TeacherDistillationExperiment,
        CloningExperiment,
        DAggerExperiment,
    )
}
EXPERIMENTS = {flag: job for flag, job in JOBS.items() if issubclass(job, Experiment)}


def task_of(job: Job) -> Task:
    """Return a job's task, as its student sees it and in the job's views; raises `BadInput` if one of these does not exist."""
    seen = find_task(job.world.task).seen_by(job.world.cameras, job.world.frames)
    return replace(seen, views=find_views(job.world.views))


def in_names(value: Any) -> str:
    """Return a number, a schedule or another text as names of folders have it."""
    return f"{value:g}" if isinstance(value, int | float) else value.replace(":", "-").replace("@", "at")


def world_suffix(job: Job) -> str:
    """Return what names of folders say of a job's cameras, views, episodes and backend, where they are not the usual ones."""
    views = "" if job.world.views == "none" else f"_{views_name(job.world.views)}"
    steps = f"_{job.world.episode_steps}steps" if job.world.episode_steps else ""
    return task_of(job).selection + views + steps + ("_warp" if job.world.backend == "warp" else "")


def task_folder(job: Job) -> Path:
    """Return the folder of a task's results; a relative `results_dir` lies below the repository."""
    return ROOT / Path(os.path.expanduser(job.place.results_dir)) / find_task(job.world.task).name


def run_folder(job: Experiment) -> Path:
    """Return the folder of a run."""
    return task_folder(job) / job.folder / job.name


def dataset_folder(job: Job, noise: TeacherNoiseConfig, samples: int) -> Path:
    """Return the folder of a dataset; the teacher's noise and `world_suffix` are part of its name."""
    size = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    suffix = "" if noise == TeacherNoiseConfig() else f"_noise{noise.teacher_noise:g}_{noise.noise_correlation:g}"
    return task_folder(job) / "Teacher" / f"dataset_{size}{suffix}{world_suffix(job)}"
