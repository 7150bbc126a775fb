"""Settings: dataclass fields that carry their meaning, limits and purpose.

A field is a setting, a flag of the command line and an entry of `config.json` at once.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, get_type_hints

from Common.Errors import BadSetting
from Common.Files import plain

Role = Literal["result", "seed", "place", "machine"]
LARGEST = 3.4e38
FREE: tuple[Role, ...] = ("place", "machine")  # roles of settings that may change when a run is resumed


def setting(
    default: Any,
    meaning: str,
    *,
    role: Role = "result",
    inherited: bool = False,
    sees: bool = False,
    choices: Sequence[Any] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    parse: Callable[[Any], Any] | None = None,
) -> Any:
    """Declare a dataclass field. The limits hold for each number of a tuple.

    Args:
        default: its value unless it is set; its type is the setting's type, None stands for a text, () for a list of texts.
        meaning: one line for the command line's help.
        role: `result` decides what is computed, so that another value makes another experiment. `seed` differs between the
            runs of one experiment and stays within a run. `place` is where a run is written, `machine` how it is carried
            out.
        inherited: DAgger takes it from the run of cloning that it continues.
        sees: only students with frames have it.
        choices: the values it may have.
        at_least: its smallest value.
        above: a bound it has to exceed.
        at_most: its largest value.
        parse: lets a text stand in place of a number. It takes either, and returns something that has the `numbers` for which
            the limits hold, or raises `ValueError` with what is needed.
    """
    purpose = {"meaning": meaning, "role": role, "inherited": inherited, "sees": sees}
    limits = {"choices": choices, "at_least": at_least, "above": above, "at_most": at_most, "parse": parse}
    return dataclasses.field(default=default, metadata=purpose | limits)


def changed(settings: type, name: str, default: Any, **metadata: Any) -> Any:
    """Declare a field as other settings have it, with another default and perhaps other metadata."""
    field = next(field for field in dataclasses.fields(settings) if field.name == name)
    return dataclasses.field(default=default, metadata={**field.metadata, **metadata})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A group of settings."""

    def check(self) -> None:
        """Raise `BadSetting` for the first setting that violates a limit."""
        for field in dataclasses.fields(self):
            value, limits = getattr(self, field.name), field.metadata
            shown = f"{field.name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
            numbers = value if isinstance(value, tuple) else (value,)
            if limits["parse"] and isinstance(value, str):
                try:
                    numbers = limits["parse"](value).numbers
                except ValueError as error:
                    raise BadSetting(f"{shown}: {error}") from None
            elif not _alike(value, field.default):
                raise BadSetting(f"{shown}: {_kind(field.default)} is needed")
            if limits["choices"] is not None and value not in limits["choices"]:
                raise BadSetting(f"{shown}: one of {', '.join(map(str, limits['choices']))} is needed")
            for number in numbers:
                if isinstance(number, int | float):
                    _check_number(shown, number, limits)


def _check_number(shown: str, number: float, limits: Mapping[str, Any]) -> None:
    if not math.isfinite(number):
        raise BadSetting(f"{shown}: a finite number is needed")
    if abs(number) > LARGEST:
        raise BadSetting(f"{shown}: at most {LARGEST:g} is needed, the largest number of PyTorch's float32")
    if limits["at_least"] is not None and number < limits["at_least"]:
        raise BadSetting(f"{shown}: at least {limits['at_least']} is needed")
    if limits["above"] is not None and number <= limits["above"]:
        raise BadSetting(f"{shown}: more than {limits['above']} is needed")
    if limits["at_most"] is not None and number > limits["at_most"]:
        raise BadSetting(f"{shown}: at most {limits['at_most']} is needed")


def _alike(value: Any, default: Any) -> bool:
    """Return whether a value is of the default's type; it may come from a file."""
    if default == ():
        return isinstance(value, tuple) and all(isinstance(text, str) for text in value)
    if isinstance(default, tuple):
        return isinstance(value, tuple) and len(value) == len(default) and all(map(_alike, value, default))
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str | None) if default is None else type(value) is type(default)


def _kind(default: Any) -> str:
    if default == ():
        return "a list of texts"
    if isinstance(default, tuple):
        return f"a list of {len(default)} integers"
    return {bool: "true or false", int: "an integer", float: "a number"}.get(type(default), "a text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composed:
    """Groups of settings, one in each field. A setting's name is unique among them, so that flags and files need no groups."""

    @classmethod
    def groups(cls) -> dict[str, type[Settings]]:
        """Return the type of each group."""
        hints = get_type_hints(cls)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls)}

    @classmethod
    def settings(cls) -> dict[str, dataclasses.Field]:
        """Return the fields of all groups by name."""
        return {field.name: field for group in cls.groups().values() for field in dataclasses.fields(group)}

    @classmethod
    def named(cls, *roles: Role) -> set[str]:
        """Return the names of the settings that have one of some roles."""
        return {name for name, field in cls.settings().items() if field.metadata["role"] in roles}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Compose it from settings by name: missing ones have their defaults, unknown ones are ignored, lists are tuples."""
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        groups = {}
        for name, group in cls.groups().items():
            own = {field.name for field in dataclasses.fields(group)} & given.keys()
            groups[name] = group(**{setting: given[setting] for setting in own})
        return cls(**groups)

    def flat(self) -> dict[str, Any]:
        """Return all settings by name."""
        return {name: value for group in self.groups() for name, value in vars(getattr(self, group)).items()}

    def replace(self, **changes: Any) -> Self:
        """Return it with other values of some settings."""
        return self.of(self.flat() | changes)

    def check(self) -> None:
        """Check every group."""
        for group in self.groups():
            getattr(self, group).check()


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], keys: Iterable[str] | None = None) -> str:
    """Describe where settings differ, as JSON writes them, in `keys` or in all that are `wanted`; empty if they do not."""
    found, wanted = plain(dict(found)), plain(dict(wanted))
    return "; ".join(
        f"{key} is {json.dumps(found.get(key))}, not {json.dumps(wanted.get(key))}"
        for key in (wanted if keys is None else keys)
        if found.get(key) != wanted.get(key)
    )
