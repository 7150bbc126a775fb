"""A run's metrics: to `metrics.csv`, Weights & Biases, and the terminal."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from Algorithm.Metrics_file import AXES, MetricsFile
from Common.Errors import BadFile, BadInput, BadSetting

PARTS = ("ID", "OD")  # sets of test seeds
WHO = {"student": "", "teacher": "teacher_", "standing still": "zero_"}  # whose return it is, in a metric's name
REFERENCES = tuple(f"test/{part}/{who}return" for part in PARTS for who in WHO.values())


def resolve_wandb_mode(mode: str) -> str:
    """Return `online`, `offline` or `disabled`; nothing ever prompts.

    `auto` is what `WANDB_MODE` says if it is set, else online when logged in, else offline.

    Raises:
        BadInput: `online` is asked for, without a login.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE", "auto")
    if mode in ("offline", "disabled"):
        return mode
    if mode not in ("auto", "online"):
        raise BadInput(f"WANDB_MODE={mode}: online, offline or disabled is needed")
    import wandb

    try:
        logged_in = wandb.login(prompt=False)
    except wandb.Error:  # logged in, but the server does not answer or does not know us
        logged_in = False
    if mode == "online" and not logged_in:
        raise BadSetting(
            "wandb_mode online: not logged in; `wandb login` first, or take offline and `wandb sync` later"
        )
    return "online" if logged_in else "offline"


def start_wandb(
    mode: str,
    folder: Path,
    config: dict[str, Any],
    *,
    group: str,
    name: str,
    tags: Sequence[str] = (),
    entity: str | None = None,
    project: str | None = None,
    run_id: str | None = None,
) -> Any:
    """Start a W&B run that writes below `folder`; returns None when disabled.

    The mode is resolved as `resolve_wandb_mode` does. Entity and project, where not given, are those of `WANDB_ENTITY` and
    `WANDB_PROJECT`, the latter by default `policy-distillation`. With the `run_id` of an earlier spell its curves are gone
    on with.

    Raises:
        BadInput: `online` is asked for, without a login, or W&B refuses.
    """
    mode = resolve_wandb_mode(mode)
    if mode == "disabled":
        return None
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(
            entity=entity,
            project=project or os.environ.get("WANDB_PROJECT", "policy-distillation"),
            dir=folder,
            mode=mode,  # type: ignore[arg-type]
            id=run_id,
            resume=None if run_id is None else "allow",
            group=group,
            name=name,
            tags=tags,
            config=config,
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.Error as error:
        raise BadInput(f"W&B: {error}") from error
    for axis in AXES:
        run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric=AXES[0])
    return run


def log_video(wandb_run: Any, path: Path, step: int) -> None:
    """Hand an mp4 to W&B, if there is a run, as of optimization step `step`."""
    if wandb_run is not None:
        import wandb

        wandb_run.log({AXES[0]: step, "test/video": wandb.Video(str(path), format="mp4")})


def log_artifact(wandb_run: Any, kind: str, name: str, paths: Sequence[Path], metadata: dict[str, Any]) -> None:
    """Hand files to W&B as a versioned artifact; a folder (a dataset) is only referred to, by its files' checksums."""
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^A-Za-z0-9_.-]", "_", name), kind, metadata=metadata)
    for path in paths:
        if path.is_dir():
            artifact.add_reference(path.resolve().as_uri())
        else:
            artifact.add_file(str(path))
    wandb_run.log_artifact(artifact)


