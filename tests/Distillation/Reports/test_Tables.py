"""Scores and learning as tables."""

import json

from Distillation.Reports.Runs import find_runs
from Distillation.Reports.Tables import learning, scores
from tests.Distillation.made_up import write_run


def test_how_fast_and_how_steadily_runs_learnt(tmp_path):
    for k, finals in enumerate((1.0, 1.2, 0.5)):
        write_run(tmp_path / f"p{k}", run_index=k, finals=finals)
    falling = write_run(tmp_path / "falling", method="Sdistillation")
    rows = (falling / "metrics.csv").read_text().splitlines()
    (falling / "metrics.csv").write_text("\n".join([*rows[:5], *rows[7:9], rows[5].replace("200,", "400,", 1)]))
    head, *fast, falling, _, _ = learning(find_runs([tmp_path]))
    assert head[1:6] == ["to", "came there", "updates", "samples", "minutes"]
    assert [row[:4] for row in fast] == [
        ["PPD State", "0.8", "2 of 3", "240 [200, never]"],
        ["", "0.9", "2 of 3", "270 [225, never]"],
        ["", "0.95", "2 of 3", "285 [238, never]"],
    ]
    assert fast[1][4:] == ["2700 [2250, never]", "2.7 [2.2, never]", "", ""]
    assert fast[0][6:] == ["0.000 [0.000, 0.000]", "0.361"]  # numpy.std([1, 1.2, .5], ddof=1)
    assert falling[:3] == ["student distillation State", "0.8", "1 of 1"]
    assert falling[6:] == ["0.333", ""]


def test_a_finished_runs_scores_are_its_closing_figures(tmp_path):
    student = {"episodes": 100, "return": -30.0, "normalized_return": 0.8, "success": 0.4, "action_accuracy": 0.7}
    others = {"teacher": {"return": -24.0, "success": 0.97}, "zero": {"return": -54.0}}
    finished = write_run(tmp_path / "finished", episodes=10)
    figures = {"OD": {"student": student, **others}, "ID": {"student": student | {"normalized_return": 0.9}, **others}}
    (finished / "summary.json").write_text(json.dumps(figures))
    _, row, teacher, zero = scores(find_runs([finished]))
    assert row[3:9] == ["100", "-30.00", "0.800", "0.900", "0.40", "0.7000"]
    assert (teacher[4:8], zero[4]) == (["-24.00", "1.000", "1.000", "0.97"], "-54.00")
    write_run(tmp_path / "under way", run_index=1, episodes=10)
    _, row = scores(find_runs([tmp_path]))  # teacher and zero differ, being of other episodes
    assert row[3:5] == ["differ", "-27.50 [-30.00, -25.00]"]
