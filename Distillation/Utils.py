"""What an experiment is: its settings, its command line, its folder."""

import argparse
import hashlib
import json
import re
import sys
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn

from Algorithm.Config import PPOConfig

ROOT = Path(__file__).resolve().parents[1]

# What may differ between a run and its resumption: none of it changes what is computed, `optimization_steps` only how
# far it goes.
_FREE = {"optimization_steps", "num_workers", "results_dir", "teacher", "wandb_mode", "wandb_entity", "wandb_project"}


class BadInput(ValueError):
    """The command line asks for something that cannot be; the message says what, and what would be right."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(PPOConfig):
    """Settings of a run, PPO's included; the field names are the flags, and `config.json` holds them all."""

    method: Literal["PPD"]
    mode: str = "State"
    PPD_parameter: float = 5.0
    run_index: int = 0
    device: str = "auto"
    precision: str = "auto"
    optimization_steps: int = 100_000
    test_every: int = 1_000
    episodes: int = 10
    num_envs: int = 18
    num_workers: int = 0
    render_quality: Literal["fast", "full"] = "fast"
    grid: tuple[int, int] = (4, 8)
    teacher: str | None = None
    results_dir: str = "Results"
    run_name: str | None = None
    wandb_mode: str = "auto"
    wandb_entity: str | None = None
    wandb_project: str | None = None

    @property
    def name(self) -> str:
        """The run's name and folder."""
        return self.run_name or f"lambda{self.PPD_parameter:g}_{self.mode}_run{self.run_index}"

    def check(self) -> None:
        """Raise `BadInput` for the first setting that cannot be."""
        for field in ("optimization_steps", "test_every", "episodes", "num_envs", "rollout_steps", "epochs"):
            if getattr(self, field) < 1:
                raise BadInput(f"--{field} {getattr(self, field)}: at least 1 is needed")
        if self.minibatch_size < 2 or self.rollout_steps * self.num_envs < 2:
            raise BadInput("a minibatch needs at least 2 samples: --minibatch_size and --rollout_steps x --num_envs")
        if (self.rollout_steps * self.num_envs) % self.minibatch_size == 1:
            raise BadInput(
                f"--minibatch_size {self.minibatch_size} leaves a last minibatch of 1 sample; change it by a few"
            )
        if self.episodes > 100:
            raise BadInput(f"--episodes {self.episodes}: at most 100, as the test seeds begin at 1900 and 2000")
        if self.num_workers < 0:
            raise BadInput(f"--num_workers {self.num_workers}: 0 (one for each core) or more is needed")
        for field in ("PPD_parameter", "entropy_coefficient", "value_coefficient"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise BadInput(f"--{field} {getattr(self, field)}: a finite number, 0 or more, is needed")
        for field in ("learning_rate", "max_grad_norm", "clip"):
            if not 0 < getattr(self, field) < float("inf"):
                raise BadInput(f"--{field} {getattr(self, field)}: a finite number above 0 is needed")
        for field in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, field) <= 1:
                raise BadInput(f"--{field} {getattr(self, field)}: 0 to 1 is needed")
        if min(self.grid) < 1 or max(self.grid) > 64:
            raise BadInput(f"--grid {self.grid[0]} {self.grid[1]}: two numbers from 1 to 64 are needed")
        if self.run_name is not None and not re.fullmatch(r"\w[\w.+-]*", self.run_name):
            raise BadInput(f"--run_name {self.run_name!r}: letters, digits and . _ + - only")


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with status 2."""
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        sys.exit(2)


def run_folder(config: ExperimentConfig, task: str) -> Path:
    """Return where a run is written; a relative `results_dir` lies below the repository."""
    return ROOT / Path(config.results_dir).expanduser() / task / config.method / config.name


def describe(config: ExperimentConfig, task: str, teacher: Path, camera: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `config.json`: settings, task, what is rendered, teacher and package versions."""
    packages = ("torch", "gymnasium", "mujoco", "numpy")
    description = {
        **asdict(config),
        "task": task,
        "teacher_sha256": hashlib.sha256(teacher.read_bytes()).hexdigest(),
        "render": {"quality": config.render_quality, **camera},
        "versions": {"python": sys.version.split()[0], **{package: version(package) for package in packages}},
    }
    return json.loads(json.dumps(description))  # as it will be read back, for comparison with an earlier one


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of a run's folder, which is made if need be, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def check_folder(folder: Path, description: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Refuse what would lose a run, or continue it as another one.

    Raises:
        BadInput: see the messages.
    """
    written = folder / "config.json"
    if resume and overwrite:
        raise BadInput("--resume and --overwrite: one continues the run, the other replaces it; give one")
    if not resume:
        if folder.exists() and not overwrite:
            state = "finished" if (folder / "summary.json").is_file() else "unfinished"
            raise BadInput(f"{folder} holds a {state} run: --resume continues it, --overwrite replaces it")
        return
    if not written.is_file() or not (folder / "checkpoints" / "last.pt").is_file():
        raise BadInput(f"--resume: nothing to resume in {folder}")
    try:
        before = json.loads(written.read_text())
    except ValueError:
        raise BadInput(f"--resume: {written} is damaged; --overwrite starts the run anew") from None
    keys = ({field.name for field in fields(ExperimentConfig)} - _FREE) | {"task", "teacher_sha256", "render"}
    differences = [
        f"{key} was {json.dumps(before.get(key))}" for key in sorted(keys) if before.get(key) != description[key]
    ]
    if differences:
        raise BadInput(f"--resume: the run in {folder} has other settings: {', '.join(differences)}")
