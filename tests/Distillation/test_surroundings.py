"""A run does not depend on where it runs: the machine's clock, home, terminal and the names of folders."""

import os
import shlex
from pathlib import Path

from tests.helpers import ONLINE, flags, pusher, run_folder


def test_a_run_ends_well_without_a_home_in_a_folder_with_spaces(tmp_path):
    results = tmp_path / "my results"
    settings = ONLINE | {"mode": "State", "video_every": 0, "wandb_mode": "offline", "results_dir": results}
    nowhere = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "WANDB_"))}
    run = pusher(*flags("PPD", settings), env=nowhere | {"HOME": "/dev/null"})
    assert (run.returncode, run.stderr) == (0, "")
    folder = run_folder(results)
    assert (folder / "summary.json").is_file()
    assert not (folder / "videos").exists()
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("W&B")]
    assert Path(shlex.split(line)[-1]) == folder / "wandb"
