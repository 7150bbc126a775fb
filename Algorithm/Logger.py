"""A run's metrics: `metrics.csv`, Weights & Biases, and the console."""

import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

WandbMode = Literal["auto", "online", "offline", "disabled"]
STEP = "x_axis/optimization_steps"


def _logged_in() -> bool:
    import wandb

    return bool(wandb.api.api_key)


def start_wandb(mode: WandbMode, folder: Path, config: dict[str, Any], *, group: str, name: str, id: str | None = None) -> Any:
    """Start a W&B run that writes below `folder`; returns None when disabled.

    `auto` is online when logged in, else offline; nothing ever prompts. Entity and project are W&B's own environment
    variables (`WANDB_ENTITY`, `WANDB_PROJECT`; without the latter `policy-distillation`), and `WANDB_MODE` decides what
    `auto` means if it is set.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "auto"  # type: ignore[assignment]
    if mode == "disabled":
        return None
    import wandb

    if mode == "auto":
        mode = "online" if _logged_in() else "offline"
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "policy-distillation"),
        dir=folder,
        mode=mode,
        group=group,
        name=name,
        id=id,
        resume="allow" if id else None,
        config=config,
        settings=wandb.Settings(silent=True, console="off"),
    )
