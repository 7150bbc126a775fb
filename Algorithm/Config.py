"""Settings of the algorithms, in a file of their own so that a command line reads them without loading PyTorch."""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from Algorithm.Schedules import falling, schedule
from Common.Errors import BadSetting
from Common.Settings import Settings, changed, setting

# The transforms of `Algorithm/Augmentation.py`, and the largest amount of each.
AUGMENTATIONS = {"shift": 16.0, "crop": 0.9, "brightness": 255.0, "contrast": 1.0, "noise": 255.0, "cutout": 64.0}
PIXELS = {"shift", "cutout"}  # their amounts are whole numbers


def transforms(augment: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield name and amount of each transform; raises `BadSetting` for one that is not `name=amount` within its limits."""
    names = [text.partition("=")[0] for text in augment]
    for name, text in zip(names, augment):
        amount = text.partition("=")[2]
        if names.count(name) > 1:
            raise BadSetting(f"augment {name}: it is given {names.count(name)} times; once is needed")
        if name not in AUGMENTATIONS:
            raise BadSetting(f"augment {text!r}: one of {', '.join(AUGMENTATIONS)} is needed before =")
        try:
            value = float(amount)
        except ValueError:
            value = 0.0
        whole = name in PIXELS
        if not 0 < value <= AUGMENTATIONS[name] or (whole and value % 1):
            kind = "a whole number" if whole else "a number"
            raise BadSetting(
                f"augment {text!r}: {name}= and {kind} above 0, at most {AUGMENTATIONS[name]:g}, is needed"
            )
        yield name, value


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """Settings of every method."""

    optimization_steps: int = setting(100_000, "gradient updates to do", at_least=1)
    learning_rate: float = setting(1e-3, "Adam's learning rate at the start; it falls along half a cosine", above=0)
    learning_rate_end: float = setting(1e-6, "learning rate of the last update", at_least=0)
    minibatch_size: int = setting(72, "samples in an update", at_least=2, at_most=1_000_000)
    max_grad_norm: float = setting(0.5, "gradients are clipped to this norm", above=0)
    window: int = setting(
        16,
        "steps of a sequence, through which a student with a memory learns",
        at_least=1,
        at_most=1_000,
        inherited=True,
    )
    hidden_state: float = setting(
        0.0,
        "weight of predicting, from the student's features, the state entries that proprioception lacks; 0: not at all",
        at_least=0,
        sees=True,
        inherited=True,
    )
    augment: tuple[str, ...] = setting(
        (),
        "random changes of training frames, such as shift=2 brightness=20 contrast=0.2 noise=5 crop=0.1 cutout=16",
        sees=True,
    )

    def check(self) -> None:
        """Raise `BadSetting` for the first setting that violates a limit."""
        super().check()
        for _ in transforms(self.augment):
            pass

    def check_sequences(self) -> None:
        """Raise `BadSetting` where a student with a recurrent state cannot learn from sequences of `window` steps."""
        if self.minibatch_size < self.window:
            raise BadSetting(f"minibatch_size {self.minibatch_size}: at least window {self.window} is needed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOConfig(TrainingConfig):
    """Settings of the paper this project builds on (Spigler 2025, table of hyperparameters), with smaller rollouts and
    minibatches and a larger learning rate, which learn more from as many samples (Results/README.md)."""

    num_envs: int = setting(18, "environments that are stepped together", at_least=1, at_most=10_000)
    rollout_steps: int = setting(16, "steps of every environment between updates", at_least=1, at_most=100_000)
    gamma: float = setting(0.999, "discount", at_least=0, at_most=1)
    gae_lambda: float = setting(0.9, "lambda of the advantage estimate", at_least=0, at_most=1)
    clip: float = setting(0.3, "PPO's clip range, of ratio and value", above=0)
    value_coefficient: float = setting(1.0, "weight of the value loss", at_least=0)
    entropy_coefficient: float | str = setting(0.0, "weight of the entropy bonus", at_least=0, parse=schedule)
    epochs: int = setting(4, "passes over a rollout", at_least=1)
    critic: Literal["same", "state"] = setting(
        "same", "what the critic is given: what the student sees, or the state", choices=("same", "state"), sees=True
    )

    critic_warmup: int = setting(0, "updates at the beginning in which the critic alone learns", at_least=0)

    def check(self) -> None:
        """Raise `BadSetting` for the first setting that violates a limit."""
        super().check()
        if self.critic_warmup >= self.optimization_steps:
            raise BadSetting(f"critic_warmup {self.critic_warmup}: fewer than optimization_steps is needed")
        if (self.rollout_steps * self.num_envs) % self.minibatch_size == 1:
            raise BadSetting(f"minibatch_size {self.minibatch_size} leaves a last minibatch of 1 sample")

    def check_sequences(self) -> None:
        """Raise `BadSetting` unless a rollout is made of whole windows."""
        super().check_sequences()
        if self.rollout_steps % self.window:
            wanted = f"with memory gru a multiple of window {self.window} is needed"
            raise BadSetting(f"rollout_steps {self.rollout_steps}: {wanted}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPDConfig(PPOConfig):
    """Settings of proximal policy distillation."""

    PPD_parameter: float | str = setting(
        5.0, "lambda: what imitation weighs against reward in PPD", at_least=0, parse=schedule
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineDistillationConfig(PPOConfig):
    """Settings that student and teacher distillation share: short rollouts, all of them in a minibatch."""

    rollout_steps: int = changed(PPOConfig, "rollout_steps", 5)
    minibatch_size: int = changed(PPOConfig, "minibatch_size", 90)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentDistillationConfig(OnlineDistillationConfig):
    """Settings of student distillation."""

    rl_coef: float | str = setting(1.0, "weight of the PPO loss beside imitation", at_least=0, parse=schedule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherNoiseConfig(Settings):
    """Noise of a teacher that drives, so that its corrections are seen. DART (Laskey et al. 2017,
    https://arxiv.org/abs/1703.09327) fits such noise to the student."""

    teacher_noise: float = setting(
        3.0, "the teacher drives with its standard deviation times this; 0: its mean", at_least=0, inherited=True
    )
    noise_correlation: float = setting(
        0.0, "correlation of that noise from one step to the next", at_least=0, at_most=0.999, inherited=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloningConfig(TrainingConfig):
    """Settings of behavioural cloning, with prioritized replay (Schaul et al. 2016, https://arxiv.org/abs/1511.05952)."""

    loss_type: Literal["NLL", "KL"] = setting(
        "NLL", "NLL of the teacher's mean action, or KL from its policy", choices=("NLL", "KL"), inherited=True
    )
    alpha: float = setting(0.0, "how much priorities weigh in sampling; 0: not at all", at_least=0)
    mode_alpha: str = setting("constant", "alpha's schedule", choices=("constant", "linear"))
    beta: float = setting(
        0.4, "importance weights correct the sampling by this much, and fully at the end", at_least=0, at_most=1
    )
    minibatch_size: int = changed(TrainingConfig, "minibatch_size", 64)
    learning_rate: float = changed(TrainingConfig, "learning_rate", 3e-3)
    weight_decay: float = setting(1e-4, "AdamW's", at_least=0)
    max_grad_norm: float = changed(TrainingConfig, "max_grad_norm", 1.0)

    def check(self) -> None:
        """Raise `BadSetting` for the first setting that violates a limit."""
        super().check()
        if self.mode_alpha != "constant" and self.alpha != 0:
            raise BadSetting(f"alpha {self.alpha}: mode_alpha constant is needed, not {self.mode_alpha}")

    def check_sequences(self) -> None:
        """Raise `BadSetting` for priorities, which are of single samples."""
        super().check_sequences()
        for name, only in (("alpha", 0), ("mode_alpha", "constant")):
            if getattr(self, name) != only:
                raise BadSetting(f"{name} {getattr(self, name)}: with memory gru {only} is needed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DAggerConfig(CloningConfig):
    """Settings of DAgger (Ross et al. 2011, https://arxiv.org/abs/1011.0686)."""

    mode_alpha: str = changed(
        CloningConfig, "mode_alpha", "constant", choices=("constant", "linear", "dynamic_mean", "dynamic_max")
    )
    sampling: str = setting(
        "classic", "balanced: half of a batch from the dataset, half new", choices=("classic", "balanced")
    )
    num_envs: int = changed(PPOConfig, "num_envs", 25)
    rollout_samples: int = setting(2_500, "samples of a rollout, in whole episodes", at_least=1)
    rollout_updates: int = setting(5_000, "updates after every rollout", at_least=1)
    beta_mix: float | str = setting(
        0.0,
        "probability that the teacher acts; a number falls to 0 over the phase",
        at_least=0,
        at_most=1,
        parse=falling,
    )

    def check(self) -> None:
        """Raise `BadSetting` for the first setting that violates a limit."""
        super().check()
        if self.sampling == "balanced" and self.minibatch_size % 2:
            raise BadSetting(f"minibatch_size {self.minibatch_size}: an even number is needed with sampling balanced")

    def check_sequences(self) -> None:
        """Raise `BadSetting` for samples that are drawn by priorities or age."""
        super().check_sequences()
        if self.sampling != "classic":
            raise BadSetting(f"sampling {self.sampling}: with memory gru classic is needed")


def sweep_suffix() -> str:
    """Return what an agent of a W&B sweep adds to default names of runs, whose settings it chooses: W&B's id of the run."""
    run_id = os.environ.get("WANDB_RUN_ID", "") if "WANDB_SWEEP_ID" in os.environ else ""
    return re.sub(r"[^\w.+-]", "_", f"_{run_id}" if run_id else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WandbSettings(Settings):
    """Settings of Weights & Biases."""

    wandb_mode: str = setting(
        "auto",
        "auto: as W&B is set (WANDB_MODE, `wandb offline`), else online when logged in, else offline",
        choices=("auto", "online", "offline", "disabled"),
        role="machine",
    )
    wandb_entity: str | None = setting(None, "W&B entity, else WANDB_ENTITY", role="machine")
    wandb_project: str | None = setting(
        None, "W&B project, else WANDB_PROJECT, else policy-distillation", role="machine"
    )

    def check(self) -> None:
        """Raise `BadSetting` for the first setting that violates a limit."""
        super().check()
        for name in ("wandb_project", "wandb_entity"):
            if set(getattr(self, name) or "") & set("/\\#?%:"):
                raise BadSetting(f"{name} {getattr(self, name)!r}: none of / \\ # ? % : can be in it")
