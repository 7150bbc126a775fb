"""The commands that train a student once more, as its card tells."""

import os
import shlex
from collections.abc import Mapping
from typing import Any

from Common.Command_line import as_flags
from Common.Files import ROOT
from Distillation.Reports.Labels import RESOLVED, complete, defaults_of
from Distillation.Utils import EXPERIMENTS, CloningExperiment, run_folder


def commands(card: Mapping[str, Any]) -> list[str]:
    """Return the calls of `Pusher.py` that make the run of a card, that of its first student before it.

    Only settings without today's default are given, and neither a device nor places. There are none for a teacher, for a method
    of other code, and where an older card does not have the run's settings.
    """
    job_type, parent = EXPERIMENTS.get(card.get("method", "")), card.get("parent")
    if job_type is None or "optimization_steps" not in card:
        return []
    before, more = commands(parent) if parent else [], {}
    if parent:
        if not before:
            return []
        folder = os.path.relpath(run_folder(EXPERIMENTS[parent["method"]].of(complete(parent))), ROOT)
        more = {"folder_Dagger" if job_type.inherits else "start_from": folder}
    values, left_out = complete(card), {*job_type.named("place", "machine"), "device"}
    defaults, names = defaults_of(job_type.flag), [name for name in job_type.flags() if name not in left_out]
    given = {name: values[name] for name in names if values[name] not in (defaults[name], RESOLVED.get(name))}
    if "stack" in job_type.flags() and values["mode"] != "State":
        given["stack"] = values["stack"]  # its default is the task's
    flags = [f"--{job_type.flag}", *(["--collect"] if job_type is CloningExperiment else []), *as_flags(given | more)]
    return [*before, shlex.join(["python", "Distillation/Pusher.py", *flags])]
