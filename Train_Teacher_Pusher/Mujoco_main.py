"""Train the teacher: SAC (Stable-Baselines3) on the full state, many environments, observations normalized.

The defaults are the recipe of the shipped teacher. Narrow layers and several updates a step learn fastest on a CPU: the
number of updates limits this task, not the size of each. The reward for moving the object weighs double in training, since
the task's own lets a policy hover beside the object for long. Evaluation uses the task's own.
"""

import argparse
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecEnv, VecNormalize

from Algorithm.Config import WandbSettings
from Algorithm.Logger import start_wandb
from Algorithm.Training import stop_requests
from Common.Command_line import OneLineParser, add_flag, check_name, one_line_errors, setting_as_flag
from Common.Errors import BadFile, BadInput, BadSetting, Diverged, Stopped, brief
from Common.Files import RESULTS, locked, read_json, write_json
from Common.Machine import resolve_device
from Common.Settings import Composed, Settings, differences, setting
from Enviroment.Tasks import Task, find_task
from Enviroment.Utils import make_world
from Enviroment.World import World
from Train_Teacher_Pusher.callbacks import CODE, EvaluationCallback, check_finite, finish_checkpoint
from Train_Teacher_Pusher.SaveWeights import STATISTICS


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Settings):
    """Settings of SAC."""

    task: str = setting("Pusher", "a task's name, package.module:NAME, or path/to/file.py:NAME")
    total_timesteps: int = setting(3_000_000, "environment steps in all", at_least=1, role="machine")
    seed: int = setting(0, "of every random number", at_least=0, at_most=2**32 - 1, role="seed")
    num_envs: int = setting(32, "environments stepped together", at_least=1, at_most=10_000)
    learning_rate: float = setting(1e-3, "Adam's, over the first half of training", above=0)
    learning_rate_end: float = setting(1e-4, "at the end; it falls over the second half", at_least=0)
    batch_size: int = setting(256, "samples in an update", at_least=1, at_most=1_000_000)
    gradient_steps: int = setting(8, "updates after every step of all environments", at_least=1)
    gamma: float = setting(0.98, "discount", at_least=0, at_most=1)
    tau: float = setting(0.01, "how fast the target critic follows", above=0, at_most=1)
    hidden: int = setting(128, "width of the two layers of actor and critics", at_least=1, at_most=10_000)
    buffer_size: int = setting(1_000_000, "steps that are remembered", at_least=1, at_most=100_000_000)
    learning_starts: int = setting(5_000, "random steps before the first update", at_least=0)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N", role="machine")

    def schedule(self, remaining: float) -> float:
        """Learning rate by the share of training that remains: constant, then linear over the second half."""
        return self.learning_rate_end + (self.learning_rate - self.learning_rate_end) * min(1.0, 2 * remaining)

    def check(self) -> None:
        """Check the size of the buffer as well."""
        super().check()
        if self.buffer_size < self.num_envs:
            raise BadSetting(f"buffer_size {self.buffer_size}: at least num_envs {self.num_envs} is needed")


@dataclass(frozen=True, kw_only=True)
class KeepingSettings(Settings):
    """When a run is evaluated and saved, and where."""

    eval_freq: int = setting(100_000, "steps between evaluations", at_least=1, role="machine")
    checkpoint_freq: int = setting(100_000, "steps between checkpoints", at_least=1, role="machine")
    results_dir: str | None = setting(
        None, "where runs are written; Results/<task>/Teacher/runs unless given", role="place"
    )
    run_name: str = setting("sac", "folder of the run in there", role="place")

    def check(self) -> None:
        """Check the run's name as well."""
        super().check()
        check_name("run_name", self.run_name)


@dataclass(frozen=True, kw_only=True)
class TeacherRun(Composed):
    """A run that trains a teacher; the settings are the flags."""

    sac: TeacherConfig
    keeping: KeepingSettings
    wandb: WandbSettings


def make_training_env(config: TeacherConfig) -> VecEnv:
    """Make the state-only training environments; they raise `ValueError` for a number that is not finite."""
    task = find_task(config.task)
    env = DummyVecEnv([lambda: task.make(**task.training_keywords) for _ in range(config.num_envs)])
    env.seed(config.seed)
    return VecCheckNan(env, raise_exception=True)


def make_model(config: TeacherConfig) -> SAC:
    """Build an untrained SAC."""
    return SAC(
        "MlpPolicy",
        VecNormalize(make_training_env(config), norm_obs=True, norm_reward=False),
        learning_rate=config.schedule,
        batch_size=config.batch_size,
        gamma=config.gamma,
        tau=config.tau,
        train_freq=1,
        gradient_steps=config.gradient_steps,
        learning_starts=config.learning_starts,
        buffer_size=config.buffer_size,
        policy_kwargs={"net_arch": [config.hidden, config.hidden], "optimizer_kwargs": {"fused": True}},
        seed=config.seed,
        device=config.device,
    )


