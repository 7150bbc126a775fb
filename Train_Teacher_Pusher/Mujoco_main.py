"""Train the teacher: SAC (Stable-Baselines3) on the full state, many environments, observations normalized.

The defaults are the recipe of the shipped teacher. Narrow layers and several updates a step learn fastest on a CPU:
what limits this task is how many updates there are, not how large each is. The reward for moving the object weighs
double in training, since the task's own lets a policy hover beside the object for long; evaluation uses the task's own.
"""

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from Algorithm.Logger import start_wandb
from Distillation.Utils import OneLineParser, write_json
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_vector_env
from Models.Base_Model import BadDevice, BadFile, resolve_device
from Models.Model_Pusher import RESULTS
from Train_Teacher_Pusher.callbacks import EvaluationCallback, save_checkpoint
from Train_Teacher_Pusher.SaveWeights import load_sac


@dataclass(frozen=True)
class TeacherConfig:
    """Settings of a teacher run; the field names are the flags."""

    task: str = "Pusher"
    total_timesteps: int = 3_000_000
    seed: int = 0
    num_envs: int = 32
    learning_rate: float = 1e-3
    learning_rate_end: float = 1e-4
    batch_size: int = 256
    gradient_steps: int = 8
    gamma: float = 0.98
    tau: float = 0.01
    hidden: int = 128
    buffer_size: int = 1_000_000
    learning_starts: int = 5_000
    reward_dist_weight: float = 2.0
    device: str = "auto"

    def schedule(self, remaining: float) -> float:
        """Learning rate by the share of training that remains: constant, then linear over the second half."""
        return self.learning_rate_end + (self.learning_rate - self.learning_rate_end) * min(1.0, 2 * remaining)


HELP = {
    "task": f"one of {', '.join(TASKS)}",
    "total_timesteps": "environment steps in all",
    "num_envs": "environments stepped together",
    "learning_rate_end": "learning rate at the end; it falls over the second half",
    "gradient_steps": "updates after every step of all environments",
    "tau": "how fast the target critic follows",
    "hidden": "width of the two layers of actor and critics",
    "learning_starts": "random steps before the first update",
    "reward_dist_weight": "training's weight of the distance to the goal; 1 is the task's own, used in evaluation",
    "device": "auto, cpu, cuda or cuda:N",
}


