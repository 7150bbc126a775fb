"""Students that see in colour, in depth, by two cameras, and by frames alone, through the commands."""

import numpy as np
import pytest
import torch

from Algorithm.Dataset import open_dataset
from Algorithm.Minari_export import export_minari
from Algorithm.Policies import open_policy
from Common.Files import read_json
from Distillation import Check, Inspection
from Distillation.Pusher import main
from Enviroment.Tasks import TASKS
from tests.helpers import ONLINE, SMALL, flags, outcome, pusher, run_folder


def run(*arguments, **settings):
    done = pusher(*arguments, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_frames_alone_of_two_cameras_in_colour(tmp_path):
    """PPD, from the run's own folder to its film."""
    settings = ONLINE | {"results_dir": tmp_path, "frames": "rgb", "proprioception": "none", "background": "off"}
    run(*flags("PPD", settings), "--cameras", "wrist", "side")
    folder = run_folder(tmp_path)
    assert folder.name == "lambda5_ImpaalaSmall_run0_side_wrist_rgb"
    config = read_json(folder / "config.json")
    assert (config["cameras"], config["frames"], config["proprioception"]) == (["side", "wrist"], "rgb", "none")
    assert {name: camera["frames"] for name, camera in config["render"]["cameras"].items()} == {
        "side": "rgb",
        "wrist": "rgb",
    }
    student, _, task = open_policy(folder)
    assert student.input_shapes == {"side": (4, 3, 64, 128), "wrist": (4, 3, 64, 64)}
    assert list(task.seen) == ["side", "wrist"]
    assert all((student.background(image) == 128).all() for image in student.images)
    film = tmp_path / "film.gif"
    run(folder, "--seeds", "1900", "--num_workers", 1, "--video", film, script="Distillation/Play.py")
    assert film.stat().st_size > 10_000


def test_depth_of_two_cameras_from_the_dataset_to_dagger(tmp_path):
    """Collection, an export to Minari, cloning, and DAgger, which inherits the cameras."""
    minari = pytest.importorskip("minari")
    cameras = ["--frames", "depth", "--cameras", "Frame", "wrist"]
    places = {"results_dir": tmp_path, "num_workers": 1}
    run(*flags("C_data", places, num_data=5000), *cameras)
    dataset = open_dataset(tmp_path / "Pusher" / "Teacher" / "dataset_5k_Frame_wrist_depth")
    frames = {name: values for name, values in dataset.fields.items() if name.startswith("frame")}
    assert {name: values.shape for name, values in frames.items()} == {
        "frame": (5000, 64, 128),
        "frame_wrist": (5000, 64, 64),
    }
    assert min(values[::100].std() for values in frames.values()) > 5
    task = TASKS["Pusher"].seen_by(("Frame", "wrist"), "depth")
    export_minari(dataset.prefix(100), task, tmp_path / "minari")
    episodes = minari.MinariDataset(tmp_path / "minari").iterate_episodes()
    exported = np.concatenate([episode.observations["wrist"][:-1] for episode in episodes])
    np.testing.assert_array_equal(exported[:100], frames["frame_wrist"][:100])
    cloning = flags("BC_phase", SMALL, results_dir=tmp_path, dataset="5k", loss_type="KL", run_name="parent")
    assert "no dataset_5k in" in outcome(main, cloning)[1]  # that one is of other cameras
    errors = outcome(main, [*cloning, "--cameras", "side"])[1]
    assert "--num_data 5000 --cameras side collects it" in errors
    run(*cloning, "--augment", "shift=2", *cameras)
    parent = tmp_path / "Pusher" / "OurAlgorithm1_KL" / "Phase_One" / "parent"
    run(
        *flags("Dagger_phase", places, folder_Dagger=parent, optimization_steps=4, test_every=2, episodes=1),
        *flags("x", {"final_episodes": 1, "num_envs": 2, "rollout_samples": 200, "device": "cpu"})[1:],
        *("--wandb_mode", "disabled", "--robustness_episodes", "0"),
    )
    (folder,) = (tmp_path / "Pusher" / "OurAlgorithm1_KL" / "Phase_Two").glob("parent_*")
    assert read_json(folder / "config.json")["render"] == read_json(parent / "config.json")["render"]
    student, _, task = open_policy(folder)
    assert student.input_shapes == {"PartialState": (17,), "Frame": (4, 64, 128), "wrist": (4, 64, 64)}
    assert task.selection == "_Frame_wrist_depth"
    assert student.background("wrist").std() > 5


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--PPD", "--mode", "ImpaalaSmall", "--cameras", "top"], "--cameras top: Pusher has Frame, side, wrist"),
        (["--PPD", "--mode", "ImpaalaSmall", "--frames", "grey"], "--frames grey: one of own, gray, rgb, depth"),
        (["--PPD", "--proprioception", "none"], "proprioception is for students that see"),
        (["--PPD", "--cameras", "side"], "cameras is for students that see"),
    ],
)
def test_bad_cameras_are_one_line(words, hint, tmp_path):
    status, errors = outcome(main, [*words, "--results_dir", str(tmp_path / "results")])
    assert (status, errors.count("\n")) == (2, 1), errors
    assert hint in errors
    assert not (tmp_path / "results").exists()


def test_a_check_looks_through_each_camera(tmp_path, monkeypatch, capsys):
    for name, value in {"EPISODES": range(2000, 2001), "NUM_ENVS": 4, "STEPS": 8}.items():
        monkeypatch.setattr(Inspection, name, value)
    monkeypatch.setattr(Inspection, "_hours", lambda *arguments: 1.0)
    monkeypatch.setattr("Algorithm.Probe.UPDATES", 2)
    torch.manual_seed(0)
    Check.main(["--cameras", "Frame", "side", "--frames", "rgb", "--output", str(tmp_path)])
    said = capsys.readouterr().out
    assert "what 4 frames of Frame tell" in said
    assert "what 4 frames of side tell" in said
    assert read_json(tmp_path / "check_Frame_side_rgb.json")["camera"]["read"].keys() == {"Frame", "side"}
    assert (tmp_path / "check_Frame_side_rgb.png").stat().st_size > 1000
