"""Every method's runs, whole, cut and resumed."""

import json
import math

import pytest
import torch

from Common import Machine
from Distillation import Experiment
from Distillation.Experiment import own_device
from Distillation.Pusher import main
from tests.helpers import ONLINE, SMALL, flags, metrics, outcome, pusher, pusher_cut_at, run_folder


def test_a_gpu_without_a_number_is_the_first(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(Machine, "_failure_of", lambda device: "")
    assert [own_device(name) for name in ("auto", "cuda", "cuda:1")] == chosen
    assert [str(device) for device in chosen] == ["cuda:0", "cuda:0", "cuda:1"]


def test_what_only_decorates_a_run_may_fail_and_is_made_up_for(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no\nencoder")

    words = flags("PPD", ONLINE, mode="State", robustness_episodes=2, video_every=2, results_dir=tmp_path)
    with monkeypatch.context() as broken:
        for name in ("write_video", "draw", "write_page", "robustness"):
            broken.setattr(Experiment, name, fail)
        status, errors = outcome(main, words)
    assert status == 0, errors
    lines = [line.partition(" failed, and the run goes on without: ") for line in errors.splitlines()]
    assert {reason for _, _, reason in lines} == {"no encoder"}
    videos = [f"warning: the video {name}_OD.mp4" for name in ("0000002", "final")]
    names = [videos[0], "warning: the report of robustness", videos[1], "warning: the curve", "warning: the page"]
    assert [name for name, _, _ in lines] == names
    folder = run_folder(tmp_path)
    assert "OD" in json.loads((folder / "summary.json").read_text())
    monkeypatch.setattr(Experiment, "write_video", lambda *_, **__: None)
    assert outcome(main, [*words, "--resume", "--robustness_episodes", "0"]) == (0, "")
    assert (folder / "page.html").is_file()


METHODS = {
    "Sdistillation": (ONLINE, "StudentDistillation/rl1_ImpaalaSmall_run0"),
    "Tdistillation": (ONLINE | {"final_episodes": 2}, "TeacherDistillation/noise3_ImpaalaSmall_run0"),
    "BC_phase": (
        SMALL | {"dataset": "5k", "alpha": 0.6},
        "OurAlgorithm1_NLL/Phase_One/5k_alpha0.6_NLL_ImpaalaSmall_run0",
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_tiny_run_fills_its_folder_and_a_cut_one_resumes_exactly(method, results, tmp_path):
    settings, name = METHODS[method]
    run = pusher(*flags(method, settings, results_dir=results), without=())
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


def check_fine_tuning(results, cloned, aggregated):
    """A run of cloning and one of DAgger's best checkpoint are trained further."""
    online = ONLINE | {"mode": "State", "results_dir": results, "optimization_steps": 2}
    for source in (cloned, aggregated / "checkpoints" / "best_ID.pt"):
        tuned = pusher(*flags("PPD", online, start_from=source, run_name="tuned"), "--overwrite")
        assert tuned.returncode == 0, tuned.stderr
        first = metrics(results / "Pusher" / "PPD" / "tuned")[0]
        tested = [row for row in metrics(source if source is cloned else aggregated) if row["test/OD/return"]]
        assert first["test/ID/return"] in {row["test/ID/return"] for row in tested}
        config = json.loads((results / "Pusher" / "PPD" / "tuned" / "config.json").read_text())
        assert config["parent"]["method"] == ("BC_phase" if source is cloned else "Dagger_phase")
        assert f"from {'BC' if source is cloned else 'DAgger'} State 5k KL" in config["label"]


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

    check_fine_tuning(results, parent, folder)
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
        "augment": ("shift=2", "noise=2"),
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
