"""Evaluate a teacher and, if wanted, write its video: `Distillation/Play.py` for the shipped teacher or a given one."""

import sys

from Distillation.Play import main
from Models.Model_Pusher import SHIPPED_TEACHER

if __name__ == "__main__":
    given = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    main(sys.argv[1:] if given else [str(SHIPPED_TEACHER), *sys.argv[1:]])
