"""Train a teacher on a task's full state by SAC, TD3, PPO or TQC; a task's recipe takes the place of some defaults.

The algorithms are Stable-Baselines3's and sb3-contrib's, with many environments and normalized observations. SAC's defaults
are the recipe of the shipped teacher. Narrow layers and several updates a step learn fastest on a CPU: the number of
updates limits this task, not the size of each. Rewards may have other weights in training (the task's
`training_keywords`); evaluation uses the task's own.
"""

import argparse
import pickle
import sys
from collections.abc import Iterator
from dataclasses import Field, asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecEnv, VecNormalize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Algorithm.Checkpoint import check_optimizer
from Algorithm.Logger import LOGGING, resolve_wandb_mode, start_wandb
from Algorithm.Training import stop_requests
from Common.Command_line import OneLineParser, add_flag, one_line_errors, setting_as_flag
from Common.Errors import BadFile, BadInput, Diverged, Stopped, brief, decoration
from Common.Files import RESULTS, begun, locked, read_json, remove_run, write_json
from Common.Machine import resolve_device
from Common.Settings import differences
from Enviroment.Tasks import Task, find_task
from Enviroment.Utils import make_world
from Enviroment.World import World
from Train_Teacher_Pusher.callbacks import CODE, EvaluationCallback, check_finite, evaluations, finish_checkpoint
from Train_Teacher_Pusher.Original import algorithm_class
from Train_Teacher_Pusher.SaveWeights import STATISTICS
from Train_Teacher_Pusher.Settings import RUNS, OffPolicyConfig, PPOConfig, TeacherConfig, TeacherRun, resolve
from Train_Teacher_Pusher.Statistics import read_statistics

FURTHER = "--resume with more --total-timesteps trains a finished one further"
# All other settings are arguments of Stable-Baselines3's classes, by the same names.
OURS = {"task", "algorithm", "total_timesteps", "num_envs", "learning_rate", "learning_rate_end", "hidden"}


def make_training_env(config: TeacherConfig) -> VecEnv:
    """Make the state-only training environments; they raise `ValueError` for a number that is not finite."""
    task = find_task(config.task)
    env = DummyVecEnv([lambda: task.make(**task.training_keywords) for _ in range(config.num_envs)])
    env.seed(config.seed)
    return VecCheckNan(env, raise_exception=True)


def arguments_of(config: TeacherConfig, action_size: int) -> dict[str, Any]:
    """Return the arguments of an algorithm's class."""
    values = {name: value for name, value in asdict(config).items() if name not in OURS}
    adam: dict[str, Any] = {"fused": True}
    if isinstance(config, PPOConfig):
        adam["eps"] = 1e-5  # its policy's own, unless there are arguments
    else:
        values["train_freq"] = 1
    if config.algorithm == "td3":  # in units of half the range of actions
        values["action_noise"] = NormalActionNoise(np.zeros(action_size), np.full(action_size, 0.1))
    networks = {"net_arch": [config.hidden, config.hidden], "optimizer_kwargs": adam}
    return values | {"learning_rate": config.schedule, "policy_kwargs": networks}


def make_model(config: TeacherConfig) -> BaseAlgorithm:
    """Build an untrained model. PPO's rewards are normalized as well, since its critic's loss shares their scale."""
    rewards = isinstance(config, PPOConfig)
    env = VecNormalize(make_training_env(config), norm_obs=True, norm_reward=rewards, gamma=config.gamma)
    arguments = arguments_of(config, env.action_space.shape[0])  # type: ignore[index]
    return algorithm_class(config.algorithm.upper())("MlpPolicy", env, **arguments)


def resume_model(folder: Path, config: TeacherConfig) -> BaseAlgorithm:
    """Continue from `last.zip` with its statistics and, if it has one, its replay buffer; environments start new episodes.

    Raises `BadFile` if they are missing or damaged.
    """
    model_file, statistics_file, replay = (folder / f"last{end}" for end in (".zip", f"_{STATISTICS}", "_replay.pkl"))
    for path in (model_file, statistics_file, *([replay] if isinstance(config, OffPolicyConfig) else [])):
        if not path.is_file():
            raise BadFile(f"{path}: no such file, so the run cannot be continued")
    kind = algorithm_class(config.algorithm.upper())
    try:
        model = kind.load(model_file, device=config.device, custom_objects=dict.fromkeys(CODE, 0.0))
        model.learning_rate = config.schedule
        model._setup_lr_schedule()
        for optimizer in optimizers(model):
            check_optimizer(optimizer)
        read_statistics(statistics_file, model.observation_space)  # type: ignore[arg-type]
        with statistics_file.open("rb") as file:
            statistics = pickle.load(file)
        statistics.set_venv(make_training_env(config))
        model.set_env(statistics, force_reset=True)
        if isinstance(model, OffPolicyAlgorithm):
            model.load_replay_buffer(replay)
    except Exception as error:  # damaged or foreign files may break anything
        raise BadFile(f"{folder}: damaged, or not of this run ({brief(error)})") from error
    return model


