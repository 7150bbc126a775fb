"""One self-contained page of a run or a study for a browser: curves, scores, videos, settings."""

import base64
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment

from Common.Files import write_text
from Distillation.Reports.Curves import WHAT, draw, metric_names
from Distillation.Reports.Robustness import NOTE, draw_robustness, robustness_table, verdict
from Distillation.Reports.Runs import Run, group_runs
from Distillation.Reports.Tables import LEARNING, learning, scores

TITLES = {"return": "Return and success", "training": "Training", "buffer": "Replay buffer"}
VIDEOS = 12  # so many experiments show a video, one each


def write_page(runs: Sequence[Run], path: Path) -> Path:
    """Write the page of some runs and make its folder; returns its path."""
    experiments: list[dict[str, Any]] = []
    for group in group_runs(runs):
        videos = (run.folder / "videos" / "final_OD.mp4" for run in group.runs)
        video = next((video for video in videos if video.is_file()), None) if len(experiments) < VIDEOS else None
        reports = (_robustness(run) for run in group.runs)
        robustness = next(filter(None, reports), None)
        experiments.append({"group": group, "video": video and _embed(video, "video/mp4"), "robustness": robustness})
    content = {"scores": scores(runs), "learning": learning(runs), "explained": LEARNING, "curves": _curves(runs)}
    content["title"] = runs[0].folder.name if len(runs) == 1 else f"{len(runs)} runs"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    write_text(path, template.render(content, note=NOTE, experiments=experiments, json=partial(json.dumps, indent=2)))
    return path


def _curves(runs: Sequence[Run]) -> dict[str, str]:
    curves = {}
    with tempfile.TemporaryDirectory() as place:
        for what in WHAT:
            if what == "return" or metric_names(runs, what):  # not every method has a buffer
                picture = draw(runs, Path(place) / what, what)
                curves[TITLES[what]] = _embed(picture.with_suffix(".svg"), "image/svg+xml")
    return curves


def _robustness(run: Run) -> dict[str, Any] | None:
    """Return what the page shows of a run's report of robustness; None if there is none, or a damaged one."""
    if run.robustness is None:
        return None
    try:
        table = robustness_table(run.robustness)
        said = verdict(run.robustness) if "camera_use" in run.robustness else ""
        with tempfile.TemporaryDirectory() as place:
            picture = draw_robustness(run.robustness, Path(place) / "robustness.svg")
            return {"table": table, "said": said, "picture": _embed(picture, "image/svg+xml"), "run": run.folder.name}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _embed(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
