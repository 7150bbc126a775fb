"""What a command says arrives wherever it can, and its end does not depend on that."""

import os
import signal
import subprocess
import sys

import pytest

from tests.helpers import ROOT

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
