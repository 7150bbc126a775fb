"""What an experiment is called, and which settings make it another one."""

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from Common.Files import plain
from Distillation.Utils import EXPERIMENTS, WorldSettings

# Entries of config.json that do not make two runs different experiments.
UNNAMED = {
    *(name for job in EXPERIMENTS.values() for name in job.named("seed", "place", "machine")),
    *("label", "ranks", "start_sha256", "before", "versions"),
    "data",  # settings say which dataset it is; processors round differently, and its checksum with them
}
HEAD = ("task", "method", "mode", "dataset")  # terms that come first, without commas
ALWAYS = {"dataset", "loss_type"}  # named even if they have their defaults
UNTERMED = UNNAMED | {"task", "mode", "mode_alpha"}  # settings without a term of their own
TERMS = {"optimization_steps": "updates", "PPD_parameter": "λ", "alpha": "α"}
TERMS |= dict.fromkeys(("dataset", "loss_type", "sampling"), "")  # the value says it
DEFAULT_TASK = WorldSettings().task
RESOLVED = {"precision": "bf16"}  # what a default becomes, on hardware that has it


@functools.cache
def _defaults(method: str) -> dict[str, Any]:
    settings = EXPERIMENTS[method].settings() if method in EXPERIMENTS else {}
    return plain({name: field.default for name, field in settings.items()})


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's `config.json` with its method's defaults for settings that did not exist when it was written."""
    return {**_defaults(config.get("method", "")), **config}


def identity(config: Mapping[str, Any]) -> str:
    """Return all that makes a run another experiment, settings of DAgger's parent included, as one comparable text."""
    return json.dumps(_deciding(config), sort_keys=True)


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in complete(config).items() if key not in UNNAMED}
    return own | ({"parent": _deciding(own["parent"])} if "parent" in own else {})


def label(config: Mapping[str, Any]) -> str:
    """Return an experiment's name: method, mode, and every setting that decides its result and is not the default.

    Args:
        config: the run's `config.json`, which may be of an older version.
    """
    hidden = {"teacher"} | ({"task"} if config.get("task", DEFAULT_TASK) == DEFAULT_TASK else set())
    return _joined({key: term for key, term in _terms(config).items() if key not in hidden})


def labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of experiments that are shown together, without the terms that all of a method and mode share.

    Experiments that their terms do not tell apart, such as the same seeds once more, are numbered.
    """
    every = [_terms(config) for config in configs]
    tasks = {terms["task"] for terms in every} - {""}
    found: list[str] = []
    times: Counter[str] = Counter()
    for own in every:
        alike = [other for other in every if (other["method"], other["mode"]) == (own["method"], own["mode"])]
        telling = {key for key, term in own.items() if any(other.get(key) != term for other in alike)}
        telling |= {"method", "mode", "dataset"} | ({"task"} if len(tasks) > 1 else set())
        name = _joined({key: term for key, term in own.items() if key in telling})
        times[name] += 1
        found.append(name if times[name] == 1 else f"{name} #{times[name]}")
    return found


def _joined(terms: Mapping[str, str]) -> str:
    head = " ".join(terms[key] for key in HEAD if terms.get(key))
    return ", ".join([head, *(term for key, term in terms.items() if key not in HEAD)])


def _terms(config: Mapping[str, Any]) -> dict[str, str]:
    """Return all that names an experiment, by setting."""
    job, task = EXPERIMENTS.get(config["method"]), str(complete(config).get("task", DEFAULT_TASK))
    terms = {"task": task.rpartition(":")[2], "method": config["method"], "mode": config["mode"]}
    if job is None:  # a method of other code, which has given the run a label
        return terms | ({"task": "", "method": config["label"], "mode": ""} if "label" in config else {})
    # The others are named anew, for defaults may have changed since a run wrote its label.
    terms |= {"method": job.called, **_changed(config)}
    if "parent" in config:
        inherited = job.settings().keys() - job.flags().keys()
        parents = _changed(config["parent"])
        terms |= {f"parent's {key}": f"parent's {term}" for key, term in parents.items() if key not in inherited}
    return terms | {"teacher": f"teacher {config.get('teacher_sha256', '')[:8]}"}  # told apart only beside another


def _changed(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a term for every setting that decides the result and has another value than its default."""
    defaults, values = _defaults(config.get("method", "")), complete(config)
    if values.get("mode_alpha", "constant") != "constant":
        values["alpha"] = values["mode_alpha"]
    return {
        key: f"{TERMS.get(key, key)} {_short(values[key])}".strip()
        for key in sorted(defaults, key=lambda key: key not in ALWAYS)
        if key in ALWAYS or (key not in UNTERMED and values[key] not in (defaults[key], RESOLVED.get(key)))
    }


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "×".join(map(_short, value))
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else text[:21] + "..."
