"""What Weights & Biases gets."""

import json
import sys

import pytest
import wandb

from Algorithm.Logger import log_artifact, resolve_wandb_mode, start_wandb
from Common.Errors import BadInput
from Models.Model_Pusher import SHIPPED_TEACHER
from tests import warm
from tests.helpers import ONLINE, PICTURES, flags, metrics, pusher, pusher_cut_at, run_folder

CURVES = [each for each in PICTURES if each[1] != "write_video"]


def wandb_history(folder):
    """The rows of an offline W&B run, as its own tool reads them; and the run's record."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", folder]
    read = warm.run(command)
    records = [json.loads(line) for line in read.stdout.splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [row for row in rows if "time/elapsed_s" in row], next(r for r in records if r["type"] == "run")


def test_wandb_gets_every_row_and_a_resumed_run_has_them_all(tmp_path):
    small = flags("PPD", ONLINE, mode="State", results_dir=tmp_path, wandb_mode="offline", video_every=2)
    small += ["--optimization_steps", "6"]
    pusher_cut_at(tmp_path, 2, *small, without=CURVES)
    resumed = pusher(*small, "--resume", "--quiet", without=CURVES)
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", "")
    folder = run_folder(tmp_path)
    spells = sorted(folder.glob("wandb/offline-run-*"))
    assert len(spells) == 2
    assert len({spell.name.rpartition("-")[2] for spell in spells}) == 1
    rows, record = wandb_history(spells[1])  # what the killed one had not written yet is not lost
    written = metrics(folder)
    steps = [row["x_axis/optimization_steps"] for row in rows]
    assert steps == [int(row["x_axis/optimization_steps"]) for row in written] == [0, 2, 4, 6]
    for name in ("test/OD/return", "test/OD/teacher_return", "test/OD/zero_return", "training/loss"):
        assert [row.get(name) for row in rows] == pytest.approx(
            [float(row[name]) if row[name] else None for row in written]
        )
    for word in ("PPD_State", "Pusher", "run0", "teacher_sha256"):
        assert word in str(record)
    videos = {path.name for path in (folder / "videos").iterdir()}
    assert videos == {"0000002_OD.mp4", "0000004_OD.mp4", "final_OD.mp4"}
    assert list(spells[1].rglob("*.mp4"))
    assert list(spells[1].rglob("OD_return*.json"))  # the chart of student, teacher and standing still


@pytest.mark.parametrize(
    ("variable", "value", "mode"),
    [
        ("WANDB_MODE", "dryrun", "offline"),
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_MODE", "", "disabled"),  # as its file says
        ("WANDB_BASE_URL", "", "disabled"),
        ("WANDB_MODE", "maybe", "WANDB_MODE: .*'offline'"),
        ("WANDB_BASE_URL", "localhost:8080", "WANDB_BASE_URL: .*'https'"),
        ("WANDB_PROJECT", "a/b", "'a/b'"),
    ],
)
def test_what_wandb_itself_is_set_to_counts_unless_a_mode_is_given(variable, value, mode, tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = disabled\n")  # as `wandb disabled` does
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    if mode in ("offline", "disabled"):
        assert [resolve_wandb_mode(given) for given in ("auto", "offline")] == [mode, "offline"]
        return
    for given in ("auto", "offline"):
        with pytest.raises(BadInput, match=mode):
            resolve_wandb_mode(given)


def test_a_server_that_does_not_answer_leaves_the_run_offline(tmp_path, monkeypatch, capsys):
    init, asked = wandb.init, []

    def unanswered(mode, **arguments):
        asked.append((mode, arguments["name"], arguments["project"]))
        if mode == "online":
            raise wandb.errors.CommError("no\nanswer")
        return init(mode=mode, **arguments)

    monkeypatch.setattr(wandb, "init", unanswered)
    monkeypatch.setenv("WANDB_NAME", "mine")
    run = start_wandb("online", tmp_path, {}, group="g", name="usual")
    run.finish()
    assert asked == [(mode, "mine", "policy-distillation") for mode in ("online", "offline")]
    assert capsys.readouterr().err.startswith("warning: W&B: no answer; the run is offline")


def test_an_artifact_holds_a_student_or_refers_to_a_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    run = start_wandb("offline", tmp_path, {}, group="g", name="PPD+ä")
    log_artifact(run, "student", run.name, [SHIPPED_TEACHER], {"return": -25})
    log_artifact(run, "dataset", "dataset_5k", [SHIPPED_TEACHER.parent], {})
    run.finish()
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", next(tmp_path.glob("wandb/offline-run-*"))]
    read = warm.run(command).stdout
    for word in ("PPD__", "teacher.pt", "dataset_5k", SHIPPED_TEACHER.parent.as_uri()):
        assert word in read
