"""Reports of robustness: of `Play.py --views all`, and at the end of a run."""

import json

import pytest

from Algorithm.Robustness import robustness
from Distillation import Play
from Distillation.Experiment import examined_seeds
from Distillation.Reports.Page import write_page
from Distillation.Reports.Runs import find_runs
from tests.helpers import ONLINE, PICTURES, flags, outcome, pusher, run_folder

FEW = """
if __name__ == "__main__":  # environment workers import this file too
    import Distillation.Experiment as experiment
    import Distillation.Pusher as pusher
    import sys

    experiment.TRAINED = ("noise",)
    pusher.main(sys.argv[1:])
"""


def test_a_run_ends_with_a_report_in_its_summary_on_its_page_and_in_wandb(tmp_path):
    (tmp_path / "few.py").write_text(FEW)
    settings = ONLINE | {"robustness_episodes": 1, "wandb_mode": "offline", "results_dir": tmp_path}
    run = pusher(*flags("PPD", settings), script=tmp_path / "few.py", without=PICTURES[:2])
    assert run.returncode == 0, run.stderr
    folder = run_folder(tmp_path)
    report = json.loads((folder / "summary.json").read_text())["robustness"]
    assert report["episodes"] == 2  # frames are swapped between them
    assert [found["strength"] for found in report["shifts"]["noise"].values()] == [5, 10, 15]
    assert len(report["camera_use"]) == 4
    assert "its camera: normalized return" in run.stdout
    assert (folder / "robustness.png").stat().st_size > 10_000
    page = (folder / "page.html").read_text()
    assert "<h2>Robustness</h2>" in page
    assert "frames swapped" in page
    assert list(folder.glob("wandb/offline-run-*/files/media/table/robustness/*.table.json"))
    summary = folder / "summary.json"
    damaged = json.loads(summary.read_text()) | {"robustness": {"shifts": {"noise": 3}}}
    summary.write_text(json.dumps(damaged))
    assert "<h2>Robustness</h2>" not in write_page(find_runs([folder]), tmp_path / "page.html").read_text()


def test_long_episodes_are_fewer():
    assert [len(examined_seeds(10, steps)) for steps in (50, 100, 250, 1000)] == [10, 10, 4, 2]
    assert examined_seeds(1, 100) == range(1900, 1902)


def test_play_prints_draws_and_writes_a_report(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(robustness.__kwdefaults__, "kinds", ("noise",))
    folder = finished[0] / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    plot = tmp_path / "deep" / "plot.pdf"
    words = [str(folder), "--views", "all", "--seeds", "1900-1901", "--device", "cpu", "--num_workers", "1"]
    Play.main([*words, "--plot", str(plot)])
    printed = capsys.readouterr().out
    assert plot.read_bytes().startswith(b"%PDF")
    for row in ("| noise* ", "5, 10, 15 gray levels", "| frames blanked ", "| mean of those with * ", "its camera"):
        assert row in printed
    student = tmp_path / "student.pt"
    student.symlink_to(folder / "checkpoints" / "last.pt")
    monkeypatch.setitem(robustness.__kwdefaults__, "kinds", ())
    Play.main([str(student), *words[1:], "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["episodes"] == 2
    assert f"{report['clean']['normalized_return']:.3f}" in printed
    assert (tmp_path / "student_robustness.png").is_file()


def test_two_students_are_filmed_beside_one_another(finished, tmp_path, capsys):
    import imageio.v2 as imageio

    folder = finished[0] / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    video = tmp_path / "two.mp4"
    (tmp_path / "moved.toml").write_text("camera_position = 0.02")
    words = [str(folder), "--seeds", "1900", "--device", "cpu", "--num_workers", "1", "--video", str(video)]
    Play.main([*words, "--beside", str(folder), "--views", str(tmp_path / "moved.toml")])
    with imageio.get_reader(video) as film:
        left, right = film.get_data(50)[:, :480].astype(int), film.get_data(50)[:, 480:].astype(int)
    assert abs(left[40:300] - right[40:300]).mean() < 3  # the same student does the same


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--views all --seeds 1900", "two or more"),
        ("--views all --video a.mp4", "--views all scores mean actions"),
        ("--plot a.png", "--plot is the plot of --views all"),
        ("--views all --plot a.txt", ".png, .pdf or .svg"),
        ("--beside a.pt", "--beside is for films"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(words, message):
    status, errors = outcome(Play.main, ["nowhere.pt", *words.split()])
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
