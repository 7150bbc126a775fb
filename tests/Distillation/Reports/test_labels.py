"""Labels: what is named, what goes without saying, and that two experiments never share one."""

import json
from pathlib import Path

import pytest

from Common.Files import plain
from Distillation.Reports.Labels import UNNAMED, identity, label, labels
from Distillation.Utils import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[3]
CLONING = {"method": "BC_phase", "mode": "State", "dataset": "10k"}


def config(method="PPD", **settings):
    """A whole config.json, as a run writes it."""
    defaults = plain(EXPERIMENTS[method].of({}).flat()) if method in EXPERIMENTS else {}
    return defaults | {"method": method, "mode": "State", "precision": "bf16", "backend": "workers"} | settings


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "PPD State"),
        ({"mode": "ImpaalaMid", "grid": [1, 1], "PPD_parameter": 1.0}, "PPD ImpaalaMid, grid 1×1, λ 1"),
        ({"run_index": 3, "device": "cuda", "test_every": 7, "num_workers": 9, "results_dir": "/x"}, "PPD State"),
        ({"method": "Sdistillation", "optimization_steps": 2000}, "student distillation State, updates 2000"),
        ({"task": "/some/tasks.py:CHEETAH"}, "CHEETAH PPD State"),
        ({"precision": "fp32"}, "PPD State, precision fp32"),
        (CLONING, "BC State 10k, NLL"),
        (CLONING | {"alpha": 0.6, "loss_type": "KL"}, "BC State 10k, KL, α 0.6"),
        (CLONING | {"mode_alpha": "linear"}, "BC State 10k, NLL, α linear"),
    ],
)
def test_a_label_names_what_is_not_the_default(settings, name):
    assert label(config(**settings)) == label(settings | {"method": "PPD", "mode": "State"} | settings) == name


def test_daggers_label_names_its_parents_settings_but_for_those_that_it_inherits():
    parent = config(**CLONING, alpha=0.6, teacher_noise=1.0, optimization_steps=50)
    dagger = config("Dagger_phase", dataset="10k", teacher_noise=1.0, sampling="balanced", parent=parent)
    assert label(dagger) == "DAgger State 10k, NLL, balanced, teacher_noise 1, parent's updates 50, parent's α 0.6"


def test_a_run_that_begins_with_a_student_names_the_run_that_it_is_from():
    cloned = config(**CLONING, alpha=0.6, teacher_sha256="a" * 64)
    tuned = config(PPD_parameter="5:0:linear", teacher_sha256="a" * 64, parent=cloned)
    assert label(tuned) == "PPD State, λ 5:0:linear, from BC State 10k NLL α 0.6, teacher aaaaaaaa"
    other = config("Sdistillation", teacher_sha256="b" * 64, parent=cloned)
    assert label(other) == "student distillation State, from BC State 10k NLL α 0.6 teacher aaaaaaaa, teacher bbbbbbbb"
    assert "from BC State, teacher" in label(tuned | {"parent": CLONING})  # whose card says no more
    assert identity(tuned) != identity(tuned | {"parent": cloned | {"alpha": 0.1}})
    assert identity(tuned) == identity(tuned | {"parent": cloned | {"run_index": 4}})


def test_beside_one_another_experiments_leave_out_what_they_share():
    common = {"optimization_steps": 100, "loss_type": "KL"}
    cloning = [CLONING, CLONING | {"stack": 1}, CLONING | {"dataset": "50k"}]
    seen = [config(**common, **each) for each in cloning] + [config(optimization_steps=n) for n in (100, 200)]
    assert labels(seen) == [
        *("BC State 10k", "BC State 10k, stack 1", "BC State 50k"),
        *("PPD State, updates 100", "PPD State, updates 200"),
    ]
    assert labels(seen[:1]) == ["BC State 10k"]
    assert labels([config(), config(task="x:CHEETAH")]) == ["Pusher PPD State", "CHEETAH PPD State"]
    teachers = [config(teacher_sha256=letter * 64) for letter in "ab"]
    assert labels(teachers) == ["PPD State, teacher aaaaaaaa", "PPD State, teacher bbbbbbbb"]
    assert labels(teachers[:1]) == ["PPD State"]


def test_what_terms_do_not_tell_apart_is_numbered():
    assert labels([config(), config(), config(render={"azimuth": 1})]) == ["PPD State", "PPD State #2", "PPD State #3"]


def test_a_method_of_other_code_is_called_as_its_run_says():
    other = {"method": "RLPD", "mode": "State", "utd": 4}
    assert labels([other, config()]) == ["RLPD State", "PPD State"]
    other["label"] = "RLPD State, utd 4"
    assert label(other) == "RLPD State, utd 4"
    assert labels([other, other | {"label": "RLPD State, utd 9"}]) == ["RLPD State, utd 4", "RLPD State, utd 9"]
    assert labels([other, config()]) == ["RLPD State", "PPD State"]


def test_seeds_places_and_machines_make_no_other_experiment_and_results_do():
    assert {"run_index", "device", "test_every", "collect", "run_name", "folder_Dagger", "results_dir"} <= UNNAMED
    one = config(**CLONING)
    noted = {"label": "x", "ranks": 2, "versions": {"torch": "9"}, "data": {"crc32": 1}, "start_sha256": "c"}
    assert identity(one) == identity(one | noted | {"run_index": 1, "device": "cuda"})
    assert identity(one) == identity({key: value for key, value in one.items() if key != "stack"})  # an older file
    assert identity(one) != identity(one | {"alpha": 0.1})
    assert identity(config("Dagger_phase", parent=one)) == identity(config("Dagger_phase", parent=one | noted))
    assert identity(config("Dagger_phase", parent=one)) != identity(config("Dagger_phase", parent=one | {"alpha": 0.1}))


@pytest.mark.parametrize("study", ["main", "long", "ablations", "choices"])
def test_no_two_experiments_of_a_study_share_a_label(study):
    files = (ROOT / "Results" / "Studies" / study).glob("*/run?/config.json")
    experiments = {identity(content): content for content in map(json.loads, (file.read_text() for file in files))}
    names = labels(list(experiments.values()))
    assert len(set(names)) == len(names) == len({label(content) for content in experiments.values()}) > 10
    assert not any("#" in name for name in names)
