"""Settings of a teacher's training by algorithm, and how they follow from a command line and a task's recipe."""

from dataclasses import dataclass
from typing import Any

from Algorithm.Config import WandbSettings, sweep_suffix
from Common.Command_line import check_name
from Common.Errors import BadInput, BadSetting
from Common.Settings import Composed, Settings, changed, setting
from Enviroment.Tasks import Task, find_task

ALGORITHMS = ("sac", "td3", "ppo", "tqc")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Settings):
    """Settings of every algorithm."""

    task: str = setting("Pusher", "a task's name, package.module:NAME, or path/to/file.py:NAME")
    algorithm: str = setting("sac", "that trains the teacher", choices=ALGORITHMS)
    total_timesteps: int = setting(3_000_000, "environment steps in all", at_least=1, role="machine")
    seed: int = setting(0, "of every random number", at_least=0, at_most=2**32 - 1, role="seed")
    num_envs: int = setting(32, "environments stepped together", at_least=1, at_most=10_000)
    learning_rate: float = setting(1e-3, "Adam's, over the first half of training", above=0)
    learning_rate_end: float = setting(1e-4, "at the end; it falls over the second half", at_least=0)
    batch_size: int = setting(256, "samples in an update", at_least=1, at_most=1_000_000)
    gamma: float = setting(0.98, "discount", at_least=0, at_most=1)
    hidden: int = setting(128, "width of the two layers of actor and critics", at_least=1, at_most=10_000)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N", role="machine")

    def schedule(self, remaining: float) -> float:
        """Learning rate by the share of training that remains: constant, then linear over the second half.

        The share is negative after the steps beyond the total that complete PPO's last rollout.
        """
        share = min(1.0, 2 * max(0.0, remaining))
        return self.learning_rate_end + (self.learning_rate - self.learning_rate_end) * share


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig(TeacherConfig):
    """Settings of SAC, TD3 and TQC. The defaults are the recipe of the shipped teacher."""

    gradient_steps: int = setting(8, "updates after every step of all environments", at_least=1)
    tau: float = setting(0.01, "how fast the target critic follows", above=0, at_most=1)
    buffer_size: int = setting(1_000_000, "steps that are remembered", at_least=1, at_most=100_000_000)
    learning_starts: int = setting(5_000, "random steps before the first update", at_least=0)

    def check(self) -> None:
        """Check the size of the buffer as well."""
        super().check()
        if self.buffer_size < self.num_envs:
            raise BadSetting(f"buffer_size {self.buffer_size}: at least num_envs {self.num_envs} is needed")


@dataclass(frozen=True, kw_only=True)
class PPOConfig(TeacherConfig):
    """Settings of PPO. The defaults are Stable-Baselines3's, with its rollout of 2,048 steps made by 8 environments."""

    num_envs: int = changed(TeacherConfig, "num_envs", 8)
    learning_rate: float = changed(TeacherConfig, "learning_rate", 3e-4)
    learning_rate_end: float = changed(TeacherConfig, "learning_rate_end", 0.0)
    batch_size: int = changed(TeacherConfig, "batch_size", 64, at_least=2)  # advantages are normalized over it
    gamma: float = changed(TeacherConfig, "gamma", 0.99)
    n_steps: int = setting(256, "steps of every environment in a rollout", at_least=1, at_most=1_000_000)
    n_epochs: int = setting(10, "passes over a rollout", at_least=1)
    gae_lambda: float = setting(0.95, "lambda of the advantage estimate", at_least=0, at_most=1)
    clip_range: float = setting(0.2, "of the probability ratio", above=0)
    ent_coef: float = setting(0.0, "weight of the entropy bonus", at_least=0)

    def check(self) -> None:
        """Check that minibatches divide a rollout as well."""
        super().check()
        rollout = self.n_steps * self.num_envs
        if rollout % self.batch_size:
            raise BadSetting(f"batch_size {self.batch_size}: a divisor of n_steps * num_envs, {rollout}, is needed")


@dataclass(frozen=True, kw_only=True)
class KeepingSettings(Settings):
    """When a run is evaluated and saved, and where."""

    eval_freq: int = setting(100_000, "steps between evaluations", at_least=1, role="machine")
    checkpoint_freq: int = setting(100_000, "steps between checkpoints", at_least=1, role="machine")
    results_dir: str | None = setting(
        None, "where runs are written; Results/<task>/Teacher/runs unless given", role="place"
    )
    run_name: str | None = setting(None, "folder of the run in there; the algorithm's name unless given", role="place")

    def check(self) -> None:
        """Check the run's name as well."""
        super().check()
        if self.run_name is not None:
            check_name("run_name", self.run_name)


@dataclass(frozen=True, kw_only=True)
class TeacherRun(Composed):
    """A run that trains a teacher; the settings are the flags."""

    config: TeacherConfig
    keeping: KeepingSettings
    wandb: WandbSettings

    @property
    def name(self) -> str:
        """The run's name and folder."""
        return self.config.algorithm + sweep_suffix() if self.keeping.run_name is None else self.keeping.run_name


@dataclass(frozen=True, kw_only=True)
class OffPolicyRun(TeacherRun):
    """A run of SAC, TD3 or TQC."""

    config: OffPolicyConfig


@dataclass(frozen=True, kw_only=True)
class PPORun(TeacherRun):
    """A run of PPO."""

    config: PPOConfig


RUNS: dict[str, type[TeacherRun]] = {name: PPORun if name == "ppo" else OffPolicyRun for name in ALGORITHMS}


def resolve(given: dict[str, Any]) -> TeacherRun:
    """Return the run of settings by name: those given, then those of the task's recipe, then defaults.

    The recipe's settings that the algorithm does not have are left out. Raises `BadInput` if one that is given is of
    another algorithm, or if the recipe is wrong.
    """
    task = find_task(given.get("task", TeacherConfig.task))
    values = {"algorithm": TeacherConfig.algorithm} | recipe(task) | given | {"task": task.reference}
    algorithm = values["algorithm"]
    run_type = RUNS[algorithm] if algorithm in ALGORITHMS else TeacherRun  # the check refuses another
    for name in given if algorithm in ALGORITHMS else ():
        having = [other for other, its in RUNS.items() if name in its.settings()]
        if algorithm not in having:
            flag = f"--{name.replace('_', '-')}"
            raise BadInput(f"{flag} is no setting of --algorithm {algorithm}, but of {', '.join(having)}")
    run = run_type.of(values)
    try:
        run.check()
    except BadSetting as error:
        name = str(error).partition(" ")[0]
        if name in given or name not in task.training:
            raise
        raise BadInput(f"task {task.reference}: its training has {error}") from error
    return run


def recipe(task: Task) -> dict[str, Any]:
    """Return a task's `training`; raises `BadInput` for a name that is no setting, or one that a task cannot choose."""
    known = set().union(*(run.named("result", "seed", "machine") for run in RUNS.values())) - {"task"}
    for name in task.training:
        if name not in known:
            raise BadInput(
                f"task {task.reference}: its training has {name!r}; the settings are {', '.join(sorted(known))}"
            )
    return dict(task.training)
