"""Studies: what a file asks for, and a study that is cut, continued and begun again elsewhere."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from Distillation import Plot, Study
from Distillation.Runs import find_runs, group_runs
from Distillation.Study_file import read_study

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "Distillation" / "Study.py"
TINY = """
[pictures]
cloning = ["B*"]

[common]
mode = "State"
run_index = [0, 1]
device = "cpu"
optimization_steps = 200
test_every = 100
episodes = 1
final_episodes = 1
loss_type = "KL"
num_workers = 1

[[runs]]
name = "BC"
method = "BC_phase"
dataset = "5k"

[[runs]]
name = "DAgger"
method = "Dagger_phase"
parent = "BC"
run_index = [0]
rollout_samples = 100
rollout_updates = 100
num_envs = 1
"""


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
    assert (dagger.config.dataset, dagger.config.loss_type) == ("5k", "KL")
    assert dagger.folder.parent.parent.name == "OurAlgorithm1_KL"
    assert dagger.wanted["parent"] == cloning.wanted
    assert "num_workers" not in cloning.wanted  # with more or fewer it is the same run
    assert cloning.config.wandb_mode == "disabled"


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


BAD = {
    "not TOML": ("[[runs", "study.toml"),
    "nothing in it": ("", "no runs"),
    "unknown table": (TINY + "[more]\nx = 1", "more"),
    "unknown key": (TINY + "alhpa = 1", "DAgger: alhpa: no setting of --Dagger_phase"),
    "unknown common key": (TINY.replace("[common]", "[common]\nalhpa = 1"), "common: alhpa"),
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
        "BC_run0 is there already",
    ),
    "one experiment twice": (
        TINY + "[[runs]]\nname = 'DA'\nmethod = 'Dagger_phase'\nparent = 'BC'\n" + TINY.partition("index = [0]\n")[2],
        "DA: the same experiment as DAgger",
    ),
    "no parent": (TINY.replace('parent = "BC"', ""), "a parent is needed"),
    "unknown parent": (TINY.replace('parent = "BC"', 'parent = "B"'), "parent B: no run 0"),
    "an index its parent lacks": (TINY.replace("index = [0]\n", "index = [2]\n"), "parent BC: no run 2"),
    "a parent of PPD": ("[[runs]]\nmethod = 'PPD'\nname = 'x'\nparent = 'y'", "no parent"),
    "not a number": (TINY + "alpha = 'much'", "DAgger: argument --alpha"),
    "not whole": (TINY + "minibatch_size = 8.5", "minibatch_size"),
    "out of range": (TINY + "alpha = -1", "DAgger: --alpha -1.0: at least 0"),
    "run_index": (TINY.replace("index = [0, 1]", "index = [0, 6]"), "run_index"),
    "one index": (TINY.replace("index = [0, 1]", "index = 0"), "a list of numbers"),
    "no index": (TINY.replace("index = [0, 1]", "index = []"), "a list is empty"),
    "a picture of nothing": (TINY.replace('["B*"]', '["BC", "DA"]'), "pictures: cloning: DA: no such experiment"),
    "a picture of one": (TINY.replace('["B*"]', '"BC"'), "pictures: cloning: a list"),
    "a picture elsewhere": (TINY.replace("cloning", "'../x'"), "pictures: ../x: another name"),
    "a picture over another": (TINY.replace("cloning", "curve"), "pictures: curve: another name"),
    "no pictures": (TINY.replace("[pictures]", "[[pictures]]"), "pictures: a table"),
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


def test_what_is_printed_may_be_cut_short():
    command = [sys.executable, SCRIPT, "main", "--dry_run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as runner:
        runner.stdout.close()  # as `| head` does
        assert (runner.stderr.read(), runner.wait()) == ("", 128 + signal.SIGPIPE)


def start(results):
    command = [sys.executable, SCRIPT, results / "study.toml", "--results_dir", results]
    return subprocess.Popen(command, cwd=results, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(results):
    with start(results) as runner:
        out, err = runner.communicate(timeout=250)
    return runner.returncode, out, err


def wait_for(path, runner):
    while not path.exists():
        assert runner.poll() is None, runner.communicate()
        time.sleep(0.05)


def released(results):
    """What a study released, without how long it took."""
    found = {}
    for config in (results / "Studies" / "study").glob("*/run?/config.json"):
        with config.with_name("metrics.csv").open() as file:
            rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
        summary = json.loads(config.with_name("summary.json").read_text()) | {"training_seconds": 0}
        settings = json.loads(config.read_text()) | {"start_sha256": ""}  # the student's file holds times too
        settings.get("before", {}).pop("time/elapsed_s", None)
        found[config.parent.relative_to(results)] = (rows, summary, settings)
    return found


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    results = tmp_path_factory.mktemp("uncut")
    (results / "study.toml").write_text(TINY)
    status, out, err = finish(results)
    assert (status, err) == (0, ""), out + err
    return results, out


def test_a_study_ends_with_what_is_worth_committing_and_drawing(uncut, tmp_path, capsys):
    results, out = uncut
    folder = results / "Studies" / "study"
    lines = out.splitlines()
    assert lines[:2] == ["study: 0 of 3 runs finished", "4 left"]  # the dataset is one of them
    assert [line.split()[0] for line in lines[2:6]] == ["dataset_5k", "BC_run0", "DAgger_run0", "BC_run1"]
    assert "2 left, about" in lines[3]
    found = released(results)
    assert {str(name) for name in found} == {f"Studies/study/{name}" for name in ("BC/run0", "BC/run1", "DAgger/run0")}
    for rows, summary, settings in found.values():
        assert [row["test/OD/return"] != "" for row in rows] == [True] * 3
        assert float(rows[-1]["test/OD/return"]) == summary["OD"]["student"]["return"]
        assert str(results) not in json.dumps(settings)
    assert sum(file.stat().st_size for file in folder.glob("*/run?/*")) < 50_000
    Plot.main([str(folder), "--output", str(tmp_path / "again")])  # what it released counts, and only once
    table = (tmp_path / "again.md").read_text()
    assert (folder / "table.md").read_text().endswith(table)
    assert [line.split("|")[1:3] for line in table.splitlines()[2:4]]
    labels = {group.label: len(group.runs) for group in group_runs(find_runs([folder]))}
    assert labels == {"BC State 5k": 2, "DAgger State 5k": 1}
    for picture in ("curve.png", "curve.svg", "cloning.png", "cloning.svg"):
        assert (folder / picture).stat().st_size > 10_000
    # A setting of the parent changes: all that depends on it counts as missing.
    study = results / "study.toml"
    study.write_text(TINY.replace('"5k"', '"5k"\nweight_decay = 0.1'))
    with pytest.raises(SystemExit) as end:
        Study.main([str(study), "--results_dir", str(results), "--dry_run"])
    study.write_text(TINY)
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert "DAgger_run0 counts as missing: its parent's weight_decay was 0.0001" in lines
    assert lines.count("study: 0 of 3 runs finished") == 1
    assert sum("--overwrite" in line for line in lines) == 3


def test_a_study_that_is_cut_anywhere_goes_on_to_the_same_end(uncut, tmp_path):
    runs = Path("Studies", "study", "runs")
    teacher = runs / "Pusher" / "Teacher"
    shutil.copytree(uncut[0] / teacher, tmp_path / teacher)
    (tmp_path / "study.toml").write_text(TINY)
    phase = tmp_path / runs / "Pusher" / "OurAlgorithm1_KL" / "Phase_One"
    checkpoints = [phase / f"BC_run{k}" / "checkpoints" / "last.pt" for k in range(2)]
    # The runner is killed, and with it the run; another one is refused before.
    with start(tmp_path) as runner:
        wait_for(checkpoints[0], runner)
        (child,) = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGSTOP)  # so that it has not ended when it is killed
        status, _, err = finish(tmp_path)
        assert (status, err.count("\n")) == (2, 1)
        assert "another process is writing it" in err
        runner.kill()
    # It is told to stop.
    with start(tmp_path) as runner:
        first_line = runner.stdout.readline()
        assert first_line == "study: 0 of 3 runs finished\n"
        assert runner.stdout.readline() == "3 left\n"
        runner.terminate()
        _, err = runner.communicate()
        assert (runner.returncode, err) == (130, "stopped; the same command goes on\n")
    # A run is killed: the others go on.
    with start(tmp_path) as runner:
        wait_for(checkpoints[1], runner)
        (child,) = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        out, _ = runner.communicate(timeout=250)
    assert runner.returncode == 1
    assert "BC_run1 failed (-9)" in out
    assert {name.parent.name for name in released(tmp_path)} == {"BC", "DAgger"}
    assert "(resumed)" in (tmp_path / runs / "BC_run0.log").read_text()
    status, out, _ = finish(tmp_path)
    assert status == 0
    assert "2 of 3 runs finished" in out
    assert released(tmp_path) == released(uncut[0])


def test_a_fresh_clone_makes_a_parent_again_where_dagger_needs_it(uncut, tmp_path):
    shutil.copytree(uncut[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "Studies" / "study"
    shutil.rmtree(folder / "DAgger")
    shutil.rmtree(folder / "runs" / "Pusher" / "OurAlgorithm1_KL")
    before = (folder / "BC" / "run0" / "summary.json").stat().st_mtime_ns
    status, out, err = finish(tmp_path)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["BC_run0", "DAgger_run0"]
    assert released(tmp_path) == released(uncut[0])
    assert (folder / "BC" / "run0" / "summary.json").stat().st_mtime_ns == before


SIX = TINY.replace("run_index = [0, 1]", "run_index = [0, 1, 2, 3]").replace(
    "run_index = [0]\n", "run_index = [0, 1]\n"
)


def ray_worker(name):
    """The process that a task of Ray runs in."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(f"ray::{name}".encode()):
                return int(path.parent.name)
        except OSError:  # it has just ended
            continue
    return None


