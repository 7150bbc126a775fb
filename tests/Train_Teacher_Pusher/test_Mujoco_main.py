"""The teacher's training from its command line, and what becomes of it."""

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import Train_Teacher_Pusher.Mujoco_main as mujoco_main
from Common.Errors import RunError
from Enviroment.Tasks import TASKS
from tests import warm
from tests.helpers import ROOT, TRIES, VALUES, byte_code, check, outcome, pusher
from Train_Teacher_Pusher import callbacks
from Train_Teacher_Pusher.callbacks import finish_checkpoint
from Train_Teacher_Pusher.SaveWeights import save_weights
from Train_Teacher_Pusher.Settings import ALGORITHMS, RUNS, PPOConfig

TRAIN, SAVE_WEIGHTS = "Train_Teacher_Pusher/Mujoco_main.py", "Train_Teacher_Pusher/SaveWeights.py"
TINY = (
    "--num-envs 2 --hidden 16 --batch-size 16 --eval-freq 100 --checkpoint-freq 100 --device cpu --wandb_mode disabled"
)
OFF_POLICY = "--gradient-steps 1 --learning-starts 40 --buffer-size 1000"
OWN = {"ppo": "--n-steps 40 --n-epochs 2"}  # rollouts of 80 steps


def tiny(algorithm, folder, *more):
    own = OWN.get(algorithm, OFF_POLICY)
    return [*more, "--algorithm", algorithm, *TINY.split(), *own.split(), "--results-dir", folder]


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


@pytest.fixture
def train(monkeypatch):
    """Call the program in this process, with few episodes and no film; returns its status and stderr."""
    monkeypatch.setattr(callbacks, "TEACHER_SELECTION_SEEDS", range(1800, 1802))
    monkeypatch.setattr(callbacks, "write_video", lambda *_, **__: None)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["Mujoco_main.py", *map(str, words)])
        return outcome(mujoco_main.main)

    return call


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_tiny_teacher_trains_resumes_and_is_taken_over(algorithm, train, tmp_path, capsys):
    if algorithm == "tqc":
        pytest.importorskip("sb3_contrib")
    words, folder = tiny(algorithm, tmp_path, "--task", "Reacher"), tmp_path / algorithm
    assert train(*words, "--total-timesteps", 160, "--resume") == (0, "")  # a job's first start
    status, errors = train(*words, "--total-timesteps", 160)
    assert (status, errors.count("\n")) == (2, 1)
    assert "--resume with more --total-timesteps trains a finished one further" in errors
    config = json.loads((folder / "config.json").read_text())
    assert config == vars(RUNS[algorithm].of(config).config)
    if algorithm == "sac":  # the file of an older run
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "algorithm"}))
    status, errors = train(*words, "--total-timesteps", 320, "--resume", "--gamma", "0.5")
    assert (status, errors.count("\n")) == (2, 1)
    assert f"has other settings: gamma is {config['gamma']}, not 0.5; --resume with more --total-t" in errors
    assert train(*words, "--total-timesteps", 320, "--resume") == (0, "")
    assert byte_code(folder / "last.zip") == byte_code(folder / "best.zip") == []
    assert (folder / "last_replay.pkl").exists() == (algorithm != "ppo")
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["timesteps"]) for row in rows] == [
        100,
        160,
        200,
        300,
        320,
    ]  # at the same steps as a run in one piece
    assert ("entropy_coefficient" in rows[0]) == (algorithm in ("sac", "tqc"))
    updates = [int(row["updates"]) for row in rows]
    assert 0 < updates[1] < updates[3]
    save_weights(folder / "best.zip", TASKS["Reacher"], tmp_path / "t.pt")
    assert f"original    {algorithm.upper()}" in capsys.readouterr().out


