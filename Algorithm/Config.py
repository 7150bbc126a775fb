"""Settings of the algorithms, apart from them: the command line reads them without loading PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the paper this project builds on (Spigler 2025, table of hyperparameters)."""

    rollout_steps: int = 64
    gamma: float = 0.999
    gae_lambda: float = 0.9
    clip: float = 0.3
    value_coefficient: float = 1.0
    entropy_coefficient: float = 0.0
    epochs: int = 4
    minibatch_size: int = 256
    learning_rate: float = 3e-4
    max_grad_norm: float = 0.5