def make_training_env(config: TeacherConfig) -> DummyVecEnv:
    """Make the state-only training environments, which need no renderer and no process of their own."""
    reward: dict[str, Any] = {} if config.reward_dist_weight == 1 else {"reward_dist_weight": config.reward_dist_weight}
    env = DummyVecEnv([lambda: gym.make(TASKS[config.task].env_id, **reward) for _ in range(config.num_envs)])
    env.seed(config.seed)
    return env


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

    Raises:
        BadFile: there is nothing whole to continue from.
    """
    model, statistics = load_sac(folder / "last.zip", config.device)
    replay = folder / "last_replay.pkl"
    if not replay.is_file():
        raise BadFile(f"{replay}: no such file, so the run cannot be continued")
    statistics.set_venv(make_training_env(config))
    model.set_env(statistics, force_reset=True)
    model.load_replay_buffer(replay)
    return model


def parse(argv: list[str] | None = None) -> tuple[TeacherConfig, argparse.Namespace, OneLineParser]:
    """Read the command line; both spellings, `--total-timesteps` and `--total_timesteps`, are understood."""
    parser = OneLineParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    for name, default in asdict(TeacherConfig()).items():
        flags = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
        parser.add_argument(
            *flags, dest=name, type=type(default), default=default, help=f"{HELP.get(name, '')} (default: {default})"
        )
    parser.add_argument("--eval-freq", type=int, default=100_000, help="steps between evaluations (default: 100000)")
    parser.add_argument(
        "--checkpoint-freq", type=int, default=500_000, help="steps between checkpoints (default: 500000)"
    )
    parser.add_argument(
        "--results-dir", type=Path, help="where runs are written (default: Results/<task>/Teacher/runs)"
    )
    parser.add_argument("--run-name", default="sac", help="folder of the run in there (default: sac)")
    parser.add_argument("--wandb_mode", choices=["auto", "online", "offline", "disabled"], default="auto")
    parser.add_argument("--wandb_entity", help="W&B entity, else WANDB_ENTITY")
    parser.add_argument("--wandb_project", help="W&B project, else WANDB_PROJECT, else policy-distillation")
    parser.add_argument("--resume", action="store_true", help="continue the run of this name")
    parser.add_argument("--overwrite", action="store_true", help="replace the run of this name")
    arguments = parser.parse_args(argv)
    config = TeacherConfig(**{name: getattr(arguments, name) for name in asdict(TeacherConfig())})
    if config.task not in TASKS:
        parser.error(f"--task {config.task}: one of {', '.join(TASKS)} is needed")
    arguments.results_dir = arguments.results_dir or RESULTS / config.task / "Teacher" / "runs"
    for name in ("total_timesteps", "num_envs", "batch_size", "gradient_steps", "hidden", "buffer_size"):
        if getattr(config, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(config, name)}: at least 1 is needed")
    if min(arguments.eval_freq, arguments.checkpoint_freq) < 1:
        parser.error("--eval-freq, --checkpoint-freq: at least 1 step is needed")
    return config, arguments, parser


def main() -> None:
    """Command line."""
    config, arguments, parser = parse()
    folder = arguments.results_dir / arguments.run_name

    try:
        resolve_device(config.device)
    except BadDevice as error:
        parser.error(str(error))
    written = folder / "config.json"
    before: dict[str, Any] = {}
    if arguments.resume:
        if not written.is_file():
            parser.error(f"--resume: nothing to resume in {folder}")
        before = json.loads(written.read_text())
        differences = {k: v for k, v in asdict(config).items() if k != "device" and v != before.get(k)}
        differences.pop("total_timesteps", None)  # more of the same
        if differences:
            parser.error(
                f"--resume: the run has other settings: {', '.join(f'{k} {before.get(k)}' for k in differences)}"
            )
    elif folder.exists() and not arguments.overwrite:
        parser.error(f"{folder} exists: --resume continues it, --overwrite replaces it, --run-name names another")

    torch.set_num_threads(1)  # layers this small gain nothing from a second thread
    try:
        model = resume_model(folder, config) if arguments.resume else make_model(config)
    except BadFile as error:
        parser.error(str(error))
    if not arguments.resume:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(written, asdict(config))

    run = start_wandb(
        arguments.wandb_mode,
        folder,
        asdict(config),
        group="Teacher",
        name=arguments.run_name,
        tags=[config.task, "SAC"],
        entity=arguments.wandb_entity,
        project=arguments.wandb_project,
        run_id=before.get("wandb_id"),
    )
    if run is not None:
        write_json(written, asdict(config) | {"wandb_id": run.id})
    env = make_vector_env(TASKS[config.task], num_envs=25, num_workers=1, frames=False)
    callback = EvaluationCallback(
        model, folder, TASKS[config.task], env, arguments.eval_freq, arguments.checkpoint_freq, run
    )
    try:
        # Stable-Baselines3 counts on from where it was when the counter is not reset, to `total` more steps.
        model.learn(config.total_timesteps - model.num_timesteps, callback, reset_num_timesteps=not arguments.resume)
    except KeyboardInterrupt:
        save_checkpoint(model, folder, "last", replay=True)
        print(f"stopped; the same command with --resume goes on from step {model.num_timesteps}")
    finally:
        env.close()
        if run is not None:
            run.finish()
    print(f"best checkpoint: {folder / 'best.zip'}; SaveWeights.py makes it the students' teacher")


if __name__ == "__main__":
    main()
