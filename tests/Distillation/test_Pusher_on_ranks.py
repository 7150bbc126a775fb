"""Runs on two ranks on the CPU: one run, one end."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from Algorithm.Checkpoint import Checkpoint
from tests import warm
from tests.helpers import PICTURES, ROOT, TORCHRUN, flags, metrics, pusher, run_folder, shared, weights

STATE = {
    "mode": "State",
    "test_every": 1000,
    "episodes": 1,
    "final_episodes": 1,
    "robustness_episodes": 0,
    "video_every": 0,
    "device": "cpu",
    "wandb_mode": "disabled",
}
ONLINE = STATE | {"num_envs": 4, "rollout_steps": 16, "minibatch_size": 32, "optimization_steps": 16}


def ranks(*arguments, without=PICTURES):
    """Run `Pusher.py` on two ranks; returns it and what it said itself on stderr."""
    words = [*TORCHRUN, ROOT / "Distillation" / "Pusher.py", *map(str, arguments)]
    run = warm.run(words, without=without)
    return run, [line for line in run.stderr.splitlines() if line.startswith("Pusher.py")]


def wait_for_rows(folder, job):
    rows = folder / "metrics.csv"
    while not rows.exists() or rows.read_text().count("\n") < 5:
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)


@pytest.fixture(scope="session")
def cloned(tmp_path_factory):
    """A dataset, and one run of cloning on one rank and on two."""

    def make(results):
        settings = STATE | {"dataset": "5k", "loss_type": "KL", "alpha": 0.6, "optimization_steps": 200}
        for name, start in (("two", lambda *words: ranks(*words, "--collect")[0]), ("one", pusher)):
            run = start(*flags("BC_phase", settings, results_dir=results, run_name=name))
            assert run.returncode == 0, run.stderr
        settings |= {
            "alpha": 0,
            "memory": "gru",
            "minibatch_size": 80,
            "optimization_steps": 4,
        }  # 5 windows for 2 ranks
        run = ranks(*flags("BC_phase", settings, results_dir=results, run_name="recurrent"))[0]
        assert run.returncode == 0, run.stderr

    return shared(tmp_path_factory, "cloned", make)[0]


def test_cloning_on_two_ranks_draws_the_same_samples_and_learns_the_same(cloned):
    one, two = (cloned / "Pusher" / "OurAlgorithm1_KL" / "Phase_One" / name for name in ("one", "two"))
    for row, other in zip(metrics(one), metrics(two), strict=True):
        for key, value in row.items():
            if value and key.startswith(("x_axis/", "buffer/")):
                assert float(other[key]) == pytest.approx(float(value), rel=1e-2), key
            elif key in ("training/loss", "test/OD/return"):
                assert not value or float(other[key]) == pytest.approx(float(value), rel=2e-2), key
    last = weights(two)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, last[name], rtol=0.05, atol=5e-3, msg=name)


def test_dagger_on_two_ranks_adds_the_same_episodes(cloned):
    parent = cloned / "Pusher" / "OurAlgorithm1_KL" / "Phase_One" / "one"
    settings = {k: v for k, v in STATE.items() if k != "mode"} | {"folder_Dagger": parent, "sampling": "balanced"}
    settings |= {"num_envs": 3, "rollout_samples": 500, "rollout_updates": 50, "optimization_steps": 100}
    for name, start in (("one", pusher), ("two", lambda *words: ranks(*words)[0])):
        run = start(*flags("Dagger_phase", settings, results_dir=cloned, run_name=name))
        assert run.returncode == 0, run.stderr
    one, two = (metrics(cloned / "Pusher" / "OurAlgorithm1_KL" / "Phase_Two" / name) for name in ("one", "two"))
    for row, other in zip(one, two, strict=True):
        for key in ("x_axis/samples_collected", "training/episode_return", "training/loss", "buffer/new_share"):
            assert not row[key] or float(other[key]) == pytest.approx(float(row[key]), rel=2e-2), key


def test_rollouts_on_two_ranks_count_and_learn_as_on_one(tmp_path):
    settings = ONLINE | {"optimization_steps": 240, "num_envs": 6, "minibatch_size": 24}
    for name, start in (("one", pusher), ("two", lambda *words: ranks(*words)[0])):
        run = start(*flags("PPD", settings, results_dir=tmp_path, run_name=name))
        assert run.returncode == 0, run.stderr
    one, two = (metrics(tmp_path / "Pusher" / "PPD" / name) for name in ("one", "two"))
    for key in ("x_axis/optimization_steps", "x_axis/samples_collected", "x_axis/samples_seen"):
        assert [row[key] for row in one] == [row[key] for row in two]
    curves = [[float(row["training/distillation_kl"]) for row in rows[1:]] for rows in (one, two)]
    first, last = (np.array([curve[part] for curve in curves]) for part in (slice(0, 3), slice(-5, None)))
    assert (last.mean(1) < 0.5 * first.mean(1)).all()
    assert 0.5 < last[0].mean() / last[1].mean() < 2


@pytest.mark.parametrize("method", ["Sdistillation", "Tdistillation"])
def test_the_other_methods_run_on_two_ranks(method, tmp_path):
    run, _ = ranks(*flags(method, ONLINE, results_dir=tmp_path), without=() if method == "Sdistillation" else PICTURES)
    assert run.returncode == 0, run.stderr
    counts = [metrics(run_folder(tmp_path))[-1][f"x_axis/{what}"] for what in ("samples_collected", "samples_seen")]
    assert counts == ["128", "512"]


def test_a_run_on_two_ranks_goes_on_exactly_and_on_two_only(tmp_path):
    command = flags("PPD", ONLINE, optimization_steps=240, checkpoint_every=0, results_dir=tmp_path)
    run, _ = ranks(*command, "--run_name", "unbroken")
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "Pusher" / "PPD" / "cut"
    words = [*TORCHRUN, ROOT / "Distillation" / "Pusher.py", *command, "--run_name", "cut"]
    with warm.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        wait_for_rows(folder, job)
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        for pid in (*map(int, children), job.pid):  # as a batch system does; torchrun then tells the ranks once more
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.02)
        _, errors = job.communicate(timeout=100)
    assert job.returncode != 0
    assert errors.count("stopped and saved at update") == 1, errors
    assert Checkpoint.load(folder / "checkpoints" / "last.pt").updates < 240
    alone = pusher(*command, "--run_name", "cut", "--resume")
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1), alone.stderr
    assert "ranks is 2, not 1" in alone.stderr
    run, _ = ranks(*command, "--run_name", "cut", "--resume")
    assert run.returncode == 0, run.stderr
    unbroken = folder.with_name("unbroken")
    assert metrics(folder) == metrics(unbroken)
    expected = weights(unbroken)
    assert all(torch.equal(value, expected[name]) for name, value in weights(folder).items())


def test_a_rank_that_dies_ends_the_job(tmp_path):
    command = flags("PPD", ONLINE, optimization_steps=1_000_000, results_dir=tmp_path)
    words = [*TORCHRUN, ROOT / "Distillation" / "Pusher.py", *command]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        wait_for_rows(tmp_path / "Pusher" / "PPD" / "lambda5_State_run0", job)
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        second = [pid for pid in children if "RANK=1" in Path(f"/proc/{pid}/environ").read_text().split("\0")]
        os.kill(int(second[0]), signal.SIGKILL)
        began = time.monotonic()
        _, errors = job.communicate(timeout=100)
    assert time.monotonic() - began < 60
    assert job.returncode != 0
    said = [line for line in errors.splitlines() if line.startswith("Pusher.py")]
    assert len(said) == 1, errors
    assert "rank 0: another rank has ended" in said[0]
    assert Checkpoint.load(run_folder(tmp_path) / "checkpoints" / "last.pt")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (flags("PPD", ONLINE, minibatch_size=33), "--minibatch_size 33 cannot be shared by 2 ranks"),
        (flags("PPD", ONLINE, clip=-1), "--clip"),
        (flags("BC_phase", STATE, dataset="10k"), "no dataset_10k"),
    ],
)
def test_what_ranks_cannot_do_is_said_once(words, hint, tmp_path):
    run, said = ranks(*words, "--results_dir", tmp_path)
    assert run.returncode != 0
    assert len(said) == 1, run.stderr
    assert hint in said[0]
    assert not list(tmp_path.iterdir())


def test_ranks_with_different_settings_are_refused(tmp_path):
    script = tmp_path / "differ.py"
    script.write_text(
        "import os, sys\nfrom Distillation.Pusher import main\n"
        "if __name__ == '__main__':\n    main([*sys.argv[1:], '--clip', f\"0.{1 + int(os.environ['RANK'])}\"])\n"
    )
    words = [*TORCHRUN, script, *flags("PPD", ONLINE, results_dir=tmp_path / "results")]
    run = warm.run(words)
    said = [line for line in run.stderr.splitlines() if "error: rank" in line]
    assert len(said) == 1, run.stderr
    assert "ranks 1 and 0 have other settings: clip is 0.2, not 0.1" in said[0]
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
def test_two_gpus_train_save_and_go_on(tmp_path):
    command = flags("PPD", ONLINE, device="cuda", mode="ImpaalaSmall", results_dir=tmp_path)
    run, _ = ranks(*command)
    assert run.returncode == 0, run.stderr
    run, _ = ranks(*command, "--resume")
    assert run.returncode == 0, run.stderr
    assert "is finished" in run.stdout
