"""Pictures and tables from the command line."""

import pytest
from PIL import Image

from Distillation import Plot
from tests.Distillation.made_up import write_run


def test_one_command_compares_runs_also_one_that_was_cut(tmp_path, capsys):
    runs = [write_run(tmp_path / "x" / name, run_index=k) for k, name in enumerate("ab")]
    cut = runs[1] / "metrics.csv"
    content = cut.read_bytes()
    cut.write_bytes(content[: content.rindex(b"-25.0") + 2])
    Plot.main([str(tmp_path / "x"), "--html", str(tmp_path / "page" / "study.html")])
    written = capsys.readouterr().out
    for name in ("x/curve.png", "x/curve.svg", "x/curve.md", "page/study.html"):
        assert str(tmp_path / name) in written
        assert (tmp_path / name).stat().st_size > 200
    assert Image.open(tmp_path / "x" / "curve.png").size[0] > 1000
    drawing = (tmp_path / "x" / "curve.svg").read_text()
    for text in ("PPD State (2 runs)", "teacher", "standing still", "gradient updates", "minutes of training"):
        assert text in drawing
    Plot.main([str(tmp_path / "x"), "--output", str(tmp_path / "again")])
    assert (tmp_path / "again.svg").read_text() == drawing  # nothing to commit where nothing has changed
    Plot.main([str(tmp_path / "x"), "--what", "training", "--output", str(tmp_path / "t")])
    assert "loss" in (tmp_path / "t.svg").read_text()


@pytest.mark.parametrize("damage", ["empty folder", "no folder", "no test", "foreign config", "no buffer"])
def test_what_cannot_be_drawn_is_one_line(tmp_path, capsys, damage):
    run = write_run(tmp_path / "run")
    arguments = [str(run)]
    if damage == "empty folder":
        arguments = [str(run), str(tmp_path / "empty")]
        (tmp_path / "empty").mkdir()
    elif damage == "no folder":
        arguments = [str(tmp_path / "nowhere")]
    elif damage == "no test":
        lines = (run / "metrics.csv").read_text().splitlines()
        (run / "metrics.csv").write_text(lines[0] + "\n")
    elif damage == "foreign config":
        (run / "config.json").write_text("[1, 2")
    else:
        arguments += ["--what", "buffer"]
    with pytest.raises(SystemExit) as end:
        Plot.main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none of these runs" in error if damage == "no buffer" else "no run" in error
