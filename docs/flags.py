"""Write `docs/flags.md`: the flags of `Pusher.py` and `Mujoco_main.py`, from the settings that they are made of."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

from Common.Files import write_text
from Distillation.Utils import JOBS
from Train_Teacher_Pusher.Settings import RUNS

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Which flags are there?

`python docs/flags.py` writes this page from the settings in the code. `--help` of each script says the same.

- A flag that a method does not have is refused, and so is a value outside the limits. The answer is one line, and the exit status is 2.
- † marks flags that may differ when a run is resumed.
- ‡ marks flags of students that see: `--mode` is `ImpaalaSmall`, `ImpaalaMid` or `ImpaalaBig`.
- DAgger has no flag for what it inherits from the run of cloning that it continues: the student, cameras and views, the length of episodes,
  the dataset, the loss, the noise and the seeds.

Both scripts have two more flags. `--resume` continues a run that was cut off ([resume.md](resume.md)). `--overwrite` replaces a run, or a
dataset, that is there.
"""


def page() -> str:
    """Return the page's text."""
    methods = {name: job.flags() for name, job in JOBS.items()}
    teachers = {name: run.settings() for name, run in RUNS.items()}
    lines = [HEAD, "## `Distillation/Pusher.py`", "", "Exactly one method is needed:", "", "| method | |", "|---|---|"]
    lines += [f"| `--{name}` | {job.title} |" for name, job in JOBS.items()]
    lines += [*_tables(methods, "--"), "", "## `Train_Teacher_Pusher/Mujoco_main.py`", ""]
    lines += [
        "A hyphen may be an underscore. `--algorithm` decides which flags there are. A task's recipe, its `training`,"
    ]
    lines += ["replaces defaults ([teachers.md](teachers.md)).", *_tables(teachers, hyphen="-")]
    return "\n".join(lines) + "\n"


def _tables(flags: Mapping[str, Mapping[str, Field]], dashes: str = "", hyphen: str = "_") -> Iterator[str]:
    """Yield a table for each set of methods that share flags; `flags` has the fields by method and name."""
    names = dict.fromkeys(name for fields in flags.values() for name in fields)
    having = {name: {method: fields[name] for method, fields in flags.items() if name in fields} for name in names}
    for owners in dict.fromkeys(tuple(fields) for fields in having.values()):
        others = [f"`{dashes}{method}`" for method in flags if method not in owners]
        among = ", ".join(f"`{dashes}{method}`" for method in owners)
        who = among if len(others) > 2 else "All but " + " and ".join(others) if others else "All"
        yield from ("", f"### {who}", "", "| flag | values | default | meaning |", "|---|---|---|---|")
        for name, fields in having.items():
            if tuple(fields) == owners:
                yield _row(name.replace("_", hyphen), fields)


def _row(name: str, fields: Mapping[str, Field]) -> str:
    field = next(iter(fields.values()))
    marks = ("†" if field.metadata["role"] == "machine" else "") + ("‡" if field.metadata["sees"] else "")
    cells = [f"`--{name}` {marks}".strip(), _by_method(_values, fields), _by_method(_default, fields)]
    texts = [*cells, field.metadata["meaning"]]
    return "| " + " | ".join(text.replace("|", "\\|").replace("<", "\\<") for text in texts) + " |"


def _by_method(shown: Callable[[Field], str], fields: Mapping[str, Field]) -> str:
    """Return what is shown of a setting, with the methods' names where they differ."""
    methods: dict[str, list[str]] = {}
    for method, field in fields.items():
        methods.setdefault(shown(field), []).append(method)
    if len(methods) == 1:
        return next(iter(methods))
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in methods.items())


def _values(field: Field) -> str:
    limits = field.metadata
    default: Any = field.default
    if limits["choices"]:
        return ", ".join(f"`{choice}`" for choice in limits["choices"])
    if isinstance(default, bool):
        return "a switch"
    if default == ():
        return "texts"
    if isinstance(default, str | None):
        return "text"
    first = default[0] if isinstance(default, tuple) else default
    kind = "integer" if isinstance(first, int) else "number"
    signs = {"at_least": "≥", "above": ">", "at_most": "≤"}
    bounds = ", ".join(f"{sign} {limits[limit]:,}" for limit, sign in signs.items() if limits[limit] is not None)
    schedule = " or a [schedule](methods.md#schedules)" if limits["parse"] else ""
    return f"{kind if first is default else f'{len(default)} {kind}s'} {bounds}".strip() + schedule


def _default(field: Field) -> str:
    value: Any = field.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    write_text(PAGE, page())
