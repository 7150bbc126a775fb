"""Settings, their defaults and their flags."""

import dataclasses

import pytest

from Distillation.Pusher import parse
from Distillation.Utils import JOBS
from tests.helpers import ROOT


@pytest.mark.parametrize("method", JOBS)
def test_a_methods_own_defaults_are_its_flags_defaults(method):
    job, _ = parse([f"--{method}"])
    given = job.flat()
    for name, group in JOBS[method].groups().items():
        for field in dataclasses.fields(group):
            own = next(base for base in group.__mro__ if field.name in vars(base).get("__annotations__", {}))
            assert field.default == own.__dataclass_fields__[field.name].default, (group, field.name)
            assert given.pop(field.name) == getattr(group(), field.name) == field.default, (group, field.name)
            assert getattr(getattr(job, name), field.name) == field.default
    assert not given


def test_cloning_learns_faster_than_what_learns_from_rollouts():
    rates = [JOBS[method].of({}).method.learning_rate for method in ("BC_phase", "PPD")]
    assert rates == [3e-3, 1e-3]


def test_no_two_groups_of_a_method_share_a_setting():
    """One would hide the other: command lines and files hold the settings of all groups side by side."""
    for job in JOBS.values():
        names = [field.name for group in job.groups().values() for field in dataclasses.fields(group)]
        assert sorted(names) == sorted(set(names))


def test_the_readme_names_every_flag():
    readme = (ROOT / "README.md").read_text()
    names = {name for job in JOBS.values() for name in job.settings()} | {*JOBS}
    assert not [
        name for name in names | {"resume", "overwrite"} if f"--{name}`" not in readme and f"--{name} " not in readme
    ]
