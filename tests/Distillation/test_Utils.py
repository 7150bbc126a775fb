"""Settings, their defaults and their flags."""

import dataclasses

import pytest

from Common.Errors import BadSetting
from Distillation.Pusher import parse
from Distillation.Utils import JOBS


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


def test_cameras_are_a_list_of_texts_and_what_is_usual_is_no_choice():
    words = ["--PPD", "--mode", "ImpaalaSmall", "--cameras"]
    job, _ = parse([*words, "wrist", "Frame", "--frames", "depth"])
    assert (job.world.cameras, job.world.frames) == (("Frame", "wrist"), "depth")
    assert job.default_name == "lambda5_ImpaalaSmall_run0_Frame_wrist_depth"
    usual, _ = parse([*words, "Frame", "--frames", "gray"])
    assert usual == parse(words[:3])[0]
    for wrong in ("side", ["side"], (1,)):
        with pytest.raises(BadSetting, match=r"cameras.*a list of texts is needed"):
            dataclasses.replace(job.world, cameras=wrong).check()
