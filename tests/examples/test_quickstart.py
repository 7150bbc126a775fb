"""The README's ten lines."""

import subprocess
import sys

from tests.helpers import ROOT


def test_the_quickstart_runs():
    code = "import sys; sys.path.insert(0, 'examples'); import quickstart\nif __name__ == '__main__':\n"
    code += "    print(quickstart.main(mode='ImpaalaSmall', samples=200, updates=2).returns.shape)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert "(20,)" in run.stdout
    body = (ROOT / "examples" / "quickstart.py").read_text().partition("place:\n")[2].partition("\n\n\n")[0]
    assert len(body.splitlines()) <= 10
