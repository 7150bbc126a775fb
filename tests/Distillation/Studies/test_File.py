"""What a study's file asks for."""

import copy
import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import Distillation.Study as study
from Distillation import Study
from Distillation.Studies.File import StudyRun, read_study
from Distillation.Studies.Jobs import missing_calls
from Enviroment.Tasks import TASKS
from tests.Distillation.studies import TINY
from tests.helpers import ROOT, TRIES, check, outcome, spoil


def read(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return read_study(path, tmp_path / "results").runs


def test_a_study_is_expanded_into_runs(tmp_path):
    runs = read(
        tmp_path, TINY + "\n[[runs]]\nname = 'PPD'\nmethod = 'PPD'\nmode = ['State', 'ImpaalaMid']\nclip = [0.2, 0.3]\n"
    )
    names = [run.name for run in runs]
    assert names[:4] == ["BC_run0", "BC_run1", "DAgger_run0", "PPD-State-clip0.2_run0"]
    assert len(names) == len(set(names)) == 11
    cloning, dagger = runs[0], runs[2]
    assert dagger.parent is cloning
    assert (dagger.job.data.dataset, dagger.job.method.loss_type) == ("5k", "KL")
    assert dagger.folder.parent.parent.name == "OurAlgorithm1_KL"
    assert dagger.wanted["parent"] == cloning.wanted
    assert "num_workers" not in cloning.wanted  # with more or fewer it is the same run
    assert cloning.job.wandb.wandb_mode == "disabled"


def test_ppd_may_begin_with_a_run_of_the_study_or_with_a_file(tmp_path):
    shipped = "Results/Pusher/Students/DAgger.pt"
    more = (
        "[[runs]]\nname = 'up'\nmethod = 'PPD'\nparent = 'DAgger'\nrun_index = [0]\nPPD_parameter = ['5:0:linear', 1]\n"
    )
    more += f"[[runs]]\nname = 'on'\nmethod = 'PPD'\nmode = 'ImpaalaMid'\nstart_from = '{shipped}'\n"
    runs = {run.name: run for run in read(tmp_path, f"{TINY}\n{more}")}
    up = runs["up-5-0-linear_run0"]
    assert up.parent is runs["DAgger_run0"]
    assert up.command[up.command.index("--start_from") + 1] == str(up.parent.folder)
    assert up.wanted["parent"] == up.parent.wanted
    assert up.wanted["PPD_parameter"] == "5:0:linear"
    on = runs["on_run1"]
    assert (on.job.start.start_from, on.wanted["parent"]["method"]) == (shipped, "Dagger_phase")


def test_a_run_whose_ancestors_are_only_released_needs_all_of_them(tmp_path, monkeypatch):
    up = "[[runs]]\nname = 'up'\nmethod = 'PPD'\nparent = 'DAgger'\nrun_index = [0]\n"
    runs = read(tmp_path, TINY + up)
    monkeypatch.setattr(StudyRun, "finished", lambda run, folder: folder == run.released and run.entry != "up")
    names = [call.name for call in missing_calls(runs)]
    assert names[-3:] == ["BC_run0", "DAgger_run0", "up_run0"]


SEVERAL = TINY.replace("[common]", "[common]\ntask = ['Pusher', 'PusherMemory']")


def test_a_parent_with_lists_is_continued_where_it_has_the_same_values(tmp_path):
    text = SEVERAL.replace('dataset = "5k"', 'dataset = "5k"\nalpha = [0.0, 0.6]')
    text = text.replace('parent = "BC"', 'parent = "BC"\nalpha = [0.6, 0.0]\nsampling = ["classic", "balanced"]')
    text += (
        "[[runs]]\nname = 'one'\nmethod = 'Dagger_phase'\nparent = 'BC'\ntask = 'PusherMemory'\nalpha = 0.6\nbeta = 1\n"
    )
    runs = {run.name: run for run in read(tmp_path, text)}
    assert len(runs) == 8 + 8 + 2
    dagger = [run for run in runs.values() if run.parent]
    assert all(run.parent.name.startswith("BC-Pusher") for run in dagger)
    for name in ("task", "alpha", "run_index"):
        assert all(run.job.flat()[name] == run.parent.job.flat()[name] for run in dagger)
    assert runs["DAgger-PusherMemory-alpha0.6-balanced_run0"].parent is runs["BC-PusherMemory-alpha0.6_run0"]
    assert runs["one_run1"].parent is runs["BC-PusherMemory-alpha0.6_run1"]
    collections = [call.name for call in missing_calls(list(runs.values())) if call.run is None]
    assert collections == ["dataset_5k", "dataset_5k_PusherMemory"]
    assert len({call.name for call in missing_calls(list(runs.values()))}) == 20


def test_every_experiment_is_made_in_each_group_with_its_settings(tmp_path):
    groups = "[[groups]]\ntask = ['Pusher']\n[[groups]]\ntask = ['PusherMemory']\nproprioception = 'none'\n[common]"
    text = TINY.replace("State", "ImpaalaSmall").replace("[common]", groups)
    runs = {run.name: run for run in read(tmp_path, text)}
    assert runs.keys() == {
        *("BC-Pusher_run0", "BC-Pusher_run1", "BC-PusherMemory_run0", "BC-PusherMemory_run1"),
        *("DAgger-Pusher_run0", "DAgger-PusherMemory_run0"),
    }
    sight = {name: run.job.flat()["proprioception"] for name, run in runs.items() if run.job.student.run_index == 0}
    assert {name: sees == "none" for name, sees in sight.items()} == {name: "Memory" in name for name in sight}
    assert runs["DAgger-PusherMemory_run0"].parent is runs["BC-PusherMemory_run0"]


def test_what_is_seen_of_a_task_has_a_dataset_of_its_own(tmp_path):
    """Its collection was once called without the cameras, and no run found it."""
    cloning = TINY.replace("State", "ImpaalaSmall").split("[[runs]]")[:2]
    runs = read(tmp_path, "cameras = ['side']\nframes = ['depth', 'rgb']\n[[runs]]".join(cloning))
    calls = missing_calls(runs)
    collections = {call.name: " ".join(call.arguments) for call in calls if call.run is None}
    assert collections.keys() == {"dataset_5k_side_depth", "dataset_5k_side_rgb"}
    for frames in ("depth", "rgb"):
        assert f"--cameras side --frames {frames}" in collections[f"dataset_5k_side_{frames}"]
        cloning = [call for call in calls if call.run is not None and call.run.name.startswith(f"BC-{frames}")]
        assert [[need.name for need in call.needs] for call in cloning] == [[f"dataset_5k_side_{frames}"]] * 2


def test_a_task_in_a_file_is_named_without_its_path(tmp_path):
    (tmp_path / "tasks.py").write_text("from Enviroment.Tasks import TASKS\nARM = TASKS['Pusher']\n")
    runs = read(tmp_path, TINY.replace("[common]", f"[common]\ntask = ['{tmp_path}/tasks.py:ARM']"))
    assert [run.name for run in runs] == ["BC-ARM_run0", "BC-ARM_run1", "DAgger-ARM_run0"]


def test_a_method_may_be_common(tmp_path):
    text = TINY.replace("[common]", "[common]\nmethod = 'BC_phase'").replace(
        'name = "BC"\nmethod = "BC_phase"', 'name = "BC"'
    )
    assert [run.wanted for run in read(tmp_path, text)] == [run.wanted for run in read(tmp_path, TINY)]


@pytest.mark.parametrize("name", [path.stem for path in Study.STUDIES.glob("*.toml")])
def test_the_studies_that_come_along_can_be(name, tmp_path):
    assert read_study(ROOT / "Distillation" / "Studies" / f"{name}.toml", tmp_path).runs


def test_a_run_under_other_defaults_is_another_and_one_from_before_a_setting_had_its_default(tmp_path):
    run = read(tmp_path, TINY)[0]
    config = tmp_path / "config.json"
    config.write_text(json.dumps(run.wanted))
    assert run.unlike(tmp_path) == []
    config.write_text(json.dumps({key: value for key, value in run.wanted.items() if key not in ("stack", "grid")}))
    assert run.unlike(tmp_path) == []
    config.write_text(json.dumps(run.wanted | {"learning_rate": 1e-3, "precision": "bf16"}))
    assert run.unlike(tmp_path) == ["learning_rate was 0.001"]
    config.write_text(json.dumps(run.wanted | {"device": "cuda:1", "backend": "warp"}))
    texts = [TINY.replace('device = "cpu"', f'device = "{on}"\nbackend = "auto"') for on in ("cuda", "auto")]
    assert [read(tmp_path, text)[0].unlike(tmp_path) for text in texts] == [[], []]


BAD = {
    "not TOML": ("[[runs", "study.toml"),
    "nothing in it": ("", "no runs"),
    "unknown table": (TINY + "[more]\nx = 1", "more"),
    "unknown key": (TINY + "alhpa = 1", "DAgger: alhpa: no setting of --Dagger_phase"),
    "unknown common key": (TINY.replace("[common]", "[common]\nalhpa = 1"), "common or groups: alhpa"),
    "unknown key of a group": (TINY + "[[groups]]\nalhpa = 1", "common or groups: alhpa"),
    "a group that is no list": (TINY + "[groups]\nalpha = 1", "no groups: each is a table [[groups]]"),
    "a run that is no list": ("[runs]\nmethod = 'PPD'", "no runs: each is a table [[runs]]"),
    "groups that are alike": (TINY + "[[groups]]\nalpha = 0\n[[groups]]\nalpha = 1", "BC_run0 exists already"),
    "of another method": (TINY + "clip = 0.1", "clip"),
    "inherited": (TINY + "dataset = '10k'", "dataset"),
    "the runner's": (TINY + "run_name = 'x'", "the runner chooses it"),
    "unknown method": (TINY.replace("BC_phase", "BC"), "BC: method BC: one of PPD"),
    "a list of methods": (TINY.replace('"BC_phase"', '["BC_phase"]'), "one of PPD"),
    "a collection": (TINY.replace("BC_phase", "C_data"), "one of PPD"),
    "no name": ("[[runs]]\nmethod = 'PPD'", "runs 1: a name is needed"),
    "a path as a name": ("[[runs]]\nmethod = 'PPD'\nname = '../x'", "letters"),
    "one name twice": (
        TINY + TINY[TINY.index("[[runs]]") :].partition('[[runs]]\nname = "DAgger')[0],
        "BC_run0 exists already",
    ),
    "one experiment twice": (
        TINY + "[[runs]]\nname = 'DA'\nmethod = 'Dagger_phase'\nparent = 'BC'\n" + TINY.partition("index = [0]\n")[2],
        "DA: the same experiment as DAgger",
    ),
    "no parent": (TINY.replace('parent = "BC"', ""), "a parent is needed"),
    "unknown parent": (TINY.replace('parent = "BC"', 'parent = "B"'), "parent B: no run 0"),
    "an index its parent lacks": (TINY.replace("index = [0]\n", "index = [2]\n"), "parent BC: no run 2"),
    "a parent of cloning": (TINY.replace('dataset = "5k"', 'dataset = "5k"\nparent = "x"'), "no parent"),
    "unknown parent of PPD": ("[[runs]]\nmethod = 'PPD'\nname = 'x'\nparent = 'y'", "parent y: no run 0 of that name"),
    "a parent of another student": (
        "[[runs]]\nmethod = 'PPD'\nname = 'x'\nmemory = 'gru'\n[[runs]]\nmethod = 'PPD'\nname = 'y'\nparent = 'x'",
        "parent x: its student is another one: memory is ",
    ),
    "two beginnings": ("[[runs]]\nmethod = 'PPD'\nname = 'x'\nparent = 'y'\nstart_from = 'z'", "give one"),
    "a beginning that is not there": (
        "[[runs]]\nmethod = 'PPD'\nname = 'x'\nstart_from = 'z.pt'",
        "z.pt: no such file",
    ),
    "not a number": (TINY + "alpha = 'much'", "DAgger: argument --alpha"),
    "not whole": (TINY + "minibatch_size = 8.5", "minibatch_size"),
    "out of range": (TINY + "alpha = -1", "DAgger: --alpha -1.0: at least 0"),
    "run_index": (TINY.replace("index = [0, 1]", "index = [0, 6]"), "run_index"),
    "one index": (TINY.replace("index = [0, 1]", "index = 0"), "a list of integers is needed"),
    "no index": (TINY.replace("index = [0, 1]", "index = []"), "a list is empty"),
    "a picture of nothing": (TINY.replace('["B*"]', '["BC", "DA"]'), "pictures: cloning: DA: no such experiment"),
    "a picture of one": (TINY.replace('["B*"]', '"BC"'), "pictures: cloning: a list"),
    "a picture elsewhere": (TINY.replace("cloning", "'../x'"), "pictures: ../x: another name"),
    "a picture over another": (TINY.replace("cloning", "curve"), "pictures: curve: another name"),
    "no pictures": (TINY.replace("[pictures]", "[[pictures]]"), "pictures: a table"),
    "a parent without these values": (
        SEVERAL.replace('dataset = "5k"', 'dataset = "5k"\ntask = ["Pusher"]'),
        "parent BC: no run 0 of --BC_phase of that name, task PusherMemory, further up (there are BC-Pusher)",
    ),
    "a parent of another task": (
        TINY + "task = 'PusherMemory'",
        "parent BC: its task is Pusher, not PusherMemory",
    ),
    "a picture over the profiles": (TINY.replace("cloning", "profiles"), "pictures: profiles: another name"),
    "no teacher": (TINY.replace("[common]", "[common]\nteacher = 'nowhere.pt'"), "nowhere.pt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_study_is_one_line_status_2_and_nothing_written(case, tmp_path, capsys):
    text, hint = BAD[case]
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(SystemExit) as end:
        Study.main([str(tmp_path / "study.toml"), "--results_dir", str(tmp_path / "results")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert hint in error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("flags", [[], ["--dry_run"]])
def test_a_task_without_a_teacher_is_one_line_that_names_it_and_what_trains_one(flags, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(TASKS, "Untaught", replace(TASKS["Pusher"], name="Untaught", reference="Untaught"))
    (tmp_path / "study.toml").write_text(TINY.replace("[common]", "[common]\ntask = ['Pusher', 'Untaught']"))
    with pytest.raises(SystemExit) as end:
        Study.main([str(tmp_path / "study.toml"), "--results_dir", str(tmp_path / "results"), *flags])
    error = capsys.readouterr().err
    assert (end.value.code, error.count("\n")) == (2, 1)
    assert "BC: no teacher of Untaught in " in error
    assert error.endswith(": Train_Teacher_Pusher/Mujoco_main.py --task Untaught trains one\n")
    assert not (tmp_path / "results").exists()


def as_toml(tables):
    """Write tables of plain values; what TOML has no word for stays JSON's."""
    lines = []
    for name, content in sorted(tables.items(), key=lambda item: isinstance(item[1], dict | list)):
        several = (
            content if isinstance(content, list) and all(isinstance(each, dict) for each in content) else [content]
        )
        for each in several:
            if isinstance(each, dict):
                lines.append(f"[{name}]" if several[0] is content else f"[[{name}]]")
                lines += [f"{key} = {json.dumps(value)}" for key, value in each.items()]
            else:
                lines.append(f"{name} = {json.dumps(each)}")
    return "\n".join(lines)


def test_any_study_is_understood_or_refused_in_one_line(tmp_path):
    tables = tomllib.loads(TINY)
    bad = set()

    @settings(max_examples=150, **TRIES)
    @given(st.integers(0, 2**32 - 1), st.integers(0, 2))
    def tries(seed, cuts):
        random = np.random.default_rng(seed)
        text = as_toml(spoil(copy.deepcopy(tables), random))
        for _ in range(cuts):
            at = int(random.integers(len(text)))
            text = text[:at] + text[at + int(random.integers(4)) :]
        (tmp_path / "study.toml").write_text(text)
        words = [str(tmp_path / "study.toml"), "--dry_run", "--results_dir", str(tmp_path / "results")]
        status, errors = outcome(study.main, words)
        check(status, errors)
        assert not (tmp_path / "results").exists()
        if status == 2:
            bad.add(text)

    tries()
    assert len(bad) >= 75
