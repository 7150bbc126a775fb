"""A run's checkpoint: written whole or not at all, and read without executing anything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from Common.Errors import BadFile
from Common.Files import load_tensors, save_tensors
from Common.Machine import PRECISIONS, resolve_precision
from Common.Settings import differences
from Enviroment.Renderer import QUALITIES
from Enviroment.Tasks import TASKS, Task
from Enviroment.Utils import make_env
from Models.Base_Model import GaussianPolicy
from Models.Model_Pusher import build_policy


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write everything resume needs; the previous checkpoint stays until the new one is whole."""
    save_tensors(path, "checkpoint", content)


# What a checkpoint holds beside the trainer's state, and of which type.
_PARTS: dict[str, type | tuple[type, ...]] = {
    "trainer": dict,
    "student": dict,
    "settings": dict,
    "elapsed_s": float,
    "best_return": float,
    "next_test": int,
    "rows": int,
    "rows_crc32": int,
    "wandb_id": (str, type(None)),
    "collapse": list,
}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        BadFile: the file is missing, damaged, not a checkpoint, or of another version.
    """
    content = load_tensors(path, "checkpoint")
    for name, kind in _PARTS.items():
        if name not in content or not isinstance(content[name], kind):
            raise BadFile(f"{path}: not a complete checkpoint (no {name})")
    if not all(isinstance(content["student"].get(name), dict) for name in ("arguments", "card")):
        raise BadFile(f"{path}: not a complete checkpoint (no student)")
    counters = content["trainer"].get("counters")
    if not isinstance(counters, list) or len(counters) != 3 or not all(isinstance(count, int) for count in counters):
        raise BadFile(f"{path}: not a complete checkpoint (no counters)")
    return content


def load_policy(path: Path, device: str | torch.device = "cpu") -> tuple[Any, dict[str, Any]]:
    """Load a teacher, a student, or the student in a run's checkpoint or folder; returns it and its card.

    Raises:
        BadFile: the file is missing, damaged, none of them, or of another version.
    """
    path = path / "checkpoints" / "last.pt" if path.is_dir() else path
    content = load_tensors(path, "teacher", "student", "checkpoint")
    if content["format"] == "teacher":
        return build_policy(path, content, device), {"task": content.get("task"), "method": "SAC", "mode": "teacher"}
    if content["format"] == "checkpoint":
        content = load_checkpoint(path)
        content = {"format": "student", **content["student"], "weights": content["trainer"].get("student")}
    card = content.get("card")
    return build_policy(path, content, device), card if isinstance(card, dict) else {}


def open_policy(path: Path, device: str | torch.device = "cpu") -> tuple[Any, dict[str, Any], Task]:
    """Load a policy to be used on its task, in its own precision; returns it, its card, and the task.

    Raises:
        BadFile: as `load_policy`, or what it was trained to see is not what the task shows now.
    """
    policy, card = load_policy(path, device)
    name = card.get("task")
    task = TASKS.get(name) if isinstance(name, str) else None
    if task is None:
        raise BadFile(f"{path}: of an unknown task; {', '.join(TASKS)} are known")
    if "Frame" in policy.inputs:
        task = replace(task, stack=policy.input_shapes["Frame"][0])
    check_fits(path, policy, task)
    if "Frame" in policy.inputs:
        render, precision = card.get("render"), card.get("precision")
        if not isinstance(render, dict) or render.get("quality") not in QUALITIES or precision not in PRECISIONS:
            raise BadFile(f"{path}: its card does not say how it sees (render, precision)")
        unlike = differences(render, task.rendering(render["quality"]))
        if unlike:
            raise BadFile(f"{path}: sees {task.name} in another way than it is shown: {unlike}")
        policy.precision = resolve_precision(precision, policy.scale.device)
    return policy, card, task


def check_fits(path: Path, policy: GaussianPolicy, task: Task) -> None:
    """Compare what a policy looks at and does with what a task shows and takes.

    Raises:
        BadFile: they differ; `path` is for the message.
    """
    env = make_env(task, frames=False)
    observations, actions = env.observation_space, env.action_space
    env.close()
    assert isinstance(observations, gym.spaces.Dict)
    assert isinstance(actions, gym.spaces.Box)
    shown = {key: list(space.shape or ()) for key, space in observations.items()}
    shown["Frame"] = [task.stack, *task.frame_size]
    found: dict[str, Any] = {key: list(shape) for key, shape in policy.input_shapes.items()}
    wanted: dict[str, Any] = {key: shown.get(key) for key in found}
    found["action"] = [list(policy.arguments[f"action_{end}"]) for end in ("low", "high")]
    wanted["action"] = [actions.low.tolist(), actions.high.tolist()]
    unlike = differences(found, wanted)
    if unlike:
        raise BadFile(f"{path}: does not fit {task.name}: {unlike}")


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
