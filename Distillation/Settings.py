"""The groups of settings that experiments are composed of; each setting is a flag and an entry of `config.json`."""

from dataclasses import dataclass
from typing import Literal

from Algorithm.Config import PPOConfig
from Algorithm.seeds import RUN_INDICES
from Common.Command_line import check_name
from Common.Machine import PRECISIONS
from Common.Settings import Settings, changed, setting
from Enviroment.Task import KINDS

MODES = ("State", "ImpaalaSmall", "ImpaalaMid", "ImpaalaBig")
# Settings that say what a student is and what it sees; one of the state alone has the first three.
SIGHT = (
    "task",
    "mode",
    "memory",
    "cameras",
    "frames",
    "render_quality",
    "proprioception",
    "stack",
    "grid",
    "background",
)
DATASET_SIZES = {"5k": 5_000, "10k": 10_000, "50k": 50_000, "100k": 100_000}


@dataclass(frozen=True, kw_only=True)
class WorldSettings(Settings):
    """The environments."""

    task: str = setting("Pusher", "a task's name, package.module:NAME, or path/to/file.py:NAME")
    cameras: tuple[str, ...] = setting(
        (), "the task's cameras that are seen; its first unless given", sees=True, inherited=True
    )
    frames: str = setting(
        "own", "what all of them show; own: each camera's own", choices=("own", *KINDS), sees=True, inherited=True
    )
    backend: str = setting(
        "workers",
        "what simulates and renders: worker processes, or MuJoCo Warp on the device; auto: warp on a GPU where it can",
        choices=("auto", "workers", "warp"),
        inherited=True,
    )
    num_workers: int = setting(
        0,
        "processes of environments, with backend warp of tests alone; 0: one for each core",
        at_least=0,
        role="machine",
    )
    render_quality: Literal["fast", "full"] = setting(
        "fast", "full draws shadows, reflections and multisampling", choices=("fast", "full"), inherited=True
    )
    views: str = setting(
        "none",
        "what differs from episode to episode: none, small, large, or a .toml file of ranges (docs/views.md)",
        inherited=True,
    )
    episode_steps: int = setting(
        0,
        "steps after which episodes of training and of datasets are cut off, for more starts among as many samples; tests "
        "have the task's own episodes, as 0 has throughout",
        at_least=0,
        inherited=True,
    )


@dataclass(frozen=True, kw_only=True)
class PlaceSettings(Settings):
    """The machine and the files."""

    device: str = setting("auto", "auto (cuda if there is one), cpu, cuda or cuda:N", role="seed")
    teacher: str | None = setting(
        None,
        "teacher file, package.module:function or path/to/file.py:function; Results/<task>/Teacher/teacher.pt unless given",
        role="machine",
    )
    results_dir: str = setting("Results", "where results are written; relative to the repository", role="place")
    quiet: bool = setting(False, "show nothing but errors", role="machine")


@dataclass(frozen=True, kw_only=True)
class StudentSettings(Settings):
    """The student."""

    mode: str = setting("State", "student", choices=MODES, inherited=True)
    proprioception: str = setting(
        "full",
        "what it is given beside frames; none: frames alone",
        choices=("full", "none"),
        sees=True,
        inherited=True,
    )
    run_index: int = setting(0, "chooses the run's seeds", choices=RUN_INDICES, role="seed", inherited=True)
    memory: str = setting(
        "none",
        "what it remembers beyond its frames: none, or a state carried from step to step by a gated recurrent unit",
        choices=("none", "gru"),
        inherited=True,
    )
    precision: str = setting("auto", "of the backbone; auto: bf16 where the hardware has it", choices=PRECISIONS)
    stack: int = setting(
        4,
        "frames seen at once, unless a task has another number; its stack_stride is the steps between them",
        at_least=1,
        at_most=16,
        sees=True,
        inherited=True,
    )
    grid: tuple[int, int] = setting(
        (4, 8), "rows and columns each backbone pools to", at_least=1, at_most=64, sees=True, inherited=True
    )
    background: str = setting(
        "auto",
        "subtract what stands still from its frames, learnt at the start; auto: unless views differ",
        choices=("auto", "on", "off"),
        sees=True,
        inherited=True,
    )

    @property
    def called(self) -> str:
        """What names of folders say of it."""
        return self.mode if self.memory == "none" else f"{self.mode}_{self.memory}"


@dataclass(frozen=True, kw_only=True)
class TestSettings(Settings):
    """Tests while training and at its end."""

    __test__ = False  # pytest does not collect it

    test_every: int = setting(
        1_000,
        "updates between tests, which wait for the end of a rollout (BC and DAgger: of 100 updates)",
        at_least=1,
        role="seed",
    )
    episodes: int = setting(10, "test episodes on each of the two sets of seeds", at_least=1, at_most=100)
    final_episodes: int = setting(100, "OD episodes of the closing figures", at_least=1, at_most=100)
    robustness_episodes: int = setting(
        10,
        "episodes under each shift in the closing report of robustness, fewer (2 at least) where they are longer than 100 "
        "steps; 0: no report",
        at_least=0,
        at_most=100,
        role="machine",
    )
    video_every: int = setting(
        10_000, "updates between videos, of which the last is made at the end, 0: none", at_least=0, role="machine"
    )


@dataclass(frozen=True, kw_only=True)
class LogSettings(Settings):
    """The run's folder and its checkpoints."""

    run_name: str | None = setting(None, "folder of the run, instead of one made from the settings", role="place")
    checkpoint_every: float = setting(
        30.0, "seconds between checkpoints, more where writing takes over 2 % of the time", at_least=0, role="machine"
    )

    def check(self) -> None:
        """Raise `BadSetting` for the first setting that violates a limit."""
        super().check()
        if self.run_name is not None:
            check_name("run_name", self.run_name)


@dataclass(frozen=True, kw_only=True)
class DatasetSettings(Settings):
    """The dataset of cloning."""

    dataset: str = setting("100k", "size of the dataset", choices=tuple(DATASET_SIZES), inherited=True)
    collect: bool = setting(False, "collect the dataset if it does not exist", role="machine")


@dataclass(frozen=True, kw_only=True)
class ParentSettings(Settings):
    """The run of cloning that DAgger continues."""

    dataset: str = changed(DatasetSettings, "dataset", "100k")
    folder_Dagger: str | None = setting(None, "folder of the run of --BC_phase that DAgger continues", role="place")
    start: str = setting("best_ID", "which of that run's checkpoints", choices=("best_ID", "last"))


@dataclass(frozen=True, kw_only=True)
class StartSettings(Settings):
    """The student that a run begins with."""

    start_from: str | None = setting(
        None,
        "a student's file or a run's folder, whose student is trained further; a new one unless given",
        role="place",
    )


@dataclass(frozen=True, kw_only=True)
class CollectionSettings(Settings):
    """A dataset to be collected."""

    num_data: int = setting(100_000, "samples, rounded up to whole episodes", at_least=1)
    num_envs: int = changed(PPOConfig, "num_envs", 50)
    export_minari: str | None = setting(None, "also write the dataset there as a Minari dataset")
