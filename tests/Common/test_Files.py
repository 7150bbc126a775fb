"""Files are read without executing anything, and damage is noticed."""

import errno
import fcntl
import os
import shutil

import pytest
import torch

from Common.Errors import BadFile, BadInput
from Common.Files import begun, check_output, load_tensors, locked, remove_run, write_text
from Models.Model_Pusher import (
    SHIPPED_TEACHER,
    get_Teacher_model,
)
from tests.helpers import ROOT


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"format": "teacher", "weights": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(BadFile):
        get_Teacher_model(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_flipped_bit_in_weights_is_noticed(tmp_path):
    content = bytearray(SHIPPED_TEACHER.read_bytes())
    weights = load_tensors(SHIPPED_TEACHER, "teacher")["weights"]["trunk.0.weight"].numpy().tobytes()
    content[content.index(weights) + 1001] ^= 64
    spoilt = tmp_path / "teacher.pt"
    spoilt.write_bytes(content)
    with pytest.raises(BadFile, match="damaged"):
        load_tensors(spoilt, "teacher")


def test_nothing_that_could_run_foreign_code_is_called():
    """Pickles are read by the teacher's training, its own; of others numbers only; and by workers, from their parent."""
    forbidden = ("eval(", "exec(", "pickle", "os.system", "shell=True", "allow_pickle=True", "weights_only=False")
    allowed = {
        ("Train_Teacher_Pusher/Original.py", "pickle"),
        ("Train_Teacher_Pusher/Statistics.py", "pickle"),
        ("Train_Teacher_Pusher/Mujoco_main.py", "pickle"),
    }
    allowed |= {(f"Enviroment/{name}.py", "pickle") for name in ("Simulations", "Workers")} | {
        ("Common/Modules.py", "pickle")
    }
    for folder in ("Common", "Algorithm", "Models", "Enviroment", "Distillation", "Train_Teacher_Pusher"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text().replace("allow_pickle=False", "")
            found = {(f"{folder}/{path.name}", word) for word in forbidden if word in text.replace(".eval(", "")}
            assert found <= allowed


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_nothing_can_be_locked_a_line_warns_and_work_goes_on(number, tmp_path, monkeypatch, capsys):
    def flock(descriptor, operation):
        if operation != fcntl.LOCK_UN:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        pass
    errors = capsys.readouterr().err
    assert errors.count("\n") == 2
    assert f"no lock for {tmp_path / 'run'} ({os.strerror(number)})" in errors
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_known_before_and_nothing_is_made(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    check_output(tmp_path / "new" / "deep" / "file")
    check_output(tmp_path / "file", [None, tmp_path / "other"])
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "file" / "x" / "y", "cannot be written")):
        with pytest.raises(BadInput, match=said):
            check_output(path)
    with pytest.raises(BadInput, match="read and replaced"):
        check_output(tmp_path / "link", [tmp_path / "file"])
    assert not (tmp_path / "new").exists()


def test_a_run_whose_removal_was_killed_can_still_be_begun_again(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    for name in ("config.json", "metrics.csv", "a.tmp", "zip"):
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)
        remove_run(folder)
    assert {path.name for path in folder.iterdir()} == {"checkpoints", "config.json"}
    assert begun(folder)
    remove_run(folder)
    remove_run(folder)
    assert not folder.exists()


def test_a_text_with_the_name_of_any_file_is_written(tmp_path):
    write_text(tmp_path / "card.md", "# \udcff.pt ä\n")  # a byte that is no UTF-8, as Python reads it
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == "# \\udcff.pt ä\n"
