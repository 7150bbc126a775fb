"""Settings, their defaults and their flags."""

import dataclasses

import pytest

from Common.Errors import BadSetting
from Distillation.Pusher import parse
from Distillation.Utils import JOBS
from Train_Teacher_Pusher.Settings import resolve


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


def test_every_flag_is_understood_with_an_equals_sign_as_agents_of_sweeps_write_it():
    words = ["--BC_phase=true", "--collect=True", "--quiet=false", "--mode=ImpaalaSmall", "--alpha=0.6"]
    job, arguments = parse([*words, "--grid=[4, 6]", "--augment=['shift=2', 'noise=5']", "--resume=true"])
    assert (job.data.collect, job.place.quiet, arguments.resume, arguments.overwrite) == (True, False, True, False)
    assert (job.method.alpha, job.student.grid, job.method.augment) == (0.6, (4, 6), ("shift=2", "noise=5"))
    assert parse([*words, "--collect=false", "--augment=shift=2"])[0].data.collect is False
    for method, job_type in JOBS.items():
        for name, field in job_type.flags().items():
            if isinstance(field.default, bool):
                assert parse([f"--{method}", f"--{name}=True"])[0] == parse([f"--{method}", f"--{name}"])[0]


def test_runs_of_a_sweep_have_names_of_their_own(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "ab12")
    assert parse(["--PPD"])[0].name == "lambda5_State_run0"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert parse(["--PPD"])[0].name == "lambda5_State_run0_ab12"
    assert parse(["--PPD", "--run_name", "mine"])[0].name == "mine"
    assert resolve({}).name == "sac_ab12"