class RunLogger:
    """Writes every log event of a run to `metrics.csv`, to W&B if there is a run, and to the terminal.

    A terminal shows a progress bar; anything else gets plain lines, one for every test.

    Args:
        folder: the run's folder.
        total: optimization steps the run is to make.
        wandb_run: from `start_wandb`, or None.
        done: optimization steps made before, when resuming.
        keep: rows of `metrics.csv` to keep when resuming.
        crc32: their checksum.
        quiet: show nothing.

    Raises:
        BadFile: `metrics.csv` does not hold these rows.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        wandb_run: Any = None,
        done: int = 0,
        keep: int = 0,
        crc32: int | None = None,
        quiet: bool = False,
    ):
        self.metrics = MetricsFile(folder / "metrics.csv", keep, crc32=crc32)
        self._wandb = wandb_run
        self._quiet = quiet
        self._bar = tqdm(
            total=total,
            initial=done,
            disable=quiet or not sys.stderr.isatty(),
            dynamic_ncols=True,
            bar_format="{n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}, {rate_noinv_fmt}{postfix}",
            unit="",
        )
        self._tests: list[dict[str, float]] = []
        try:
            for row in self.metrics.read():
                self._remember(row)
                # A spell's folder holds the whole curve: the one before may lack its end, and is not synced yet. A server
                # has the rows up to the checkpoint; one of those after it that it has as well comes out the same.
                if wandb_run is not None and wandb_run.offline:
                    wandb_run.log({key: float(value) for key, value in row.items() if value})
        except (ValueError, KeyError) as error:
            raise BadFile(f"{folder / 'metrics.csv'}: damaged ({error})") from error
        self._shown: dict[str, str] = {}  # beside the bar
        self._titled = False

    @property
    def rows(self) -> int:
        """How many rows `metrics.csv` has."""
        return self.metrics.rows

    @property
    def crc32(self) -> int:
        """The checksum of its rows."""
        return self.metrics.crc32

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        self.metrics.sync()

    @property
    def offline(self) -> bool:
        """Whether W&B's files stay here until they are synced."""
        return self._wandb is not None and self._wandb.offline

    @property
    def url(self) -> str | None:
        """The run's page on W&B."""
        return None if self._wandb is None else self._wandb.url

    @property
    def wandb_id(self) -> str | None:
        """The id under which W&B knows the run."""
        return None if self._wandb is None else self._wandb.id

    def log(self, row: dict[str, float]) -> None:
        """Write one row."""
        self.metrics.write(row)
        tested = self._remember(row)
        if self._wandb is not None:
            self._wandb.log(row | self._charts() if tested else row)
        if tested:  # the student's return and the teacher's
            for part in PARTS:
                returns = row[f"test/{part}/return"], row[f"test/{part}/teacher_return"]
                self._shown[part] = "{} {:.1f}/{:.1f}".format(part, *returns)
        if "time/env_steps_per_s" in row:
            self._shown["speed"] = f"{row['time/env_steps_per_s']:.0f} env/s"
        self._bar.n = int(row[AXES[0]])
        self._bar.set_postfix_str(" ".join(self._shown.values()))
        if tested and not self._quiet:
            self._print_test(row)

    def _remember(self, row: Mapping[str, Any]) -> bool:
        """Keep the row for the W&B chart if it holds a test; returns whether it does."""
        tested = row.get("test/OD/return", "") != ""
        if tested:
            self._tests.append({key: float(row[key]) for key in (AXES[0], *REFERENCES)})
        return tested

    def _charts(self) -> dict[str, Any]:
        """Draw the student's return between its teacher's and standing still, for W&B."""
        import wandb

        return {
            f"test/chart/{part}_return": wandb.plot.line_series(
                xs=[test[AXES[0]] for test in self._tests],
                ys=[[test[f"test/{part}/{who}return"] for test in self._tests] for who in WHO.values()],
                keys=list(WHO),
                title=f"{part} return",
                xname="updates",
            )
            for part in PARTS
        }

    def _print_test(self, row: Mapping[str, float]) -> None:
        def line(first: str, values: Callable[[str], tuple[float, float, float]]) -> str:
            return first + "".join("{:10.2f}{:7.3f}{:8.2f}".format(*values(f"test/{part}/")) for part in PARTS)

        lines = []
        if not self._titled:
            title = "".join(f"{part + ' return':>10}{'norm.':>7}{'success':>8}" for part in PARTS)
            lines.append(f"{'updates':>9}{'samples':>10}{title}")
            lines.append(
                line(f"{'teacher':>19}", lambda t: (row[t + "teacher_return"], 1.0, row[t + "teacher_success"]))
            )
            self._titled = True
        lines.append(
            line(
                f"{int(row[AXES[0]]):>9}{int(row[AXES[1]]):>10}",
                lambda t: (row[t + "return"], row[t + "normalized_return"], row[t + "success"]),
            )
        )
        self._bar.write("\n".join(lines), file=sys.stdout)
        sys.stdout.flush()

    def warn(self, message: str) -> None:
        """Show a warning."""
        if not self._quiet:
            self._bar.write(f"warning: {message}", file=sys.stderr)

    def video(self, path: Path, step: int) -> None:
        """Hand a video to W&B, of optimization step `step`."""
        log_video(self._wandb, path, step)

    def dataset(self, folder: Path, meta: dict[str, Any]) -> None:
        """Tell W&B which dataset the run learns from, when online."""
        if self._wandb is not None and not self._wandb.offline:
            log_artifact(self._wandb, "dataset", folder.name, [folder], meta)

    def end_bar(self) -> None:
        """Leave the bar as it stands: what comes is no training."""
        self._bar.close()

    def summarize(self, summary: dict[str, Any], students: Sequence[Path]) -> None:
        """Hand the closing figures to W&B, and when online the students."""
        if self._wandb is not None:
            self._wandb.summary.update(summary)
            if not self._wandb.offline:
                log_artifact(self._wandb, "student", self._wandb.name, students, summary)

    def close(self) -> None:
        """End the bar and the W&B run; nothing is lost if it is never called."""
        self.end_bar()
        if self._wandb is not None:
            self._wandb.finish()


class NullLogger:
    """Logs nothing: the logger of all ranks but the first."""

    rows = crc32 = 0
    wandb_id = None

    def log(self, row: dict[str, float]) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def video(self, path: Path, step: int) -> None:
        """Do nothing."""
