"""Runs of several tasks as one report."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from Distillation import Study
from Distillation.Reports.Runs import find_runs, scores_by_task
from Distillation.Reports.Tables import across_tasks, tables
from tests.Distillation.made_up import write_run

FINALS = {  # of runs by method and task
    "PPD": {"Pusher": (0.2, 0.4), "tasks.py:ARM": (0.6, 1.2)},
    "Sdistillation": {"Pusher": (0.1, 0.4), "tasks.py:ARM": (1.2, 1.3, 0.6)},
    "Dagger_phase": {"Pusher": (0.9, 0.9)},
}


@pytest.fixture
def folder(tmp_path):
    for method, tasks in FINALS.items():
        for task, finals in tasks.items():
            of_task = {"task": task, "teacher_sha256": task * 8, "render": {"of": task}}
            parent = {"parent": {"method": "BC_phase", "mode": "State", **of_task}} if method == "Dagger_phase" else {}
            for k, final in enumerate(finals):
                place = tmp_path / f"{method}-{task[-3:]}" / f"run{k}"
                write_run(place, method, finals=final, run_index=k, **of_task, **parent)
    return tmp_path


def test_tables_over_tasks_and_of_each(folder):
    runs = find_runs([folder])
    aggregate, better, by_task = across_tasks(runs).values()
    labels = ["DAgger State 100k", "student distillation State", "PPD State"]
    assert [row[:3] for row in aggregate[1:]] == list(map(list, zip(labels, "122", "254")))
    assert aggregate[1][3:] == ["0.900 [0.900, 0.900]", "0.900 [0.900, 0.900]", "0.100 [0.100, 0.100]"]
    assert [cell.split()[0] for cell in aggregate[3][3:]] == ["0.500", "0.600", "0.450"]
    assert better[0][1:] == labels
    assert [row[1 + i] for i, row in enumerate(better[1:])] == [""] * 3
    assert better[3][2].startswith("0.48 [0.")  # as in test_Statistics.py
    assert better[1][3] == "1.00 [1.00, 1.00]"  # on the task that both have
    assert by_task[1:] == [["ARM", "", "1.033", "0.900"], ["Pusher", "0.900", "0.250", "0.300"]]
    written = tables(runs)
    assert written.index("optimality gap") < written.index("Each task by itself") < written.index("action accuracy")
    scored = [row.split("|")[1].strip() for row in written[written.index("Each task") :].splitlines()[4:9]]
    assert scored[:3] == ["ARM student distillation State", "ARM PPD State", "Pusher DAgger State 100k"]


def test_how_a_task_is_seen_makes_no_other_method_unless_it_is_seen_in_two_ways(folder):
    for config in folder.glob("*-ARM/*/config.json"):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"stack": 3, "cameras": ["side"]}))
    tasks = {each.group.label: len(each.scores) for each in scores_by_task(find_runs([folder]))}
    assert tasks == {"DAgger State 100k": 1, "student distillation State": 2, "PPD State": 2}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"stack": 2}))
    labels = {each.group.label for each in scores_by_task(find_runs([folder]))}
    assert len(labels) == 6
    assert sum("stack 3" in label for label in labels) == 2


def test_one_task_has_no_tables_over_tasks(folder):
    runs = [run for run in find_runs([folder]) if run.task == "Pusher"]
    assert across_tasks(runs) == {}
    assert tables(runs).startswith("| ")
    assert not any(line.startswith("| Pusher") for line in tables(runs).splitlines())


def test_a_seed_counts_once_on_each_task(folder):
    write_run(folder / "again", "PPD", finals=0.7, run_index=0, task="Pusher", teacher_sha256="Pusher" * 8)
    methods = {each.group.label: each.scores for each in scores_by_task(find_runs([folder]))}
    assert {task: len(scores) for task, scores in methods["PPD State"].items()} == {"ARM": 2, "Pusher": 2}
    assert methods["PPD State #2"]["Pusher"].tolist() == pytest.approx([0.7])


def test_a_study_of_several_tasks_has_profiles_and_a_panel_of_each_task(folder, capsys, monkeypatch):
    runs = [SimpleNamespace(released=path, entry=path.parent.name) for path in sorted(folder.glob("*/run?"))]
    Study.write_results(folder, SimpleNamespace(runs=runs, pictures={}), runs)
    assert f"{folder / 'profiles.svg'}\n" in capsys.readouterr().out
    assert "optimality gap" in (folder / "table.md").read_text()
    for name, texts in {
        "profiles": (
            "fraction of runs above it",
            "interquartile mean",
            "PPD State",
            "2 tasks, 4 runs",
            "1 task, 2 runs",
        ),
        "curve": ("Pusher", "ARM", "gradient updates", "PPD State (2 runs)", "DAgger State 100k (2 runs)"),
    }.items():
        drawing = (folder / f"{name}.svg").read_text()
        assert all(text in drawing for text in texts), [text for text in texts if text not in drawing]
        assert Image.open(folder / f"{name}.png").size[0] > 1000
    one = [run for run in runs if run.entry.endswith("her")]
    (folder / "profiles.svg").unlink()
    monkeypatch.setattr(Study, "draw", lambda _, base: base.with_suffix(".png"))
    Study.write_results(folder, SimpleNamespace(runs=one, pictures={}), one)
    assert not (folder / "profiles.svg").exists()
