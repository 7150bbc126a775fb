"""Long runs."""

import json
import signal
import sys

from tests import warm
from tests.helpers import ROOT


def test_a_long_run_needs_no_more_files_and_threads_as_it_goes():
    script = [sys.executable, ROOT / "benchmarks" / "soak.py", "--minutes", "0.3", "--commands", "PPD"]
    run = warm.run(script)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)["commands"]["PPD"]
    assert report["exit_status"] == 128 + signal.SIGTERM, report
    assert "saved at update" in report["last_line"]
    assert report["MiB"]["late"] > 0
    for what in ("files", "threads"):  # W&B starts one more now and then
        assert 0 < report[what]["late"] <= report[what]["early"] + 5
