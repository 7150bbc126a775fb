"""What an experiment is: its settings, its command line, its folder."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from Algorithm.Config import (
    CloningConfig,
    DAggerConfig,
    PPDConfig,
    PPOConfig,
    StudentDistillationConfig,
    TeacherDistillationConfig,
    TeacherNoiseConfig,
    TrainingConfig,
)
from Common.Command_line import NAME
from Common.Errors import BadInput, BadSetting
from Common.Files import ROOT, file_hash, plain
from Common.Machine import versions
from Common.Settings import Settings, changed, setting
from Enviroment.Tasks import TASKS

LAST = Path("checkpoints") / "last.pt"  # in a run's folder
NOISE = tuple(field.name for field in dataclasses.fields(TeacherNoiseConfig))
DATASET_SIZES = {"5k": 5_000, "10k": 10_000, "50k": 50_000, "100k": 100_000}


@dataclass(frozen=True, kw_only=True)
class CommonConfig(Settings):
    """Settings of whatever `Pusher.py` does; the field names are the flags, and `config.json` holds them all."""

    method: ClassVar[str]  # its flag
    title: ClassVar[str]
    # What may differ between a run and its resumption: none of it changes what is computed.
    free: ClassVar[frozenset[str]] = frozenset(
        {"num_workers", "results_dir", "teacher", "quiet", "video_every", "checkpoint_every"}
        | {"wandb_mode", "wandb_entity", "wandb_project"}
    )
    inherited: ClassVar[frozenset[str]] = frozenset()  # settings that another run decides: no flags

    task: str = setting("Pusher", "task; its teacher is the one in Results/<task>/Teacher", choices=tuple(TASKS))
    device: str = setting("auto", "auto (cuda if there is one), cpu, cuda or cuda:N")
    num_workers: int = setting(0, "processes that step the environments; 0: one for each core", at_least=0)
    render_quality: Literal["fast", "full"] = setting("fast", "of the frames", choices=("fast", "full"))
    teacher: str | None = setting(None, "teacher file; the task's unless given")
    results_dir: str = setting("Results", "where results are written; relative to the repository")
    quiet: bool = setting(False, "show nothing but errors")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(CommonConfig, TrainingConfig):
    """Settings of every run that trains a student."""

    mode: str = setting("State", "student", choices=("State", "ImpaalaSmall", "ImpaalaMid", "ImpaalaBig"))
    run_index: int = setting(0, "chooses the run's seeds", choices=range(6))
    precision: str = setting(
        "auto", "of the backbone; auto: bf16 where the hardware has it", choices=("auto", "fp32", "bf16")
    )
    test_every: int = setting(
        1_000, "updates between tests, which wait for the end of a rollout (BC and DAgger: of 100 updates)", at_least=1
    )
    episodes: int = setting(10, "test episodes on each of the two sets of seeds", at_least=1, at_most=100)
    final_episodes: int = setting(100, "OD episodes of the closing figures", at_least=1, at_most=100)
    video_every: int = setting(
        10_000, "updates between videos of a test, beside the one that closes the run; 0: none", at_least=0
    )
    checkpoint_every: float = setting(
        30.0, "seconds between checkpoints, or more where writing them would take 2 % of the time", at_least=0
    )
    stack: int = setting(4, "frames the student sees at once, of every second step", at_least=1, at_most=16)
    grid: tuple[int, int] = setting((4, 8), "rows and columns the backbone pools to", at_least=1, at_most=64)
    run_name: str | None = setting(None, "folder of the run, instead of one made from the settings")
    wandb_mode: str = setting(
        "auto", "auto: online when logged in, else offline", choices=("auto", "online", "offline", "disabled")
    )
    wandb_entity: str | None = setting(None, "W&B entity, else WANDB_ENTITY")
    wandb_project: str | None = setting(None, "W&B project, else WANDB_PROJECT, else policy-distillation")

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
        return self.run_name or self.default_name

    def check(self) -> None:
        """Raise `BadInput` for the first setting that cannot be."""
        super().check()
        for name in ("wandb_project", "wandb_entity"):
            if set(getattr(self, name) or "") & set("/\\#?%:"):
                raise BadSetting(f"{name} {getattr(self, name)!r}: none of / \\ # ? % : can be in it")
        if self.run_name is not None and not re.fullmatch(NAME, self.run_name):
            raise BadSetting(f"run_name {self.run_name!r}: letters, digits and . _ + - only")
        if "mode" not in self.inherited:
            self.check_sight()

    def check_sight(self) -> None:
        """Raise `BadInput` for settings of a backbone that the student does not have."""
        for field in dataclasses.fields(self):
            seeing = field.name in ("stack", "grid", "frame_noise", "random_shift")
            if self.mode == "State" and seeing and getattr(self, field.name) != field.default:
                raise BadSetting(
                    f"{field.name} is for students that see: --mode ImpaalaSmall, ImpaalaMid or ImpaalaBig"
                )


@dataclass(frozen=True, kw_only=True)
class PPD(PPDConfig, ExperimentConfig):
    """A run of proximal policy distillation."""

    method = "PPD"
    title = "proximal policy distillation"
    folder = "PPD"

    @property
    def default_name(self) -> str:
        """Named by lambda."""
        return f"lambda{self.PPD_parameter:g}_{self.mode}_run{self.run_index}"


@dataclass(frozen=True, kw_only=True)
class StudentDistillation(StudentDistillationConfig, ExperimentConfig):
    """A run of student distillation."""

    method = "Sdistillation"
    title = "student distillation: the student drives"
    folder = "StudentDistillation"

    @property
    def default_name(self) -> str:
        """Named by the weight of the reward."""
        return f"rl{self.rl_coef:g}_{self.mode}_run{self.run_index}"


@dataclass(frozen=True, kw_only=True)
class TeacherDistillation(TeacherDistillationConfig, ExperimentConfig):
    """A run of teacher distillation."""

    method = "Tdistillation"
    title = "teacher distillation: the teacher drives"
    folder = "TeacherDistillation"

    @property
    def default_name(self) -> str:
        """Named by how noisily the teacher drives."""
        return f"noise{self.teacher_noise:g}_{self.mode}_run{self.run_index}"


@dataclass(frozen=True, kw_only=True)
class Cloning(CloningConfig, ExperimentConfig, TeacherNoiseConfig):
    """A run of behavioural cloning."""

    method = "BC_phase"
    title = "behavioural cloning of a dataset"
    free = ExperimentConfig.free | {"collect"}

    dataset: str = setting("100k", "size of the dataset", choices=tuple(DATASET_SIZES))
    collect: bool = setting(False, "collect the dataset if it is not there")

    @property
    def folder(self) -> str:
        """One folder for each loss."""
        return f"OurAlgorithm1_{self.loss_type}/Phase_One"

    @property
    def default_name(self) -> str:
        """Named by dataset, alpha, loss and student."""
        alpha = f"{self.alpha:g}" if self.mode_alpha == "constant" else self.mode_alpha
        return f"{self.dataset}_alpha{alpha}_{self.loss_type}_{self.mode}_run{self.run_index}"


@dataclass(frozen=True, kw_only=True)
class DAgger(DAggerConfig, ExperimentConfig, TeacherNoiseConfig):
    """A run of DAgger, which continues one of behavioural cloning."""

    method = "Dagger_phase"
    title = "DAgger: goes on from a run of behavioural cloning"
    free = ExperimentConfig.free | {"folder_Dagger", "parent"}  # the student it holds counts, not where it lies
    inherited = frozenset({"mode", "loss_type", "dataset", "run_index", "render_quality", "grid", "stack", *NOISE})

    dataset: str = setting("100k", "size of the dataset", choices=tuple(DATASET_SIZES))
    folder_Dagger: str | None = setting(None, "folder of the behavioural cloning run that DAgger goes on from")
    start: str = setting("best_ID", "which of that run's checkpoints", choices=("best_ID", "last"))

    @property
    def folder(self) -> str:
        """One folder for each loss."""
        return f"OurAlgorithm1_{self.loss_type}/Phase_Two"

    @property
    def default_name(self) -> str:
        """Named by its parent, alpha and sampling."""
        assert self.folder_Dagger is not None
        alpha = f"alpha{self.alpha:g}" if self.mode_alpha == "constant" else self.mode_alpha
        return f"{Path(self.folder_Dagger).name}_{alpha}_{self.sampling}"


@dataclass(frozen=True, kw_only=True)
class Collection(CommonConfig, TeacherNoiseConfig):
    """Collecting a dataset."""

    method = "C_data"
    title = "collect a dataset"

    num_data: int = setting(100_000, "samples, rounded up to whole episodes", at_least=1)
    num_envs: int = changed(PPOConfig, "num_envs", 50)
    export_minari: str | None = setting(None, "also write the dataset there as a Minari dataset")


METHODS: dict[str, type[CommonConfig]] = {
    config.method: config for config in (PPD, Collection, TeacherDistillation, StudentDistillation, Cloning, DAgger)
}


def task_folder(config: CommonConfig) -> Path:
    """Return where the task's results are; a relative `results_dir` lies below the repository."""
    return ROOT / Path(config.results_dir).expanduser() / config.task


