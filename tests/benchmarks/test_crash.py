"""Runs killed at random moments."""

import json
import sys

from tests import warm
from tests.helpers import ROOT


def test_runs_killed_at_random_moments_end_as_if_they_had_not_been():
    script = [sys.executable, ROOT / "benchmarks" / "crash.py", "--kills", "2"]
    run = warm.run([*script, "--methods", "C_data", "teacher"])
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert report["kills"] >= 2
    assert all(method["equal"] == method["runs"] > 0 for method in report["methods"].values())
