"""What a command says arrives wherever it can, and its end does not depend on that."""

import os
import pwd
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from Common.Command_line import one_line_errors
from tests.helpers import ROOT
from tests.warm import ROOMS

PROGRAM = """
import sys
from pathlib import Path
from Common.Command_line import one_line_errors
with one_line_errors("program"):
    for number in range(3):
        print(f"{number} ± {'a' * 5000}", flush=True)
    sys.stderr.write("done ±\\n")
    Path(sys.argv[1]).touch()
    {last}
"""


def start(tmp_path, last="pass", shell="", **environment):
    words = [sys.executable, "-c", PROGRAM.replace("{last}", last), str(tmp_path / "finished")]
    words = ["sh", "-c", f'"$@" {shell}', "sh", *words] if shell else words
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=ROOT, text=True, env={**os.environ, **environment}, **streams)


@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full", "| head -c 1"])
def test_a_command_ends_well_where_nobody_listens(shell, tmp_path):
    with start(tmp_path, shell=shell) as program:
        out, err = program.communicate(timeout=60)
    assert (program.returncode, (tmp_path / "finished").is_file()) == (0, True)
    assert err in ("", "done ±\n")
    assert shell != "2>&-" or out.startswith("0 ± a")


def test_a_pipe_that_closes_does_not_change_the_exit_status(tmp_path):
    with start(tmp_path, "raise KeyboardInterrupt") as program:
        program.stdout.close()
        assert (program.stderr.read(), program.wait()) == ("done ±\nstopped\n", 128 + signal.SIGINT)


def test_a_terminal_without_a_sign_gets_another(tmp_path):
    with start(tmp_path, PYTHONIOENCODING="ascii") as program:
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out[:5], err) == (0, "0 ? a", "done \\xb1\n")


@pytest.mark.parametrize("error", ["OSError(37, 'No locks available')", "ConnectionResetError('gone\\nfor good')"])
def test_an_error_of_the_system_is_a_line_even_without_a_file(error, tmp_path):
    with start(tmp_path, f"raise {error}") as program:
        err = program.communicate(timeout=60)[1]
    assert (program.returncode, err.count("\n")) == (2, 2), err
    assert "program: error: " in err
    assert "No locks available" in err or "gone for good" in err


@pytest.mark.parametrize("home", ["/dev/null", None])
def test_caches_go_elsewhere_where_the_home_takes_no_files(home, monkeypatch):
    names = {"XDG_CACHE_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR", "HOME"}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    if home is None:
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a container's user, whom nobody knows
    else:
        monkeypatch.setenv("HOME", home)
    with one_line_errors("program"):
        places = {name: Path(os.environ[name]) for name in names}
        assert places.pop("HOME") == (Path(home) if home else places["XDG_CACHE_HOME"])
        assert all(place.is_dir() for place in places.values())
    assert os.environ.get("HOME") == home
    assert not any(place.exists() or name in os.environ for name, place in places.items())


def test_with_a_home_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    before = dict(os.environ)
    with one_line_errors("program"):
        assert os.environ == before
        assert not list(tmp_path.iterdir())


def test_no_duration_is_taken_from_a_clock_that_may_be_set():
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert not re.search(r"\btime\.time(_ns)?\(|datetime\.now", path.read_text()), path


def test_a_signal_while_python_ends_leaves_no_traceback(tmp_path):
    last = "import atexit, os; atexit.register(os.kill, os.getpid(), 15)"
    with start(tmp_path, last=last) as program:
        _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (-signal.SIGTERM, "done ±\n")
