"""Scores of students, checkpoints and teachers."""

import json

import pytest

from Distillation import Play
from Models.Model_Pusher import SHIPPED_TEACHER, load_student
from tests.helpers import ONLINE, PICTURES, flags, pusher, run_folder


def test_play_scores_students_checkpoints_and_teachers(finished, tmp_path):
    folder = finished[0] / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    summary = json.loads((folder / "summary.json").read_text())
    video = tmp_path / "video.mp4"
    for file, more in (("last.pt", []), ("best_ID.pt", ["--video", video])):
        options = ["--seeds", "1900", "--json", "--device", "cpu", "--num_workers", 1, *more]
        play = pusher(folder / "checkpoints" / file, *options, script="Distillation/Play.py")
        assert play.returncode == 0, play.stderr
        report = json.loads(play.stdout)
        assert report["teacher"]["return"] == pytest.approx(summary["OD"]["teacher"]["return"], rel=1e-4)
        if file == "last.pt":
            assert report["policy"]["return"] == pytest.approx(summary["OD"]["student"]["return"], rel=1e-3)
            (episode,) = report["episodes"]
            assert (episode["seed"], episode["return"]) == (1900, report["policy"]["return"])
    assert video.stat().st_size > 10_000
    play = pusher(SHIPPED_TEACHER, "--seeds", "1900-1903", "--device", "cpu", script="Distillation/Play.py")
    assert play.returncode == 0
    assert "4 episodes" in play.stdout
    assert "furthest behind" not in play.stdout


def test_play_names_the_episodes_furthest_behind_the_teacher(finished, capsys):
    folder = finished[0] / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    words = [str(folder), "--seeds", "1900-1902", "--device", "cpu", "--num_workers", "1"]
    Play.main([*words, "--json"])
    episodes = json.loads(capsys.readouterr().out)["episodes"]
    behind = [episode["teacher_return"] - episode["return"] for episode in episodes]
    assert behind == sorted(behind, reverse=True)
    Play.main(words)
    assert f"furthest behind the teacher: seeds {episodes[0]['seed']} (" in capsys.readouterr().out


def test_a_student_without_a_teacher_is_scored_by_its_return(finished, capsys, tmp_path, monkeypatch):
    folder = finished[0] / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    words = [str(folder / "checkpoints" / "last.pt"), "--seeds", "1900-1901", "--device", "cpu", "--num_workers", "1"]
    Play.main([*words, "--json"])
    beside = json.loads(capsys.readouterr().out)
    monkeypatch.setattr("Algorithm.Teacher_source.RESULTS", tmp_path)
    Play.main([*words, "--json"])
    output = capsys.readouterr()
    assert output.err == "warning: Pusher has no teacher here to compare with; --teacher names one\n"
    alone = json.loads(output.out)
    assert alone.keys() == beside.keys() - {"teacher"}
    gone = {"normalized_return", "action_accuracy", "action_accuracy_on_teacher_states"}
    assert alone["policy"] == {name: value for name, value in beside["policy"].items() if name not in gone}
    Play.main(words)
    assert "lowest returns: seeds " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        Play.main([*words, "--views", "all"])
    assert "no such file (a teacher file is needed)" in capsys.readouterr().err


def test_a_student_of_one_frame_is_trained_and_scored_with_one_frame(tmp_path):
    run = pusher(*flags("PPD", ONLINE, stack=1, results_dir=tmp_path), without=PICTURES[1:])
    assert run.returncode == 0, run.stderr
    folder = run_folder(tmp_path)
    student = load_student(folder / "checkpoints" / "best_ID.pt")
    assert student.input_shapes["Frame"] == (1, 64, 128)
    play = pusher(folder, "--seeds", "1900", "--json", "--device", "cpu", script="Distillation/Play.py")
    assert play.returncode == 0, play.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert json.loads(play.stdout)["policy"]["return"] == pytest.approx(summary["OD"]["student"]["return"], rel=1e-3)
