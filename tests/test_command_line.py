import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from Distillation import Play
from Distillation.Experiment import own_device
from Distillation.Pusher import main
from Models.Model_Pusher import SHIPPED_TEACHER, load_student

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "mode": "ImpaalaSmall",
    "optimization_steps": 4,
    "test_every": 2,
    "episodes": 1,
    "final_episodes": 1,
    "num_workers": 1,
    "minibatch_size": 8,
    "device": "cpu",
    "wandb_mode": "disabled",
}
ONLINE = {**SMALL, "num_envs": 2, "rollout_steps": 8, "epochs": 1}


def flags(method, settings, **changes):
    settings = settings | changes
    return [f"--{method}", *(str(word) for name, value in settings.items() for word in (f"--{name}", value))]


TINY = flags("PPD", ONLINE)


def pusher(*arguments, cwd=ROOT, env=None, script="Distillation/Pusher.py"):
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=280,
    )


KILL = """
import os, sys
import Algorithm.Training as training
import Distillation.Pusher as pusher

save = training.save_checkpoint


def cut(path, content):
    save(path, content)
    if content["trainer"]["counters"][0] == {at}:
        os._exit(9)


training.save_checkpoint, training.CHECKPOINTS_SHARE = cut, float("inf")  # whatever they cost
if __name__ == "__main__":
    pusher.main(sys.argv[1:])
"""


def pusher_cut_at(place, update, *arguments):
    """Run, and die right after the checkpoint of an update."""
    script = place / "kill.py"
    script.write_text(KILL.format(at=update))
    run = pusher(*arguments, "--checkpoint_every", 0, script=script)
    assert run.returncode == 9, run.stderr


class Accepted(Exception):
    """Everything was checked, and training, which other tests do, would begin."""


def outcome(call, *arguments):
    """What a program says: its status, None if it got as far as training, and stderr."""
    errors = io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            call(*arguments)
        status = 0
    except Accepted:
        status = None
    except SystemExit as end:
        status = end.code
    finally:
        signal.signal(signal.SIGTERM, before)
    return status, errors.getvalue()


