"""A run's checkpoint: written whole or not at all, and read without executing anything."""

from pathlib import Path
from typing import Any

import torch

from Models.Base_Model import BadFile, load_tensors, save_tensors

VERSION = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write everything resume needs; the previous checkpoint stays until the new one is whole."""
    save_tensors(path, {"format": "checkpoint", "version": VERSION, **content})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        BadFile: the file is missing, damaged, not a checkpoint, or of another version.
    """
    content = load_tensors(path, "checkpoint")
    if content.get("version") != VERSION:
        raise BadFile(f"{path}: a checkpoint of version {content.get('version')}; this code reads version {VERSION}")
    return content


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