def resume_model(folder: Path, config: TeacherConfig) -> SAC:
    """Continue from `last.zip` with its statistics and replay buffer; the environments start new episodes.

    Raises `BadFile` if they are missing or damaged.
    """
    finish_checkpoint(folder, "last")
    if not (folder / "last.zip").is_file():
        raise BadFile(f"{folder}: nothing was saved yet; --overwrite begins again")
    statistics_file, replay = folder / f"last_{STATISTICS}", folder / "last_replay.pkl"
    for path in (statistics_file, replay):
        if not path.is_file():
            raise BadFile(f"{path}: no such file, so the run cannot be continued")
    try:
        model = SAC.load(folder / "last.zip", device=config.device, custom_objects=dict.fromkeys(CODE, 0.0))
        model.learning_rate = config.schedule
        model._setup_lr_schedule()
        with statistics_file.open("rb") as file:
            statistics = pickle.load(file)
        statistics.set_venv(make_training_env(config))
        model.set_env(statistics, force_reset=True)
        model.load_replay_buffer(replay)
    except Exception as error:  # damaged or foreign files may break anything
        raise BadFile(f"{folder}: damaged, or not of this run ({brief(error)})") from error
    return model


def parse(argv: list[str] | None = None) -> tuple[TeacherRun, argparse.Namespace, OneLineParser]:
    """Read the command line; both spellings, `--total-timesteps` and `--total_timesteps`, are understood."""
    parser = OneLineParser(description=__doc__.splitlines()[0], allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name, field in TeacherRun.settings().items():
        add_flag(parser, list(dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])), {"": field})
    parser.add_argument("--resume", action="store_true", default=False, help="continue the run of this name")
    parser.add_argument("--overwrite", action="store_true", default=False, help="replace the run of this name")
    arguments = parser.parse_args(argv)
    run = TeacherRun.of(vars(arguments))
    try:
        run.check()
        run = run.replace(task=find_task(run.sac.task).reference)
    except BadInput as error:
        parser.error(setting_as_flag(error))
    return run, arguments, parser


def main() -> None:
    """Command line."""
    teacher_run, arguments, parser = parse()
    keeping, task = teacher_run.keeping, find_task(teacher_run.sac.task)
    results = Path(keeping.results_dir) if keeping.results_dir else RESULTS / task.name / "Teacher" / "runs"
    folder = results / keeping.run_name
    with one_line_errors(parser.prog, "the same command with --resume continues"):
        resolve_device(teacher_run.sac.device)
        if folder.exists() and not (arguments.resume or arguments.overwrite):
            raise BadInput(f"{folder} exists: --resume continues it, --overwrite replaces it, --run-name names another")
        if arguments.resume and not (folder / "config.json").is_file():
            raise BadInput(f"--resume: nothing to resume in {folder}")
        with locked(folder):
            run(teacher_run, task, arguments.resume, folder)


def run(teacher_run: TeacherRun, task: Task, resume: bool, folder: Path) -> None:
    """Train a teacher, or continue to train it, and write its folder.

    Raises:
        BadInput: the run to continue has other settings.
        BadFile: it is damaged.
        Stopped: SIGINT or SIGTERM came, and everything is saved.
        Diverged: the policy is no longer finite.
    """
    config, wandb, values = teacher_run.sac, teacher_run.wandb, asdict(teacher_run.sac)
    written = folder / "config.json"
    torch.set_num_threads(1)  # layers this small gain nothing from a second thread
    before: dict[str, Any] = {}
    if resume:
        before = read_json(written)
        unlike = differences(before, values, sorted(values.keys() - TeacherRun.named("machine")))
        if unlike:
            raise BadInput(f"--resume: the run in {folder} has other settings: {unlike}")
        model = resume_model(folder, config)
    else:
        model = make_model(config)
        shutil.rmtree(folder, ignore_errors=True)
    write_json(written, values)
    about: dict[str, Any] = {"group": "Teacher", "name": teacher_run.keeping.run_name, "tags": [task.name, "SAC"]}
    about |= {"entity": wandb.wandb_entity, "project": wandb.wandb_project, "run_id": before.get("wandb_id")}
    wandb_run = start_wandb(wandb.wandb_mode, folder, values, **about)
    if wandb_run is not None:
        write_json(written, values | {"wandb_id": wandb_run.id})
    world = make_world(task, num_envs=25, num_workers=1, frames=False)
    try:
        learn(model, teacher_run, task, folder, world, wandb_run, resume)
    finally:
        world.close()
        if wandb_run is not None:
            wandb_run.finish()
    print(f"best checkpoint: {folder / 'best.zip'}; SaveWeights.py makes it the students' teacher")


def learn(
    model: SAC, teacher_run: TeacherRun, task: Task, folder: Path, world: World, wandb_run: Any, resume: bool
) -> None:
    """Train until all steps are made; raises as `run` does."""
    with stop_requests() as requests:
        callback = EvaluationCallback(model, folder, task, world, teacher_run.keeping, requests, wandb_run)
        # Stable-Baselines3 counts on from the model's steps when the counter is not reset, to `steps` more.
        steps = teacher_run.sac.total_timesteps - model.num_timesteps
        try:
            model.learn(steps, callback, reset_num_timesteps=not resume)
        except ValueError as error:  # of PyTorch's distributions or VecCheckNan, for numbers that are not finite
            check_finite(model, folder)
            raise Diverged(f"{brief(error)} at step {model.num_timesteps}; {folder} keeps what was saved") from error
        if requests:
            raise Stopped(requests[0], f"update {model._n_updates}")


if __name__ == "__main__":
    main()
