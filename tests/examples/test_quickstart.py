"""The example's ten lines."""

import sys

from tests import warm
from tests.helpers import ROOT


def test_the_quickstart_runs(tmp_path):
    (tmp_path / "program.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'examples')!r})\n"
        "if __name__ == '__main__':\n    import quickstart\n"
        "    print(quickstart.main(mode='ImpaalaSmall', samples=200, updates=2).returns.shape)\n"
    )
    run = warm.run([sys.executable, tmp_path / "program.py"])
    assert run.returncode == 0, run.stderr
    assert "(20,)" in run.stdout
    body = (ROOT / "examples" / "quickstart.py").read_text().partition("place:\n")[2].partition("\n\n\n")[0]
    assert len(body.splitlines()) <= 10
