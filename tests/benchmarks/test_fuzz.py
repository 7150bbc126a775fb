"""Bad input: what `fuzz.py` notices, and that it mends what a command broke."""

import random
import sys

import pytest
import torch

from tests.helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import fuzz
import fuzz_inputs

SCRIPT = """
import sys, time
from pathlib import Path

print("Play.py: error: wrong", file=sys.stderr, flush=True)
{}
sys.exit(2)
"""
ENDS = {
    "": [],
    "raise KeyError": ["traceback", "1 lines of error, and others"],
    "print('more', file=sys.stderr)": ["1 lines of error, and others"],
    "Path('new/half').mkdir(parents=True)": ["lost or left behind: new is new, new/half is new"],
    "Path('run/a.txt').write_text('other')": ["lost or left behind: run/a.txt is changed"],
    "Path('run/a.txt').unlink()": ["lost or left behind: run/a.txt is gone"],
    "Path('run/a.txt').write_text('kept')": [],
    "Path('new').mkdir(); sys.exit(1)": [],  # it was accepted, and its run failed
    "Path('executed').mkdir(); sys.exit(0)": ["a file was executed"],
    "Path('run/a.txt').write_text('other'); sys.exit(0)": ["lost or left behind: run/a.txt is changed"],
    "import os; os.kill(os.getpid(), 9)": ["ended by signal 9"],
    "import signal; signal.signal(15, signal.SIG_IGN); time.sleep(60)": ["hangs"],
}


@pytest.mark.parametrize("end", ENDS)
def test_what_a_command_should_not_do_is_noticed_and_mended(end, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "STOPPED_S", 0.2)
    script = tmp_path / "work" / "Distillation" / "Play.py"
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT.format(end))
    (tmp_path / "work" / "run").mkdir()
    (tmp_path / "work" / "run" / "a.txt").write_text("kept")
    place = fuzz.Place(tmp_path)
    before = fuzz.state(place.work)
    result = fuzz.run("Play", ["film.gif"], place.work, 0.2 if "sleep" in end else 60.0)
    assert list(fuzz.judge(place, result, "Play", ["film.gif"], before)) == ENDS[end]
    place.mend()
    assert fuzz.state(place.work).keys() == before.keys()
    assert (place.work / "run" / "a.txt").read_text() == "kept"


def test_a_spoilt_file_is_another_one_and_the_same_each_time(tmp_path):
    path = tmp_path / "file.pt"
    found = set()
    for number in range(20):
        for _ in range(2):
            path.unlink(missing_ok=True)
            torch.save({"format": "teacher", "version": 1, "weights": {"a": torch.ones(3)}}, path)
            whole = path.read_bytes()
            done = fuzz_inputs.spoil_file(path, [path], random.Random(number))
            there = path.is_file()
            found.add((number, done, path.read_bytes() if there else b""))
            assert not there or path.read_bytes() != whole or done.startswith("swap")
            if path.is_dir():
                path.rmdir()
    assert len(found) == 20
