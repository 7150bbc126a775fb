"""What an experiment is: groups of settings, a folder, and the trainer they make."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from Algorithm.Config import (
    CloningConfig,
    DAggerConfig,
    OnlineDistillationConfig,
    PPDConfig,
    PPOConfig,
    StudentDistillationConfig,
    TeacherNoiseConfig,
    TrainingConfig,
    WandbSettings,
)
from Algorithm.seeds import training_seed
from Common.Errors import BadSetting
from Common.Files import ROOT
from Common.Settings import FREE, Composed
from Distillation.Settings import (
    CollectionSettings,
    DatasetSettings,
    LogSettings,
    ParentSettings,
    PlaceSettings,
    StudentSettings,
    TestSettings,
    WorldSettings,
)
from Enviroment.Tasks import find_task

if TYPE_CHECKING:  # the command line answers before PyTorch is loaded
    from Algorithm.Dataset import Dataset
    from Algorithm.Training import Trainer
    from Enviroment.World import World
    from Models.Base_Model import ActorCritic
    from Models.Model_Pusher import Teacher

LAST = Path("checkpoints") / "last.pt"  # in a run's folder
AGGREGATED = "aggregated"  # folder of DAgger's rollouts, in the run's folder


@dataclass(frozen=True)
class Parts:
    """What a trainer is made of.

    Attributes:
        student: the network, on its device.
        teacher: the teacher, likewise.
        world: makes this rank's share of so many environments.
        folder: the run's folder.
        dataset: for cloning and DAgger.
        priorities: of the dataset, as cloning left them to DAgger.
    """

    student: "ActorCritic"
    teacher: "Teacher"
    world: Callable[[int], "World"]
    folder: Path
    dataset: "Dataset | None" = None
    priorities: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Job(Composed):
    """Whatever `Pusher.py` does."""

    flag: ClassVar[str]  # the method's, without dashes
    title: ClassVar[str]  # for the command line's help
    inherits: ClassVar[bool] = False  # whether inherited settings come from another run and are no flags

    world: WorldSettings
    place: PlaceSettings

    @classmethod
    def flags(cls) -> dict[str, dataclasses.Field]:
        """Return the settings that are flags."""
        return {
            name: field for name, field in cls.settings().items() if not (cls.inherits and field.metadata["inherited"])
        }

    @classmethod
    def free(cls) -> set[str]:
        """Return the settings that may change when a run is resumed."""
        return cls.named(*FREE)


@dataclass(frozen=True, kw_only=True)
class Experiment(Job):
    """A run that trains a student."""

    called: ClassVar[str]  # in tables and plots

    method: TrainingConfig
    student: StudentSettings
    test: TestSettings
    log: LogSettings
    wandb: WandbSettings

    @property
    def folder(self) -> str:
        """The method's folder."""
        raise NotImplementedError

    @property
    def default_name(self) -> str:
        """The run's folder in there, unless it is given a name."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The run's name and folder."""
        return self.log.run_name or self.default_name

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
            self.check_sight()

    def check_sight(self) -> None:
        """Raise `BadSetting` for settings of a backbone that the student does not have."""
        values = self.flat()
        for name, field in self.settings().items():
            if self.student.mode == "State" and field.metadata["sees"] and values[name] != field.default:
                raise BadSetting(f"{name} is for students that see: mode ImpaalaSmall, ImpaalaMid or ImpaalaBig")


@dataclass(frozen=True, kw_only=True)
class OnPolicyExperiment(Experiment):
    """A run of a method that learns from rollouts."""

    method: PPOConfig

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

    flag = called = folder = "PPD"
    title = "proximal policy distillation"

    method: PPDConfig

    @property
    def default_name(self) -> str:
        """Named by lambda."""
        return f"lambda{self.method.PPD_parameter:g}_{self.student.mode}_run{self.student.run_index}"

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
    folder = "StudentDistillation"

    method: StudentDistillationConfig

    @property
    def default_name(self) -> str:
        """Named by the weight of the reward."""
        return f"rl{self.method.rl_coef:g}_{self.student.mode}_run{self.student.run_index}"

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
    folder = "TeacherDistillation"

    method: OnlineDistillationConfig
    noise: TeacherNoiseConfig

    @property
    def default_name(self) -> str:
        """Named by the teacher's noise."""
        return f"noise{self.noise.teacher_noise:g}_{self.student.mode}_run{self.student.run_index}"

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

    method: CloningConfig
    data: DatasetSettings
    noise: TeacherNoiseConfig

    @property
    def folder(self) -> str:
        """One folder for each loss."""
        return f"OurAlgorithm1_{self.method.loss_type}/Phase_One"

    @property
    def default_name(self) -> str:
        """Named by dataset, alpha, loss and student."""
        method, student = self.method, self.student
        alpha = f"{method.alpha:g}" if method.mode_alpha == "constant" else method.mode_alpha
        return f"{self.data.dataset}_alpha{alpha}_{method.loss_type}_{student.mode}_run{student.run_index}"

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
    inherits = True

    method: DAggerConfig
    data: ParentSettings
    noise: TeacherNoiseConfig

    @property
    def folder(self) -> str:
        """One folder for each loss."""
        return f"OurAlgorithm1_{self.method.loss_type}/Phase_Two"

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

    collection: CollectionSettings
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


def task_folder(job: Job) -> Path:
    """Return the folder of a task's results; a relative `results_dir` lies below the repository."""
    return ROOT / Path(job.place.results_dir).expanduser() / find_task(job.world.task).name


def dataset_folder(job: Job, noise: TeacherNoiseConfig, samples: int) -> Path:
    """Return the folder of a dataset; the teacher's noise is part of its name unless it is the default."""
    size = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    suffix = "" if noise == TeacherNoiseConfig() else f"_noise{noise.teacher_noise:g}_{noise.noise_correlation:g}"
    return task_folder(job) / "Teacher" / f"dataset_{size}{suffix}"
