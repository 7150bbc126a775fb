"""A run's metrics: `metrics.csv`, Weights & Biases, and the console."""

import csv
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

AXES = ("x_axis/optimization_steps", "x_axis/samples_collected", "x_axis/samples_seen")


def start_wandb(
    mode: str,
    folder: Path,
    config: dict[str, Any],
    *,
    group: str,
    name: str,
    entity: str | None = None,
    project: str | None = None,
) -> Any:
    """Start a W&B run that writes below `folder`; returns None when disabled.

    `auto` is what `WANDB_MODE` says if it is set, else online when logged in, else offline; nothing ever prompts. Entity
    and project, where not given, are those of `WANDB_ENTITY` and `WANDB_PROJECT`, the latter by default
    `policy-distillation`.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE", "auto")
    if mode == "disabled":
        return None
    import wandb

    if mode == "auto":
        try:
            mode = "online" if wandb.login(prompt=False) else "offline"
        except wandb.Error:  # logged in, but the server does not answer or does not know us
            mode = "offline"
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        entity=entity,
        project=project or os.environ.get("WANDB_PROJECT", "policy-distillation"),
        dir=folder,
        mode=mode,  # type: ignore[arg-type]
        group=group,
        name=name,
        config=config,
        settings=wandb.Settings(silent=True, console="off"),
    )
    for axis in AXES:
        run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric=AXES[0])
    return run


def log_video(wandb_run: Any, path: Path) -> None:
    """Hand an mp4 to W&B, if there is a run."""
    if wandb_run is not None:
        import wandb

        wandb_run.log({"test/video": wandb.Video(str(path), format="mp4")})


class MetricsFile:
    """A CSV file of metrics whose columns may grow; what a run does not measure at a row is left empty.

    Args:
        path: the file.
        keep: rows to keep of a file that exists; later ones were written after the checkpoint that is resumed.
        columns: the first columns.
    """

    def __init__(self, path: Path, keep: int = 0, columns: Sequence[str] = AXES):
        self._path, self._columns = path, list(columns)
        rows: list[dict[str, Any]] = []
        if keep:
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self._columns = list(reader.fieldnames or columns)
                rows = list(reader)[:keep]
        self._rewrite(rows)
        self.rows = len(rows)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self._path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; new keys become new columns."""
        new = [key for key in row if key not in self._columns]
        if new:
            with self._path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self._columns += new
            self._rewrite(rows)
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)
        self.rows += 1


class RunLogger:
    """Writes every log event of a run to `metrics.csv`, to W&B if there is a run, and to a progress bar.

    Args:
        folder: the run's folder.
        total: optimization steps the run is to make.
        wandb_run: from `start_wandb`, or None.
        keep: rows of `metrics.csv` to keep when resuming.
    """

    def __init__(self, folder: Path, total: int, wandb_run: Any = None, keep: int = 0):
        self.metrics = MetricsFile(folder / "metrics.csv", keep)
        self._wandb = wandb_run
        # Without a terminal the bar is left out, and a line for every test remains.
        self._bar = tqdm(total=total, unit="update", disable=not sys.stderr.isatty(), dynamic_ncols=True)

    def log(self, row: dict[str, float]) -> None:
        """Write one row."""
        self.metrics.write(row)
        if self._wandb is not None:
            self._wandb.log(row)
        step = int(row[AXES[0]])
        self._bar.n = step
        shown = {
            "return": row.get("training/episode_return"),
            "loss": row.get("training/loss"),
            "env steps/s": row.get("time/env_steps_per_s"),
        }
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items() if value is not None})
        if "test/OD/return" in row:
            self._bar.write(
                f"{step:>7} updates  {int(row[AXES[1]]):>8} samples  return "
                + "  ".join(
                    f"{part} {row[f'test/{part}/return']:.1f} (teacher {row[f'test/{part}/teacher_return']:.1f}, "
                    f"normalized {row[f'test/{part}/normalized_return']:.2f}, success {row[f'test/{part}/success']:.2f})"
                    for part in ("ID", "OD")
                ),
                file=sys.stdout,
            )
            sys.stdout.flush()

    def summarize(self, summary: dict[str, Any], video: Path) -> None:
        """Hand the closing figures and the video to W&B."""
        if self._wandb is not None:
            self._wandb.summary.update(summary)
        log_video(self._wandb, video)

    def close(self) -> None:
        """End the bar and the W&B run; nothing is lost if it is never called."""
        self._bar.close()
        if self._wandb is not None:
            self._wandb.finish()