@pytest.mark.parametrize("algorithm", ["sac", "ppo"])
def test_a_stopped_or_killed_run_keeps_what_it_saved(algorithm, train, tmp_path):
    words, folder = tiny(algorithm, tmp_path, "--task", "Reacher"), tmp_path / algorithm
    command = [sys.executable, ROOT / TRAIN, "--total-timesteps", "100000", *words]
    endless = warm.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while "timesteps 100" not in endless.stdout.readline():
        assert endless.poll() is None
    stop = signal.SIGUSR1 if algorithm == "ppo" else signal.SIGTERM
    endless.send_signal(stop)
    said, _ = endless.communicate(timeout=60)
    assert endless.returncode == 128 + stop, said
    assert "stopped and saved at update" in said
    # Killed while a checkpoint was replaced: its files are of one moment all the same. Damaged: one line.
    files = sorted(path.name for path in folder.glob("last*"))
    for name in files:
        if "vecnormalize" not in name:
            (folder / name).rename(folder / f"writing_{name}")
    whole = (folder / "last_vecnormalize.pkl").read_bytes(), (folder / "writing_last.zip").read_bytes()
    finish_checkpoint(folder, "last")
    assert not list(folder.glob("writing_*"))
    assert ((folder / "last_vecnormalize.pkl").read_bytes(), (folder / "last.zip").read_bytes()) == whole
    for name in ("writing_last_vecnormalize.pkl", "writing_last.zip"):  # killed before: of no account
        (folder / name).write_bytes(b"half")
    finish_checkpoint(folder, "last")
    assert (folder / "last.zip").read_bytes() == whole[1]
    assert not list(folder.glob("writing_*"))
    for name in files:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        status, errors = train(*words, "--total-timesteps", 900, "--resume")
        assert (status, errors.count("\n")) == (2, 1)
        (folder / name).write_bytes(content)
    config, metrics = (folder / "config.json").read_bytes(), (folder / "metrics.csv").read_text()
    for damaged in (metrics[: metrics.rindex(",")], metrics + "1,2\n", "\0"):
        (folder / "metrics.csv").write_text(damaged)
        status, errors = train(*words, "--total-timesteps", 900, "--resume")
        assert (status, errors.count("\n")) == (2, 1), damaged
        assert (folder / "config.json").read_bytes() == config, "nothing is written before all is read"


def test_metrics_have_no_row_of_a_best_checkpoint_that_was_not_saved(train, tmp_path, monkeypatch):
    def killed(model, folder, name, replay=False):
        assert name == "best"
        sys.exit(9)

    monkeypatch.setattr(callbacks, "save_checkpoint", killed)
    assert train(*tiny("sac", tmp_path, "--task", "Reacher"), "--total-timesteps", 100) == (9, "")
    assert (tmp_path / "sac" / "metrics.csv").read_text().count("\n") == 1  # the columns