def test_a_study_on_ray_survives_a_worker_that_is_killed(uncut, tmp_path):
    (tmp_path / "study.toml").write_text(SIX)
    runs = tmp_path / "Studies" / "study" / "runs"
    checkpoint = runs / "Pusher" / "OurAlgorithm1_KL" / "Phase_One" / "BC_run1" / "checkpoints" / "last.pt"
    command = [sys.executable, SCRIPT, tmp_path / "study.toml", "--results_dir", tmp_path, "--ray"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as runner:
        wait_for(checkpoint, runner)
        os.kill(ray_worker("BC_run1"), signal.SIGKILL)
        out, err = runner.communicate(timeout=280)
    assert runner.returncode == 0, out + err
    assert "dashboard" in out
    log = (runs / "BC_run1.log").read_text()
    assert log.count("BC_phase   ") == 2  # its heading
    assert "(resumed)" in log
    found = released(tmp_path)
    assert len(found) == 6
    assert {name: found[name] for name in released(uncut[0])} == released(uncut[0])


def test_a_study_on_ray_that_is_told_to_stop_leaves_nothing_running(tmp_path):
    (tmp_path / "study.toml").write_text(TINY.replace("= 200", "= 1000000"))
    command = [sys.executable, SCRIPT, tmp_path / "study.toml", "--results_dir", tmp_path, "--ray", "--cpus", "2"]
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]  # as in the background of a script
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as runner:
        phase = tmp_path / "Studies" / "study" / "runs" / "Pusher" / "OurAlgorithm1_KL" / "Phase_One"
        wait_for(phase / "BC_run0" / "checkpoints" / "last.pt", runner)
        runner.terminate()
        _, err = runner.communicate(timeout=100)
    assert (runner.returncode, err) == (130, "stopped; the same command goes on\n")
    assert "stopped and saved at update" in (phase.parents[2] / "BC_run0.log").read_text()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: "),
        (["--ray", "--cpus", "1000"], "--cpus 1000 --gpus 0: no machine has them"),
        (["--ray", "--cpus", "0"], "--cpus of 1 or more"),
        (["--ray", "--gpus", "nan"], "as --gpus a whole number"),
        (["--ray", "--gpus", "1.5"], "as --gpus a whole number"),
        (["--ray", "--jobs", "2"], "--jobs is for this machine"),
        (["--gpus", "1"], "are for --ray"),
        (["--jobs", "-1"], "--jobs -1: 0 or more"),
    ],
)
def test_what_ray_cannot_do_is_one_line(words, hint, tmp_path):
    (tmp_path / "study.toml").write_text(TINY)
    command = [sys.executable, SCRIPT, tmp_path / "study.toml", "--results_dir", tmp_path, *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert hint in run.stderr


def test_without_ray_a_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "study.toml").write_text(TINY)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as end:
        Study.main([str(tmp_path / "study.toml"), "--results_dir", str(tmp_path), "--ray"])
    assert end.value.code == 2
    assert "pip install 'ray[default]'" in capsys.readouterr().err