def dataset_folder(config: "Collection | Cloning | DAgger", samples: int) -> Path:
    """Return where a dataset of so many samples is; how its teacher drove is in the name, unless as usual."""
    size = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    driven = [getattr(config, name) for name in NOISE]
    usual = [getattr(TeacherNoiseConfig, name) for name in NOISE]
    noise = "" if driven == usual else "_noise" + "_".join(f"{value:g}" for value in driven)
    return task_folder(config) / "Teacher" / f"dataset_{size}{noise}"


def describe(config: CommonConfig, teacher: Path, render: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `config.json`: settings, what is rendered, teacher, the versions of packages and of this code."""
    description = {
        "method": config.method,
        **dataclasses.asdict(config),
        "teacher_sha256": file_hash(teacher),
        "render": render,
        "versions": versions(ROOT),
    }
    return plain(description)  # as it will be read back, for comparison with an earlier one


def check_folder(folder: Path, resume: bool, overwrite: bool) -> bool:
    """Refuse what would lose a run, or continue what is not there; returns whether there is something to go on with.

    A run that was cut off before its first checkpoint is begun again.

    Raises:
        BadInput: see the messages.
    """
    if resume and overwrite:
        raise BadInput("--resume and --overwrite: one continues the run, the other replaces it; give one")
    if resume and not (folder / "config.json").is_file():
        raise BadInput(f"--resume: nothing to resume in {folder}")
    saved = (folder / LAST).is_file()
    if folder.exists() and not (resume or overwrite):
        raise BadInput(f"{folder} holds a run: --resume continues it, --overwrite replaces it")
    return resume and saved