def optimizers(model: BaseAlgorithm) -> Iterator[torch.optim.Optimizer]:
    """Yield the optimizers of a model: the actor's, the critic's and the entropy's, or one of all."""
    for owner in (model, model.policy, getattr(model.policy, "actor", None), getattr(model.policy, "critic", None)):
        for name in ("optimizer", "ent_coef_optimizer"):
            if isinstance(optimizer := getattr(owner, name, None), torch.optim.Optimizer):
                yield optimizer


def parse(argv: list[str] | None = None) -> tuple[TeacherRun, argparse.Namespace, OneLineParser]:
    """Read the command line; both spellings, `--total-timesteps` and `--total_timesteps`, are understood."""
    parser = OneLineParser(
        description=__doc__.partition("\n")[0], allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    having: dict[str, dict[str, Field]] = {}  # [setting][algorithm]
    for algorithm, run_type in RUNS.items():
        for name, field in run_type.settings().items():
            having.setdefault(name, {})[algorithm] = field
    groups: dict[str, Any] = {}
    for name, fields in having.items():
        who = "settings" if len(fields) == len(RUNS) else f"settings of {', '.join(fields)}"
        if who not in groups:
            groups[who] = parser.add_argument_group(who)
        add_flag(groups[who], list(dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])), fields)
    parser.add_argument("--resume", action="store_true", default=False, help="continue the run of this name")
    parser.add_argument("--overwrite", action="store_true", default=False, help="replace the run of this name")
    arguments = parser.parse_args(argv)
    try:
        run = resolve({name: value for name, value in vars(arguments).items() if name in having})
    except BadInput as error:
        parser.error(setting_as_flag(error))
    return run, arguments, parser


def main() -> None:
    """Command line."""
    teacher_run, arguments, parser = parse()
    config, task = teacher_run.config, find_task(teacher_run.config.task)
    place = teacher_run.keeping.results_dir
    folder = (Path(place) if place else RESULTS / task.name / "Teacher" / "runs") / teacher_run.name
    with one_line_errors(parser.prog, "the same command with --resume continues"):
        teacher_run = teacher_run.replace(device=str(resolve_device(config.device)))
        algorithm_class(config.algorithm.upper())
        teacher_run = teacher_run.replace(wandb_mode=resolve_wandb_mode(teacher_run.wandb.wandb_mode))
        if folder.exists() and not (arguments.resume or arguments.overwrite):
            kept = "--resume continues it, --overwrite replaces it, --run-name names another"
            raise BadInput(f"{folder} exists: {kept}; {FURTHER}")
        resume = arguments.resume and begun(folder)
        with locked(folder):
            for name in ("last", "best"):
                finish_checkpoint(folder, name)
            run(teacher_run, task, resume and any(folder.glob("last*")), folder)


def run(teacher_run: TeacherRun, task: Task, resume: bool, folder: Path) -> None:
    """Train a teacher, or continue to train it, and write its folder.

    Raises:
        BadInput: the run to continue has other settings.
        BadFile: it is damaged.
        Stopped: a signal came, and everything is saved.
        Diverged: the policy is no longer finite.
    """
    config, wandb, values = teacher_run.config, teacher_run.wandb, asdict(teacher_run.config)
    written = folder / "config.json"
    torch.set_num_threads(1)  # layers this small gain nothing from a second thread
    before: dict[str, Any] = {}
    if resume:
        before = {"algorithm": "sac"} | read_json(written)  # older runs do not say it
        unlike = differences(before, values, sorted(values.keys() - teacher_run.named("machine")))
        if unlike:
            raise BadInput(f"--resume: the run in {folder} has other settings: {unlike}; {FURTHER}")
        model = resume_model(folder, config)
        evaluations(folder, model.num_timesteps)  # or damage would be noticed after config.json is written
    else:
        model = make_model(config)
        remove_run(folder)
    write_json(written, values)
    about: dict[str, Any] = {
        "group": "Teacher",
        "name": teacher_run.name,
        "tags": [task.name, config.algorithm.upper()],
    }
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
            with decoration(LOGGING):
                wandb_run.finish()
    print(f"best checkpoint: {folder / 'best.zip'}; SaveWeights.py makes it the students' teacher; {FURTHER}")


def learn(
    model: BaseAlgorithm, teacher_run: TeacherRun, task: Task, folder: Path, world: World, wandb_run: Any, resume: bool
) -> None:
    """Train until all steps are made; raises as `run` does."""
    with stop_requests() as requests:
        callback = EvaluationCallback(model, folder, task, world, teacher_run.keeping, requests, wandb_run)
        # Stable-Baselines3 counts on from the model's steps when the counter is not reset, to `steps` more.
        steps = teacher_run.config.total_timesteps - model.num_timesteps
        try:
            model.learn(steps, callback, reset_num_timesteps=not resume)
        except ValueError as error:  # of PyTorch's distributions or VecCheckNan, for numbers that are not finite
            check_finite(model, folder)
            raise Diverged(f"{brief(error)} at step {model.num_timesteps}; {folder} keeps what was saved") from error
        if requests:
            raise Stopped(requests[0], f"update {model._n_updates}")


if __name__ == "__main__":
    main()
