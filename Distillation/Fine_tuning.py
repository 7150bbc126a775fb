"""The student of `--start_from`, which a run trains further: its file, its origin, and whether it fits the run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Algorithm.Policies import load_policy
from Common.Command_line import as_flags
from Common.Errors import BadFile, BadInput, brief
from Common.Files import file_hash
from Common.Settings import differences
from Distillation.Reports.Labels import complete, identity, label
from Distillation.Settings import SIGHT
from Distillation.Utils import LAST
from Models.Base_Model import ActorCritic


def find_source(reference: str) -> tuple[Path, dict[str, Any]]:
    """Return the file of a student, of a run's folder that of its last checkpoint, and entries of `config.json` on it.

    Raises:
        BadInput, BadFile: there is none, or it is damaged.
    """
    path = Path(os.path.expanduser(reference))
    path = path / LAST if path.is_dir() else path
    student, card = load_policy(path)
    if not isinstance(student, ActorCritic):
        raise BadInput(f"--start_from {reference}: a teacher; a student's file or a run's folder is needed")
    parent = {key: value for key, value in card.items() if key not in ("label", "scores")}
    try:
        if student.images:
            dict(card["render"])
        label(parent), identity(parent)
    except Exception as error:  # foreign content may break anything
        raise BadFile(f"{path}: its card does not say which run it is of ({brief(error)})") from error
    return path, {"start_sha256": file_hash(path), "parent": parent}


def check_source(
    path: Path, student: ActorCritic, card: Mapping[str, Any], description: Mapping[str, Any], family: str
) -> None:
    """Raise `BadInput` or `BadFile` where a student, with its `card`, is another one than a run trains.

    `description` is the run's `config.json`, and `family` that of its teacher's distribution.
    """
    found, wanted = complete(card), dict(description)
    found["background"] = "on" if student.arguments["background"] else "off"
    wanted["background"] = "on" if subtracts(wanted) else "off"
    names = SIGHT if student.images else SIGHT[:3]
    if unlike := differences(found, wanted, names):
        fitting = {name: found[name] for name in names if differences(found, wanted, [name])}
        flags = " ".join(as_flags(fitting))
        raise BadInput(f"--start_from {path}: its settings are others: {unlike}; {flags} would fit")
    if student.images and (unlike := differences(card["render"], wanted["render"])):
        raise BadFile(f"{path}: sees {wanted['task']} in another way than the task shows it: {unlike}")
    if student.family != family:
        raise BadInput(f"--start_from {path}: a {student.family} policy, but the teacher's is {family}")


def subtracts(settings: Mapping[str, Any]) -> bool:
    """Return whether a new student with these settings subtracts the background of its frames."""
    return settings["background"] == "on" or (settings["background"] == "auto" and settings["views"] == "none")
