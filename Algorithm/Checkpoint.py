"""A run's checkpoint: written whole or not at all, and read without executing anything."""

from pathlib import Path
from typing import Any

import torch

from Models.Base_Model import BadFile, load_tensors, save_tensors
from Models.Model_Pusher import build_policy


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write everything resume needs; the previous checkpoint stays until the new one is whole."""
    save_tensors(path, "checkpoint", content)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        BadFile: the file is missing, damaged, not a checkpoint, or of another version.
    """
    return load_tensors(path, "checkpoint")


def load_policy(path: Path, device: str | torch.device = "cpu") -> tuple[Any, dict[str, Any]]:
    """Load a teacher, a student, or the student in a run's checkpoint; returns it and its card.

    Raises:
        BadFile: the file is missing, damaged, none of them, or of another version.
    """
    content = load_tensors(path, "teacher", "student", "checkpoint")
    if content["format"] == "teacher":
        return build_policy(path, content, device), {"task": content.get("task"), "method": "SAC", "mode": "teacher"}
    if content["format"] == "checkpoint":
        try:
            student = {**content["student"], "weights": content["trainer"]["student"]}
        except (KeyError, TypeError):
            raise BadFile(f"{path}: not a complete checkpoint") from None
        content = {"format": "student", **student}
    card = content.get("card")
    return build_policy(path, content, device), card if isinstance(card, dict) else {}


def random_state(device: torch.device) -> dict[str, Any]:
    """Return where the random numbers of the CPU and of `device` stand."""
    return {
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go back to what `random_state` returned."""
    torch.set_rng_state(state["random"])
    if state["random_cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"], device)
