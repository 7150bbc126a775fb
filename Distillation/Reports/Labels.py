"""Names experiments, and tells which settings make an experiment another one."""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from Common.Files import plain
from Distillation.Settings import SIGHT, WorldSettings
from Distillation.Utils import EXPERIMENTS, Experiment
from Enviroment.Views import views_name

# Entries of config.json that do not make two runs different experiments.
UNNAMED = {
    *(name for job in EXPERIMENTS.values() for name in job.named("seed", "place", "machine")),
    *("label", "ranks", "start_sha256", "before", "versions"),
    "data",  # settings say which dataset it is; processors round differently, and its checksum with them
}
ALWAYS = {"dataset", "loss_type"}  # named even if they have their defaults
UNTERMED = UNNAMED | {"task", "mode", "mode_alpha"}  # settings that are no terms
TERMS = {"optimization_steps": "updates", "PPD_parameter": "λ", "alpha": "α"}
TERMS |= dict.fromkeys(("dataset", "loss_type", "sampling"), "")  # the value says it
DEFAULT_TASK = WorldSettings().task
OF_TASK = {"task", "teacher_sha256", "render"}  # entries of config.json that another task has otherwise
OLDER = {"random_shift": "shift", "frame_noise": "noise"}  # settings of older runs, which are terms of `augment` today
RESOLVED = {"precision": "bf16"}  # what a default becomes, on hardware that has it


@functools.cache
def defaults_of(method: str) -> dict[str, Any]:
    """Return the defaults of a method's settings as `config.json` has them; of a method of other code there are none."""
    settings = EXPERIMENTS[method].settings() if method in EXPERIMENTS else {}
    return plain({name: field.default for name, field in settings.items()})


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's `config.json` with today's settings: defaults for those that did not exist when it was written."""
    kept = {key: value for key, value in config.items() if key not in OLDER}
    augment = [f"{OLDER[key]}={config[key]:g}" for key in OLDER if config.get(key)]
    return {**defaults_of(config.get("method", "")), **({"augment": augment} if augment else {}), **kept}


def on_any(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `config.json` without the number of its GPU, since another one of the same kind makes the same run."""
    return {**config, **({"device": str(config["device"]).partition(":")[0]} if "device" in config else {})}


def identity(config: Mapping[str, Any]) -> str:
    """Return all that makes a run another experiment, as one comparable text; the run that it continues is a part of it."""
    return json.dumps(_deciding(config), sort_keys=True)


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in complete(config).items() if key not in UNNAMED}
    return own | ({"parent": _deciding(own["parent"])} if "parent" in own else {})


def decided_by_task(configs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the entries of `config.json` that a run's task decides: also how, and how long, students see it, if all of a task's do alike."""
    found, wholes = set(OF_TASK), list(map(complete, configs))
    for name in (*SIGHT[3:], "episode_steps"):  # after task, mode and memory
        ways = {json.dumps([whole.get("task"), whole.get(name)]) for whole in wholes}
        if len(ways) == len({whole.get("task") for whole in wholes}):
            found.add(name)
    return found


def without_task(config: Mapping[str, Any], decided: Collection[str]) -> dict[str, Any]:
    """Return a `config.json` without what its task decides, so that a method's runs on several tasks are one experiment."""
    own = {key: value for key, value in config.items() if key not in decided}
    return own | ({"parent": without_task(own["parent"], decided)} if "parent" in own else {})


def label(config: Mapping[str, Any]) -> str:
    """Return an experiment's name: method, mode, and a term for every setting that decides its result and is not the default.

    The teacher's checksum is a term, too. `config` is the run's `config.json`, which may be of an older version.
    """
    job = EXPERIMENTS.get(config["method"])
    if job is None:  # a method of other code; the rest is named anew, since defaults may change after a run has begun
        return config.get("label", f"{config['method']} {config['mode']}")
    task = config.get("task", DEFAULT_TASK)
    terms = _terms(config)
    own_task = "" if task == DEFAULT_TASK else task.rpartition(":")[2]
    head = [own_task, job.called, config["mode"], terms.pop("dataset", "")]
    more = _origin(config, job)
    more += [f"teacher {config['teacher_sha256'][:8]}"] if "teacher_sha256" in config else []
    return ", ".join([" ".join(filter(None, head)), *terms.values(), *more])


def _origin(config: Mapping[str, Any], job: type[Experiment]) -> list[str]:
    """Return the terms on the run whose student an experiment continues."""
    parent = config.get("parent")
    if parent is None:
        return []
    if job.inherits:  # the settings that are flags of DAgger, too; it has the others from there
        return [f"parent's {term}" for key, term in _terms(parent).items() if key in job.flags()]
    known = EXPERIMENTS.get(parent["method"])
    if known and "optimization_steps" not in parent:  # an older student's card has no settings, not even default ones
        return [f"from {known.called} {parent['mode']}"]
    same = ("teacher_sha256",) if parent.get("teacher_sha256") == config.get("teacher_sha256") else ()
    return [f"from {label({key: value for key, value in parent.items() if key not in same})}".replace(",", "")]


def labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of experiments that are shown together, without the terms that all of a method, mode and task share.

    Experiments that their terms do not tell apart, such as the same seeds once more, are numbered.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    kinds = [(config["method"], config["mode"], config.get("task", DEFAULT_TASK)) for config in configs]
    for kind, config in zip(kinds, configs):
        alike.setdefault(kind, []).append(label(config))
    several = len({task for *_, task in kinds}) > 1
    found: list[str] = []
    for kind, config in zip(kinds, configs):
        head, *terms = f"{f'{DEFAULT_TASK} ' if several and kind[-1] == DEFAULT_TASK else ''}{label(config)}".split(
            ", "
        )
        others = [set(other.split(", ")) for other in alike[kind]]
        name = ", ".join([head, *(term for term in terms if not all(term in other for other in others))])
        times = sum(name == other.partition(" #")[0] for other in found)
        found.append(f"{name} #{times + 1}" if times else name)
    return found


def _terms(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a term for every setting that decides the result and has another value than its default."""
    defaults, values = defaults_of(config.get("method", "")), complete(config)
    if values.get("mode_alpha", "constant") != "constant":
        values["alpha"] = values["mode_alpha"]
    if "views" in values:
        values["views"] = views_name(values["views"])
    return {
        key: f"{TERMS.get(key, key)} {_short(values[key])}".strip()
        for key in sorted(defaults, key=lambda key: key not in ALWAYS)
        if key in ALWAYS or (key not in UNTERMED and values[key] not in (defaults[key], RESOLVED.get(key)))
    }


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ("×" if value and isinstance(value[0], int) else "+").join(map(_short, value))
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else text[:21] + "..."