def metrics(folder):
    """The rows without what no two runs share: how long things took."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    run = pusher(*TINY, "--results_dir", results, cwd=results)  # from a folder that is not the repository's
    assert run.returncode == 0, run.stderr
    return results, run


def test_a_tiny_run_leaves_the_promised_folder(finished):
    results, run = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    config = json.loads((folder / "config.json").read_text())
    assert config["optimization_steps"] == 4
    assert config["precision"] in ("fp32", "bf16")
    assert config["render"]["quality"] == "fast"
    assert len(config["teacher_sha256"]) == 64
    assert config["versions"]["torch"].startswith("2.")
    if (ROOT / ".git").is_dir():
        git = ["git", "rev-parse", "HEAD"]
        head = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert head.startswith(config["versions"]["commit"].removesuffix("-dirty"))
        assert len(config["versions"]["commit"]) >= 12
    rows = metrics(folder)
    assert [row["x_axis/optimization_steps"] for row in rows] == ["0", "2", "4"]
    assert [row["x_axis/samples_collected"] for row in rows] == ["0", "16", "32"]
    for part in ("ID", "OD"):
        for name in ("return", "normalized_return", "success", "action_accuracy", "entropy", "teacher_return"):
            assert math.isfinite(float(rows[-1][f"test/{part}/{name}"]))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["OD"]["student"]["return"] == float(rows[-1]["test/OD/return"])
    assert summary["OD"]["zero"]["normalized_return"] == 0
    assert summary["OD"]["teacher"]["normalized_return"] == 1
    assert load_student(folder / "checkpoints" / "best_ID.pt").inputs == ("PartialState", "Frame")
    torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    for picture in ("videos/final_OD.mp4", "curve.png", "curve.svg", "page.html"):
        assert (folder / picture).stat().st_size > 10_000
    for picture in ("videos/final_OD.mp4", "curve.png", "page.html"):
        assert str(folder / picture) in run.stdout
    lines = run.stdout.splitlines()
    assert " ".join(lines[0].split()) == "PPD proximal policy distillation of teacher.pt into ImpaalaSmall"
    assert str(folder) in lines[3]
    title = next(i for i, line in enumerate(lines) if line.split()[:4] == ["updates", "samples", "ID", "return"])
    assert max(map(len, lines[title : title + 5])) < 80
    assert lines[title + 1].split()[:3] == ["teacher", f"{float(rows[0]['test/ID/teacher_return']):.2f}", "1.000"]
    tests = [line.split()[:3] for line in lines[title + 2 : title + 5]]
    columns = ("x_axis/optimization_steps", "x_axis/samples_collected")
    assert tests == [[*(row[name] for name in columns), f"{float(row['test/ID/return']):.2f}"] for row in rows]
    assert [line.split()[0] for line in lines[title + 8 : title + 11]] == ["student", "teacher", "zero"]
    assert not run.stderr


def test_same_seed_same_metrics_and_a_cut_run_resumes_exactly(finished, tmp_path):
    results, _ = finished
    expected = metrics(results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0")
    again = [*TINY, "--results_dir", tmp_path, "--num_workers", 2]
    pusher_cut_at(tmp_path, 2, *again)
    resumed = pusher(*again, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(tmp_path / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0") == expected


def wandb_history(folder):
    """The rows of an offline W&B run, as its own tool reads them; and the run's record."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", folder]
    read = subprocess.run(command, capture_output=True, text=True, timeout=60)
    records = [json.loads(line) for line in read.stdout.splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [row for row in rows if "time/elapsed_s" in row], next(r for r in records if r["type"] == "run")


def test_wandb_gets_every_row_and_a_resumed_run_has_them_all(tmp_path):
    small = flags("PPD", ONLINE, mode="State", results_dir=tmp_path, wandb_mode="offline", video_every=2)
    small += ["--optimization_steps", "8"]
    pusher_cut_at(tmp_path, 4, *small)
    resumed = pusher(*small, "--resume", "--quiet")
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", "")
    folder = run_folder(tmp_path)
    spells = sorted(folder.glob("wandb/offline-run-*"))
    assert len(spells) == 2
    assert len({spell.name.rpartition("-")[2] for spell in spells}) == 1
    rows, record = wandb_history(spells[1])  # what the killed one had not written yet is not lost
    written = metrics(folder)
    steps = [row["x_axis/optimization_steps"] for row in rows]
    assert steps == [int(row["x_axis/optimization_steps"]) for row in written] == [0, 2, 4, 6, 8]
    for name in ("test/OD/return", "test/OD/teacher_return", "test/OD/zero_return", "training/loss"):
        assert [row.get(name) for row in rows] == pytest.approx(
            [float(row[name]) if row[name] else None for row in written]
        )
    for word in ("PPD_State", "Pusher", "run0", "teacher_sha256"):
        assert word in str(record)
    videos = {path.name for path in (folder / "videos").iterdir()}
    assert videos == {"0000002_OD.mp4", "0000004_OD.mp4", "0000006_OD.mp4", "final_OD.mp4"}
    assert list(spells[1].rglob("*.mp4"))
    assert list(spells[1].rglob("OD_return*.json"))  # the chart of student, teacher and standing still


def test_an_artifact_holds_a_student_or_refers_to_a_dataset(tmp_path, monkeypatch):
    from Algorithm.Logger import log_artifact, start_wandb

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    run = start_wandb("offline", tmp_path, {}, group="g", name="PPD+ä")
    log_artifact(run, "student", run.name, [SHIPPED_TEACHER], {"return": -25})
    log_artifact(run, "dataset", "dataset_5k", [SHIPPED_TEACHER.parent], {})
    run.finish()
    read = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", next(tmp_path.glob("wandb/offline-run-*"))],
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    for word in ("PPD__", "teacher.pt", "dataset_5k", SHIPPED_TEACHER.parent.as_uri()):
        assert word in read


def test_a_methods_own_defaults_are_its_flags_defaults():
    from Distillation.Utils import METHODS as EXPERIMENTS

    for config in EXPERIMENTS.values():
        for field in dataclasses.fields(config):
            own = next(base for base in config.__mro__ if field.name in vars(base).get("__annotations__", {}))
            assert field.default == own.__dataclass_fields__[field.name].default, (config, field.name)
    assert (EXPERIMENTS["BC_phase"]().learning_rate, EXPERIMENTS["PPD"]().learning_rate) == (3e-3, 1e-3)


def test_the_readme_names_every_flag():
    from Distillation.Utils import METHODS as EXPERIMENTS

    readme = (ROOT / "README.md").read_text()
    names = {f.name for config in EXPERIMENTS.values() for f in dataclasses.fields(config)} | {*EXPERIMENTS}
    assert not [
        name for name in names | {"resume", "overwrite"} if f"--{name}`" not in readme and f"--{name} " not in readme
    ]


def test_play_scores_students_checkpoints_and_teachers(finished, tmp_path):
    folder = finished[0] / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    summary = json.loads((folder / "summary.json").read_text())
    video = tmp_path / "video.mp4"
    for file in ("last.pt", "best_ID.pt"):
        options = ["--seeds", "1900", "--json", "--device", "cpu", "--num_workers", 1, "--video", video]
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


def test_a_student_of_one_frame_is_trained_and_scored_with_one_frame(tmp_path):
    run = pusher(*flags("PPD", ONLINE, stack=1, results_dir=tmp_path))
    assert run.returncode == 0, run.stderr
    folder = run_folder(tmp_path)
    student = load_student(folder / "checkpoints" / "best_ID.pt")
    assert student.input_shapes["Frame"] == (1, 64, 128)
    play = pusher(folder, "--seeds", "1900", "--json", "--device", "cpu", script="Distillation/Play.py")
    assert play.returncode == 0, play.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert json.loads(play.stdout)["policy"]["return"] == pytest.approx(summary["OD"]["student"]["return"], rel=1e-3)


def truncated_teacher(folder):
    path = folder / "truncated.pt"
    path.write_bytes(SHIPPED_TEACHER.read_bytes()[:9999])
    return path


def foreign_teacher(folder):
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pt")
    return folder / "foreign.pt"


def test_a_gpu_without_a_number_is_the_first(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert [own_device(name) for name in ("auto", "cuda", "cuda:1")] == chosen
    assert [str(device) for device in chosen] == ["cuda:0", "cuda:0", "cuda:1"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_a_gpu_comes_to_its_end(tmp_path):
    run = pusher(*flags("PPD", ONLINE, device="auto", results_dir=tmp_path))
    assert run.returncode == 0, run.stderr
    (summary,) = tmp_path.rglob("summary.json")
    assert json.loads((summary.parent / "config.json").read_text())["device"] == "cuda:0"


BAD = {
    "no method": (["--mode", "State"], "required"),
    "two methods": (["--PPD", "--BC_phase"], "not allowed with"),
    "unknown mode": (["--PPD", "--mode", "Huge"], "ImpaalaMid"),
    "run_index": (["--PPD", "--run_index", "6"], "run_index"),
    "device": (["--PPD", "--device", "cuda:99"], "cpu"),
    "nonsense device": (["--PPD", "--device", "toaster"], "cpu"),
    "a flag of another method": (["--PPD", "--alpha", "0.6"], "BC_phase"),
    "negative alpha": (["--BC_phase", "--alpha", "-1"], "at least 0"),
    "alpha twice": (["--BC_phase", "--alpha", "0.5", "--mode_alpha", "linear"], "constant"),
    "a schedule that needs new samples": (["--BC_phase", "--mode_alpha", "dynamic_max"], "linear"),
    "unknown dataset": (["--BC_phase", "--dataset", "20k"], "50k"),
    "no dataset": (["--BC_phase", "--dataset", "5k"], "--C_data --num_data 5000 collects"),
    "no such dataset": (
        ["--BC_phase", "--dataset", "5k", "--teacher_noise", "1"],
        "--num_data 5000 --teacher_noise 1 ",
    ),
    "no samples": (["--C_data", "--num_data", "0"], "at least 1"),
    "no parent": (["--Dagger_phase"], "--folder_Dagger"),
    "a parent that is not there": (["--Dagger_phase", "--folder_Dagger", "nowhere"], "nowhere"),
    "a parent's setting": (["--Dagger_phase", "--mode", "State"], "PPD"),
    "half of an odd batch": (
        ["--Dagger_phase", "--folder_Dagger", "x", "--sampling", "balanced", "--minibatch_size", "5"],
        "even",
    ),
    "eyes for the blind": (["--BC_phase", "--random_shift", "2"], "students that see"),
    "a collection resumed": (["--C_data", "--num_data", "200", "--resume"], "goes on"),
    "unknown flag": (["--PPD", "--lamda", "5"], "--lamda"),
    "abbreviated flag": (["--PPD", "--optim", "5"], "--optim"),
    "missing teacher": (["--PPD", "--teacher", "nowhere.pt"], "nowhere.pt"),
    "truncated teacher": (["--PPD", "--teacher", truncated_teacher], "truncated.pt"),
    "not a teacher": (["--PPD", "--teacher", foreign_teacher], "foreign.pt"),
    "nothing to resume": (["--PPD", "--resume"], "nothing to resume"),
    "no updates": (["--PPD", "--optimization_steps", "0"], "at least 1"),
    "infinite lambda": (["--PPD", "--PPD_parameter", "inf"], "finite"),
    "a path as a name": (["--PPD", "--run_name", "../elsewhere"], "run_name"),
    "a lone sample": (["--PPD", "--minibatch_size", "287"], "minibatch_size"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_status_2_and_nothing_written(case, tmp_path):
    arguments, hint = BAD[case]
    arguments = [argument(tmp_path) if callable(argument) else argument for argument in arguments]
    results = tmp_path / "results"
    status, errors = outcome(main, [*map(str, arguments), "--results_dir", str(results)])
    assert status == 2
    assert errors.count("\n") == 1, errors
    assert hint in errors
    assert not results.exists()


@pytest.mark.parametrize("what", ["--C_data", "--PPD"])
def test_a_folder_that_cannot_be_is_one_line(what):
    run = pusher(what, "--results_dir", SHIPPED_TEACHER)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert "Not a directory" in run.stderr


@pytest.mark.parametrize(("backend", "mode", "hint"), [("glfw", "ImpaalaSmall", "libegl1"), ("foo", "State", "egl")])
def test_no_gl_backend_is_one_line(tmp_path, backend, mode, hint):
    environment = {"MUJOCO_GL": backend, "DISPLAY": ""}
    run = pusher("--PPD", "--mode", mode, "--results_dir", tmp_path / "results", env=environment)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1, run.stderr
    assert hint in run.stderr
    assert not (tmp_path / "results").exists()


def test_a_run_is_neither_overwritten_nor_continued_as_another(finished):
    results, _ = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    before = (folder / "metrics.csv").read_bytes()
    for extra, hint in (
        ([], "--overwrite"),
        (["--resume", "--clip", "0.2"], "clip is 0.3, not 0.2"),
        (["--resume", "--overwrite"], "give one"),
    ):
        run = pusher(*TINY, "--results_dir", results, *extra)
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1, run.stderr
        assert hint in run.stderr
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_finished_run_resumed_says_so_and_keeps_its_figures(finished):
    results, _ = finished
    folder = results / "Pusher" / "PPD" / "lambda5_ImpaalaSmall_run0"
    before = (folder / "metrics.csv").read_bytes()
    run = pusher(*TINY, "--results_dir", results, "--resume")
    assert run.returncode == 0
    assert "finished" in run.stdout
    assert (folder / "metrics.csv").read_bytes() == before


def test_the_plain_scripts_run_from_their_own_folder(tmp_path):
    run = subprocess.run(
        [sys.executable, "Mujoco_main.py", "--help"],
        cwd=ROOT / "Train_Teacher_Pusher",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0
    assert "--total-timesteps" in run.stdout


def test_a_tiny_teacher_trains_resumes_is_taken_over_and_tested(tmp_path):
    tiny = [
        "--num-envs",
        "2",
        "--gradient-steps",
        "1",
        "--hidden",
        "16",
        "--batch-size",
        "16",
        "--learning-starts",
        "40",
        "--buffer-size",
        "1000",
        "--eval-freq",
        "100",
        "--checkpoint-freq",
        "100",
        "--device",
        "cpu",
        "--wandb_mode",
        "disabled",
    ]
    train, output = "Train_Teacher_Pusher/Mujoco_main.py", ["--results-dir", tmp_path]
    run = pusher("--total-timesteps", 200, *tiny, *output, script=train)
    assert run.returncode == 0, run.stderr
    refused = pusher("--total-timesteps", 200, *tiny, *output, script=train)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    run = pusher("--total-timesteps", 400, *tiny, *output, "--resume", script=train)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "sac"
    with (folder / "metrics.csv").open() as file:
        steps = [int(row["timesteps"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400
    command = [sys.executable, ROOT / train, "--total-timesteps", "100000", *tiny, *map(str, output), "--resume"]
    endless = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while "timesteps 500" not in endless.stdout.readline():
        assert endless.poll() is None
    endless.send_signal(signal.SIGTERM)
    said, _ = endless.communicate(timeout=60)
    assert endless.returncode == 143, said
    assert "stopped and saved at update" in said
    taken = pusher(folder / "best.zip", "--output", tmp_path / "t.pt", script="Train_Teacher_Pusher/SaveWeights.py")
    assert taken.returncode == 0, taken.stderr
    options = ["--seeds", "1900-1901", "--video", tmp_path / "t.mp4"]
    tested = pusher(tmp_path / "t.pt", *options, script="Train_Teacher_Pusher/Test_Model.py")
    assert tested.returncode == 0, tested.stderr
    assert "success" in tested.stdout
    assert (tmp_path / "t.mp4").stat().st_size > 10_000
    missing = pusher(tmp_path / "none.zip", script="Train_Teacher_Pusher/SaveWeights.py")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    # Killed while a checkpoint was replaced: its files are of one moment all the same. Damaged: one line.
    from Train_Teacher_Pusher.callbacks import finish_checkpoint

    for name in ("last.zip", "last_replay.pkl"):
        (folder / name).rename(folder / f"writing_{name}")
    whole = (folder / "last_vecnormalize.pkl").read_bytes(), (folder / "writing_last.zip").read_bytes()
    finish_checkpoint(folder, "last")
    assert not list(folder.glob("writing_*"))
    assert ((folder / "last_vecnormalize.pkl").read_bytes(), (folder / "last.zip").read_bytes()) == whole
    for name in ("writing_last_vecnormalize.pkl", "writing_last.zip"):  # killed before: of no account
        (folder / name).write_bytes(b"half")
    finish_checkpoint(folder, "last")
    assert (folder / "last.zip").read_bytes() == whole[1]
    for name in ("last_replay.pkl", "last_vecnormalize.pkl", "last.zip"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        resumed = pusher("--total-timesteps", 900, *tiny, *output, "--resume", script=train)
        assert resumed.returncode == 2, resumed.stderr
        lines = resumed.stderr.splitlines()
        assert [line for line in lines if not line.startswith("warning: ")] == lines[-1:]
        (folder / name).write_bytes(content)


def run_folder(results):
    (config,) = results.rglob("config.json")
    return config.parent


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    results = tmp_path_factory.mktemp("collected")
    run = pusher("--C_data", "--num_data", 5000, "--num_workers", 1, "--results_dir", results)
    assert run.returncode == 0, run.stderr
    return results


@pytest.fixture
def results(collected, tmp_path):
    """A folder of results with a dataset in it and no run."""
    (tmp_path / "Pusher").mkdir()
    (tmp_path / "Pusher" / "Teacher").symlink_to(collected / "Pusher" / "Teacher")
    return tmp_path


METHODS = {
    "Sdistillation": (ONLINE, "StudentDistillation/rl1_ImpaalaSmall_run0"),
    "Tdistillation": (ONLINE | {"final_episodes": 3}, "TeacherDistillation/noise3_ImpaalaSmall_run0"),
    "BC_phase": (
        SMALL | {"dataset": "5k", "alpha": 0.6},
        "OurAlgorithm1_NLL/Phase_One/5k_alpha0.6_NLL_ImpaalaSmall_run0",
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_tiny_run_fills_its_folder_and_a_cut_one_resumes_exactly(method, results, tmp_path):
    settings, name = METHODS[method]
    run = pusher(*flags(method, settings, results_dir=results))
    assert run.returncode == 0, run.stderr
    folder = results / "Pusher" / name
    config = json.loads((folder / "config.json").read_text())
    assert config["method"] == method
    rows = metrics(folder)
    assert rows[-1]["x_axis/optimization_steps"] == "4"
    assert math.isfinite(float(rows[-1]["training/action_accuracy"]))
    assert math.isfinite(float(rows[-1]["test/OD/normalized_return"]))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["optimization_steps"] == 4
    assert [summary[part]["zero"]["episodes"] for part in ("ID", "OD")] == [1, settings["final_episodes"]]
    for file in ("checkpoints/last.pt", "checkpoints/best_ID.pt", "videos/final_OD.mp4", "curve.png"):
        assert (folder / file).stat().st_size > 10_000
    if method == "BC_phase":
        assert "buffer/priority_mean" in rows[-1]
        return  # cloning is cut and resumed below
    again = results / "again"
    pusher_cut_at(tmp_path, 2, *flags(method, settings, results_dir=again, num_workers=2))
    resumed = pusher(*flags(method, settings, results_dir=again), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(run_folder(again)) == rows


def test_cloning_the_state_then_dagger_both_cut_and_resumed(results, tmp_path):
    long = SMALL | {"optimization_steps": 300, "test_every": 200, "dataset": "5k", "loss_type": "KL", "alpha": 0.6}
    cloning = flags("BC_phase", long, mode="State", results_dir=results)
    run = pusher(*cloning)
    assert run.returncode == 0, run.stderr
    again = [*cloning, "--run_name", "again"]
    pusher_cut_at(tmp_path, 200, *again)
    resumed = pusher(*again, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    parent = results / "Pusher" / "OurAlgorithm1_KL" / "Phase_One" / "5k_alpha0.6_KL_State_run0"
    assert metrics(parent.with_name("again")) == metrics(parent)
    assert [row["test/OD/return"] != "" for row in metrics(parent)] == [True, False, True, True]
    settings = {
        **{name: value for name, value in SMALL.items() if name not in ("mode", "test_every")},
        "folder_Dagger": parent,
        "mode_alpha": "dynamic_mean",
        "sampling": "balanced",
        "rollout_samples": 200,
        "num_envs": 2,
        "optimization_steps": 500,
        "rollout_updates": 250,
        "test_every": 250,
        "results_dir": results,
    }
    run = pusher(*flags("Dagger_phase", settings))
    assert run.returncode == 0, run.stderr
    folder = results / "Pusher" / "OurAlgorithm1_KL" / "Phase_Two" / "5k_alpha0.6_KL_State_run0_dynamic_mean_balanced"
    rows = metrics(folder)
    assert [rows[i]["x_axis/samples_collected"] for i in (0, 1, -1)] == ["5000", "5200", "5400"]
    assert rows[-1]["buffer/new_share"] == "0.5"
    # Cut in the second rollout: the checkpoint is put back to what it was before the first.
    again = {**settings, "run_name": "again", "num_workers": 2}
    pusher_cut_at(tmp_path, 300, *flags("Dagger_phase", again))
    resumed = pusher(*flags("Dagger_phase", again), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(folder.with_name("again")) == rows

    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*.*"))
    checkpoint = parent / "checkpoints" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    refused = pusher(*flags("Dagger_phase", settings), "--overwrite")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "damaged" in refused.stderr
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*.*")) == before
    checkpoint.unlink()
    for change, hint in (
        ({}, "last.pt"),
        ({"folder_Dagger": folder}, "--Dagger_phase"),
        ({"folder_Dagger": results}, "no"),
    ):
        refused = pusher(*flags("Dagger_phase", settings | {"run_name": "refused"}, **change))
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert hint in refused.stderr
    assert not folder.with_name("refused").exists()


def test_dagger_of_a_student_that_sees(results):
    cloning = SMALL | {
        "dataset": "5k",
        "random_shift": 2,
        "frame_noise": 2,
        "results_dir": results,
        "run_name": "parent",
    }
    run = pusher(*flags("BC_phase", cloning))
    assert run.returncode == 0, run.stderr
    phases = results / "Pusher" / "OurAlgorithm1_NLL"
    settings = {name: value for name, value in SMALL.items() if name != "mode"}
    settings |= {"num_envs": 2, "rollout_samples": 200, "rollout_updates": 4, "beta_mix": 0.5, "results_dir": results}
    run = pusher(*flags("Dagger_phase", settings, folder_Dagger=phases / "Phase_One" / "parent"))
    assert run.returncode == 0, run.stderr
    rows = metrics(phases / "Phase_Two" / "parent_alpha0_classic")
    assert rows[-1]["x_axis/samples_collected"] == "5200"
    assert math.isfinite(float(rows[-1]["test/OD/return"]))
    before = json.loads((phases / "Phase_Two" / "parent_alpha0_classic" / "config.json").read_text())["before"]
    cloned = json.loads((phases / "Phase_One" / "parent" / "summary.json").read_text())
    assert before["x_axis/optimization_steps"] == cloned["optimization_steps"]
    assert before["time/elapsed_s"] == pytest.approx(cloned["training_seconds"], abs=0.06)  # which is rounded


def test_a_dataset_with_other_settings_is_refused(results, tmp_path):
    settings = SMALL | {"dataset": "5k", "results_dir": results}
    other_render = pusher(*flags("BC_phase", settings), "--render_quality", "full")
    meta = results / "Pusher" / "Teacher" / "dataset_5k" / "meta.json"
    before = meta.read_text()
    meta.write_text(before.replace('teacher_sha256": "', 'teacher_sha256": "00'))
    other_teacher = pusher(*flags("BC_phase", settings))
    meta.write_text(before)
    frames = meta.with_name("frame.npy")
    content = frames.read_bytes()
    frames.write_bytes(content[:-100])
    truncated = pusher(*flags("BC_phase", settings))
    frames.write_bytes(content)
    for run, hint in ((other_render, '"quality": "full"'), (other_teacher, "teacher_sha256"), (truncated, "damaged")):
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert hint in run.stderr
    assert not (results / "Pusher" / "OurAlgorithm1_NLL").exists()
    again = pusher("--C_data", "--num_data", 5000, "--results_dir", results)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "--overwrite" in again.stderr


def test_a_full_disk_leaves_no_dataset(tmp_path):
    """No file may grow beyond 1 MB."""
    collect = ["--C_data", "--num_data", "200", "--num_envs", "2", "--num_workers", "1", "--results_dir", str(tmp_path)]
    run = subprocess.run(
        [
            "bash",
            "-c",
            'ulimit -f 1000; exec "$@"',
            "bash",
            sys.executable,
            str(ROOT / "Distillation/Pusher.py"),
            *collect,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2, run.stderr
    assert "File too large" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "Pusher" / "Teacher" / "dataset_200").exists()


def test_a_missing_dataset_is_collected_on_demand(tmp_path):
    run = pusher(
        *flags("BC_phase", SMALL, mode="State", dataset="5k", results_dir=tmp_path), "--collect", "--teacher_noise", 1
    )
    assert run.returncode == 0, run.stderr
    meta = json.loads((tmp_path / "Pusher" / "Teacher" / "dataset_5k_noise1_0" / "meta.json").read_text())
    assert (meta["teacher_noise"], meta["noise_correlation"]) == (1.0, 0.0)
