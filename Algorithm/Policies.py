"""Policies from files: any teacher, student, checkpoint or run, opened and compared with its task."""

from pathlib import Path
from typing import Any

from Algorithm.Checkpoint import Checkpoint
from Common.Errors import BadFile, BadInput
from Common.Files import load_tensors
from Common.Machine import PRECISIONS, resolve_precision
from Common.Settings import differences
from Enviroment.Renderer import QUALITIES
from Enviroment.Tasks import Task, find_task
from Enviroment.Utils import make_env
from Models.Base_Model import GaussianPolicy
from Models.Model_Pusher import build_policy


def load_policy(path: Path, device: Any = "cpu") -> tuple[Any, dict[str, Any]]:
    """Load a teacher, a student, or the student in a run's checkpoint or folder; returns the policy and its card.

    Raises:
        BadFile: the file is missing, damaged, none of them, or of another version.
    """
    path = path / "checkpoints" / "last.pt" if path.is_dir() else path
    content = load_tensors(path, "teacher", "student", "checkpoint")
    if content["format"] == "teacher":
        return build_policy(path, content, device), {"task": content.get("task"), "method": "SAC", "mode": "teacher"}
    if content["format"] == "checkpoint":
        content = Checkpoint.load(path).policy
    card = content.get("card")
    return build_policy(path, content, device), card if isinstance(card, dict) else {}


def open_policy(path: Path, device: Any = "cpu") -> tuple[Any, dict[str, Any], Task]:
    """Load a policy to use it on its task, in its own precision; returns the policy, its card, and the task.

    Raises:
        BadFile: as `load_policy`, or the policy was trained to see something else than the task shows.
    """
    policy, card = load_policy(path, device)
    try:
        task = find_task(str(card.get("task")))
    except BadInput as error:
        raise BadFile(f"{path}: of an unknown task ({error})") from None
    check_fits(path, policy, task)
    if policy.images:
        render, precision = card.get("render"), card.get("precision")
        if not isinstance(render, dict) or render.get("quality") not in QUALITIES or precision not in PRECISIONS:
            raise BadFile(f"{path}: its card does not say how it sees (render, precision)")
        if unlike := differences(render, task.rendering(render["quality"]) | {"stack": policy.stack.length}):
            raise BadFile(f"{path}: sees {task.name} in another way than the task shows it: {unlike}")
        policy.precision = resolve_precision(precision, policy.scale.device)
    return policy, card, task


def check_fits(path: Path, policy: GaussianPolicy, task: Task) -> None:
    """Raise `BadFile` unless a policy's inputs and actions are those of a task; `path` is for the message."""
    env: Any = make_env(task, frames=False)
    env.close()
    shown = {key: list(space.shape) for key, space in env.observation_space.items()}
    shown |= {image: [policy.stack.length, *task.frame_size] for image in policy.images}
    found: dict[str, Any] = {key: list(shape) for key, shape in policy.input_shapes.items()}
    wanted: dict[str, Any] = {key: shown.get(key) for key in found}
    found["action"] = [list(policy.arguments[f"action_{end}"]) for end in ("low", "high")]
    wanted["action"] = [env.action_space.low.tolist(), env.action_space.high.tolist()]
    if unlike := differences(found, wanted):
        raise BadFile(f"{path}: does not fit {task.name}: {unlike}")
