"""Two checkouts may share an environment: each runs its own code."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT

ROOMS = ("Common", "Algorithm", "Models", "Enviroment", "Distillation", "Train_Teacher_Pusher")
IMPORTED = re.compile(r"^(?:from|import) ([\w.]+)", re.MULTILINE)
SCRIPTS = [
    path.relative_to(ROOT)
    for folder in ("Distillation", "Train_Teacher_Pusher", "benchmarks", "examples")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in (text := path.read_text())
    and {"common", *ROOMS} & {m.split(".")[0] for m in IMPORTED.findall(text)}
]
STAND_INS = """
import sys
from unittest.mock import MagicMock
for name in {others}:  # which take seconds
    sys.modules[name] = MagicMock()
"""
WORKERS = """
import sys
sys.path.insert(0, {root!r})
if __name__ == "__main__":
    from Enviroment.Utils import make_env
    from Enviroment.Workers import Workers
    workers = Workers(make_env, [()])
    try:
        workers.call("reset")
    except Exception as error:
        print(error.details)
"""


def repository(place, name):
    """A repository whose rooms tell its name, and end whatever imports them."""
    for room in ROOMS:
        (place / name / room).mkdir(parents=True)
        (place / name / room / "__init__.py").write_text(f"raise SystemExit('{name} repository')")
    return place / name


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_script_runs_its_own_repository(script, tmp_path):
    own, installed = repository(tmp_path, "own"), repository(tmp_path, "installed")
    (own / script.parent).mkdir(exist_ok=True)
    modules = set()
    for path in (ROOT / script.parent).glob("*.py"):
        if path.name != "__init__.py":
            (own / script.parent / path.name).write_text(path.read_text())
            modules |= set(IMPORTED.findall(path.read_text()))
    ours = {*sys.stdlib_module_names, *ROOMS, *(path.stem for path in (own / script.parent).iterdir())}
    others = sorted(module for module in modules if module.split(".")[0] not in ours)
    (installed / "sitecustomize.py").write_text(STAND_INS.format(others=others))
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    run = subprocess.run([sys.executable, own / script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr == "own repository\n"


def test_workers_run_the_repository_of_their_parent(tmp_path):
    installed = repository(tmp_path, "installed")
    (tmp_path / "script.py").write_text(WORKERS.format(root=str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, tmp_path / "script.py"]
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "missing 1 required positional argument: 'task'" in run.stdout, run.stderr
    assert "installed repository" not in run.stderr
