"""A run's checkpoint: written whole or not at all, and read without executing anything."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from Common.Errors import BadFile
from Common.Files import load_tensors, save_tensors


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue exactly.

    Attributes:
        trainer: its `state_dict`.
        student: the policy's name, its `arguments` and its `card`.
        settings: the run's `config.json`.
        elapsed_s: seconds of training so far, without tests.
        best_return: of the tests on ID seeds.
        next_test: the update of the next test.
        rows: of `metrics.csv`; `rows_crc32` is their checksum.
        wandb_id: the id under which W&B knows the run.
        collapse: the state of a `CollapseWatch`.
    """

    trainer: dict
    student: dict
    settings: dict
    elapsed_s: float
    best_return: float
    next_test: int
    rows: int
    rows_crc32: int
    wandb_id: str | None
    collapse: list

    @property
    def updates(self) -> int:
        """Updates made so far."""
        return self.trainer["counters"][0]

    @property
    def policy(self) -> dict[str, Any]:
        """The content of a student's file with this checkpoint's student."""
        return {"format": "student", **self.student, "weights": self.trainer.get("student")}

    def save(self, path: Path) -> None:
        """Write it; the previous checkpoint stays until the new one is whole."""
        save_tensors(path, "checkpoint", {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint; raises `BadFile` if it is missing, damaged, or of another kind or version."""
        content = load_tensors(path, "checkpoint")
        kinds = {name: get_args(kind) or kind for name, kind in get_type_hints(cls).items()}
        for name, kind in kinds.items():
            if name not in content or not isinstance(content[name], kind):
                raise BadFile(f"{path}: not a complete checkpoint (no {name})")
        if not all(isinstance(content["student"].get(name), dict) for name in ("arguments", "card")):
            raise BadFile(f"{path}: not a complete checkpoint (no student)")
        counters = content["trainer"].get("counters")
        if not isinstance(counters, list) or len(counters) != 3 or not all(isinstance(n, int) for n in counters):
            raise BadFile(f"{path}: not a complete checkpoint (no counters)")
        return cls(**{name: content[name] for name in kinds})


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise `ValueError` unless a state that was loaded fits: PyTorch would notice it in the middle of the next update."""
    for group in optimizer.param_groups:
        for name, own in optimizer.defaults.items():
            value = group[name]
            numbers, own_numbers = (each if isinstance(each, tuple | list) else (each,) for each in (value, own))
            alike = len(numbers) == len(own_numbers) and all(map(_alike, numbers, own_numbers))
            if not alike:
                raise ValueError(f"an optimizer's {name} is {value}")
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, torch.Tensor) or value.shape not in (parameter.shape, torch.Size()):
                raise ValueError(f"an optimizer's {name} does not fit its weights")


def _alike(value: Any, own: Any) -> bool:
    """Return whether an option of an optimizer may have a value: any finite number, but no other switch, unless that is None."""
    if own is None or isinstance(own, bool):
        return value is own or value is None or (own is None and isinstance(value, bool))
    is_number = isinstance(value, int | float | torch.Tensor) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of the random generators of the CPU and of `device`."""
    return {
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go back to a `random_state`."""
    torch.set_rng_state(state["random"])
    if state["random_cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"], device)