def test_a_film_that_fails_costs_a_line(train, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(callbacks, "write_video", fail)
    status, errors = train(*tiny("sac", tmp_path, "--task", "Reacher"), "--total-timesteps", 100)
    assert (status, errors.count("\n")) == (0, 1), errors
    assert "the video of the best checkpoint failed" in errors


def test_a_worker_that_dies_in_the_films_episodes_leaves_the_film_to_a_resumption(train, tmp_path, monkeypatch):
    evaluate, words = callbacks.evaluate, (*tiny("sac", tmp_path, "--task", "Reacher"), "--total-timesteps", 100)
    films = []

    def die(*arguments, recording=None, **keywords):
        if recording is not None:
            raise RunError("worker 0 died")
        return evaluate(*arguments, **keywords)

    monkeypatch.setattr(callbacks, "write_video", lambda path, *_, **__: films.append(path))
    monkeypatch.setattr(callbacks, "evaluate", die)
    status, errors = train(*words)
    assert (status, errors.count("\n"), films) == (1, 1, []), errors
    monkeypatch.setattr(callbacks, "evaluate", evaluate)
    assert train(*words, "--resume")[0] == 0
    assert films == [tmp_path / "sac" / "best.mp4"]


def test_a_taken_over_teacher_is_tested(tmp_path):
    shipped = ROOT / "Results/Pusher/Teacher/teacher.pt"
    options = ["--seeds", "1900", "--video", tmp_path / "t.mp4"]
    tested = pusher(shipped, *options, script="Train_Teacher_Pusher/Test_Model.py")
    assert tested.returncode == 0, tested.stderr
    assert "success" in tested.stdout
    assert (tmp_path / "t.mp4").stat().st_size > 10_000
    missing = pusher(tmp_path / "none.zip", script=SAVE_WEIGHTS)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("task", TASKS)
def test_the_recipe_of_every_task_is_one_of_every_algorithm(task, algorithm):
    run = mujoco_main.parse(["--task", task, "--algorithm", algorithm])[0]
    values, training = run.flat(), TASKS[task].training
    assert {name: values[name] for name in training if name in values} == {
        name: value for name, value in training.items() if name in values
    }
    assert (run.config.task, run.name) == (task, algorithm)


def test_pushers_settings_are_those_of_the_shipped_teacher():
    assert vars(mujoco_main.parse([])[0].config) == {
        "task": "Pusher",
        "algorithm": "sac",
        "total_timesteps": 3_000_000,
        "seed": 0,
        "num_envs": 32,
        "learning_rate": 1e-3,
        "learning_rate_end": 1e-4,
        "batch_size": 256,
        "gamma": 0.98,
        "hidden": 128,
        "device": "auto",
        "gradient_steps": 8,
        "tau": 0.01,
        "buffer_size": 1_000_000,
        "learning_starts": 5_000,
    }
    env = TASKS["Pusher"].make(**TASKS["Pusher"].training_keywords)
    assert env.unwrapped._reward_dist_weight == 2
    env.close()


@pytest.fixture
def trained(monkeypatch):
    """Give Reacher a recipe."""

    def give(training):
        monkeypatch.setitem(TASKS, "Reacher", replace(TASKS["Reacher"], training=training))

    return give


def test_a_flag_precedes_the_recipe_and_that_the_default(trained):
    trained({"algorithm": "ppo", "gamma": 0.5, "n_steps": 128, "learning_rate": 0.01, "tau": 0.5})
    config = mujoco_main.parse(["--task", "Reacher", "--learning-rate", "0.02"])[0].config
    assert config == PPOConfig(task="Reacher", algorithm="ppo", gamma=0.5, n_steps=128, learning_rate=0.02)
    config = mujoco_main.parse(["--task", "Reacher", "--algorithm", "td3"])[0].config
    assert (config.algorithm, config.gamma, config.tau, config.num_envs) == ("td3", 0.5, 0.5, 32)


@pytest.mark.parametrize(
    ("words", "training", "message"),
    [
        (["--algorithm", "ppo", "--gradient-steps", "3"], {}, "--gradient-steps is no setting of --algorithm ppo, but of sac, td3, tqc"),
        (["--n_steps", "3"], {}, "--n-steps is no setting of --algorithm sac, but of ppo"),
        (["--tau", "0.1"], {"algorithm": "ppo"}, "--tau is no setting of --algorithm ppo"),
        (["--algorithm", "x", "--tau", "0.1"], {}, "--algorithm x: one of sac, td3, ppo, tqc is needed"),
        (["--algorithm", "ppo", "--batch-size", "100"], {}, "--batch_size 100: a divisor of n_steps * num_envs, 2048, is"),
        (["--buffer-size", "1"], {}, "--buffer_size 1: at least num_envs 32 is needed"),
        (["--gamma", "2"], {"gamma": 0.9}, "--gamma 2.0: at most 1 is needed"),
        ([], {"foo": 1}, "task Reacher: its training has 'foo'; the settings are algorithm, batch_size, "),
        ([], {3: 1}, "task Reacher: its training has 3; "),
        ([], {"run_name": "x"}, "task Reacher: its training has 'run_name'; "),
        ([], {"gamma": "1"}, "task Reacher: its training has gamma 1: a number is needed"),
        ([], {"hidden": 0}, "task Reacher: its training has hidden 0: at least 1 is needed"),
        ([], {"algorithm": ["ppo"]}, "task Reacher: its training has algorithm ppo: a text is needed"),
        ([], {"algorithm": "x"}, "task Reacher: its training has algorithm x: one of sac, td3, ppo, tqc is needed"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_one_line(words, training, message, trained):
    trained(training)
    status, errors = outcome(mujoco_main.parse, ["--task", "Reacher", *words])
    assert (status, errors.count("\n")) == (2, 1)
    assert f"error: {message}" in errors


def test_tqc_without_its_package_is_one_line(train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    status, errors = train(*tiny("tqc", tmp_path / "runs"))
    assert (status, errors.count("\n")) == (2, 1)
    assert "TQC needs sb3-contrib: pip install -e '.[contrib]'" in errors
    assert not (tmp_path / "runs").exists()


TEACHER_FLAGS = [f"--{name.replace('_', '-')}" for name in {**RUNS["sac"].settings(), **RUNS["ppo"].settings()}]
TEACHER_FLAGS += ["--wandb_mode", "--lr"]


def test_any_command_line_of_the_teacher_is_understood_or_refused_in_one_line():
    bad = set()

    @settings(max_examples=150, **TRIES)
    @given(st.lists(st.tuples(st.sampled_from(TEACHER_FLAGS), VALUES), min_size=1, max_size=3))
    def tries(given):
        words = [word for pair in given for word in pair]
        status, errors = outcome(mujoco_main.parse, words)
        check(status, errors)
        if status == 2:
            bad.add(tuple(words))

    tries()
    assert len(bad) >= 75
