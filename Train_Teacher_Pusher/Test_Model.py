"""Evaluate a teacher and, if wanted, write its video: `Distillation/Play.py` for the shipped teacher or a given one."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Common.Files import ROOT
from Models.Model_Pusher import SHIPPED_TEACHER

if __name__ == "__main__":
    given = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    sys.argv[1:] = sys.argv[1:] if given else [str(SHIPPED_TEACHER), *sys.argv[1:]]
    runpy.run_path(str(ROOT / "Distillation" / "Play.py"), run_name="__main__")
