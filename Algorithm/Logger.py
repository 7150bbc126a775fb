"""A run's metrics: to `metrics.csv`, Weights & Biases, and the terminal."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from Algorithm.Metrics_file import AXES, MetricsFile
from Algorithm.Robustness import SIZES, records
from Common.Errors import BadFile, BadInput, BadSetting, brief, decoration

PARTS = ("ID", "OD")  # sets of test seeds
WHO = {"student": "", "teacher": "teacher_", "standing still": "zero_"}  # prefixes in a metric's name
LOGGING = "logging to W&B"
REFERENCES = tuple(f"test/{part}/{who}return" for part in PARTS for who in WHO.values())


def wandb_settings() -> Any:
    """Return W&B's own settings, those of its files and of `WANDB_` variables, of which empty ones count as unset.

    Raises `BadInput` for a variable that W&B refuses.
    """
    import wandb
    from pydantic import ValidationError

    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value]:
        del os.environ[name]
    settings = wandb.Settings(silent=True)
    try:
        settings.update_from_system_settings()
        settings.update_from_env_vars(dict(os.environ))
    except ValidationError as error:
        wrong = error.errors()[0]  # whose value may be a key
        raise BadInput(f"WANDB_{str(wrong['loc'][0]).upper()}: {wrong['msg']}") from None
    except wandb.Error as error:
        raise BadInput(f"W&B's settings: {brief(error)}") from None
    return settings


def resolve_wandb_mode(mode: str) -> str:
    """Return `online`, `offline` or `disabled`; raises `BadInput` for online without a login, or for bad settings of W&B.

    `auto` is what W&B itself is set to (`WANDB_MODE`, `wandb offline`), else online when logged in, else offline. Nothing
    ever prompts.
    """
    if mode == "disabled" or (mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"):
        return "disabled"  # W&B need not be installed
    own = wandb_settings().mode.replace("dryrun", "offline")
    chosen = own if mode == "auto" else mode
    if chosen in ("offline", "disabled"):
        return chosen
    import wandb

    try:
        logged_in = wandb.login(prompt=False)
    except (wandb.Error, ValueError):  # a bad key, or the server does not answer or does not know us
        logged_in = False
    if not logged_in and (mode == "online" or "WANDB_MODE" in os.environ):
        raise BadSetting("wandb_mode online: `wandb login` is needed, and `wandb online` if W&B was set offline")
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

    `mode` is what `resolve_wandb_mode` returns. A run whose server does not answer is offline, and a line says so. Group,
    name and project are defaults, which W&B's own settings precede; tags are added to its own. Without a project it is
    `policy-distillation`. `run_id` continues the curves of a run that is resumed.
    Raises `BadInput` if W&B refuses.
    """
    if mode == "disabled":
        return None
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    own = wandb_settings()
    arguments: dict[str, Any] = {
        "entity": entity,
        "project": project or own.project or "policy-distillation",
        "dir": folder,
        "id": run_id,
        "resume": None if run_id is None else "allow",
        "group": own.run_group or group,
        "name": own.run_name or name,
        "tags": [*tags, *(own.run_tags or ())],
        "config": config,
        "settings": wandb.Settings(silent=True, console="off"),
    }
    try:
        run = wandb.init(mode=mode, **arguments)  # type: ignore[arg-type]
    except wandb.Error as error:
        if mode != "online":
            raise BadInput(f"W&B: {brief(error)}") from error
        print(f"warning: W&B: {brief(error)}; the run is offline, and `wandb sync` uploads it", file=sys.stderr)
        run = wandb.init(mode="offline", **arguments)
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
    """Hand files to W&B as a versioned artifact, a folder (a dataset) as a reference with its files' checksums."""
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
        total: optimization steps of the run.
        wandb_run: from `start_wandb`, or None.
        done: optimization steps made before a resumption.
        keep: rows of `metrics.csv` that a resumption keeps, with checksum `crc32`; raises `BadFile` if they are not there.
        quiet: show nothing.
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
        self._wandb, self._quiet, self._titled = wandb_run, quiet, False
        self._shown: dict[str, str] = {}  # beside the bar
        self._tests: list[dict[str, float]] = []
        self._bar = tqdm(
            total=total,
            initial=done,
            disable=quiet or not sys.stderr.isatty(),
            dynamic_ncols=True,
            bar_format="{n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}, {rate_noinv_fmt}{postfix}",
            unit="",
        )
        try:
            for row in self.metrics.read():
                self._remember(row)
                # Offline each part of a resumed run has a folder of its own, which holds the whole curve, since the one
                # before may lack its end. A server has the rows already.
                numbers = {key: float(value) for key, value in row.items() if value}
                if self.offline:
                    with decoration(LOGGING):
                        wandb_run.log(numbers)
        except (ValueError, KeyError) as error:
            raise BadFile(f"{folder / 'metrics.csv'}: damaged ({error})") from error

    @property
    def offline(self) -> bool:
        """Whether there is a W&B run whose files stay here until they are synced."""
        return self._wandb is not None and self._wandb.offline

    @property
    def url(self) -> str | None:
        """The run's page on W&B."""
        return None if self._wandb is None else self._wandb.url

    def sync(self) -> dict[str, Any]:
        """Wait until all rows are on the disk; returns the fields of a `Checkpoint` that describe them and the W&B run."""
        self.metrics.sync()
        wandb_id = None if self._wandb is None else self._wandb.id
        return {"rows": self.metrics.rows, "rows_crc32": self.metrics.crc32, "wandb_id": wandb_id}

    def log(self, row: dict[str, float]) -> None:
        """Write one row."""
        self.metrics.write(row)
        tested = self._remember(row)
        with decoration(LOGGING):
            if self._wandb is not None:
                self._wandb.log(row | self._charts() if tested else row)
        if tested:
            for part in PARTS:
                self._shown[part] = f"{part} {row[f'test/{part}/return']:.1f}/{row[f'test/{part}/teacher_return']:.1f}"
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
        """Draw the returns of the student, its teacher and standing still, for W&B."""
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
        successes = "test/ID/success" in row  # or the task knows none

        def line(first: str, who: str = "") -> str:
            for key in (f"test/{part}/{who}" for part in PARTS):
                normalized = 1.0 if who else row.get(key + "normalized_return", float("nan"))
                first += f"{row[key + 'return']:10.2f} {normalized:6.3f}"
                first += f"{row[key + 'success']:8.2f}" if successes else ""
            return first

        lines = [line(f"{int(row[AXES[0]]):>9}{int(row[AXES[1]]):>10}")]
        if not self._titled:
            last = f"{'success':>8}" if successes else ""
            title = "".join(f"{part + ' return':>10}{'norm.':>7}{last}" for part in PARTS)
            lines = [f"{'updates':>9}{'samples':>10}{title}", line(f"{'teacher':>19}", "teacher_"), *lines]
            self._titled = True
        self._bar.write("\n".join(lines), file=sys.stdout)
        sys.stdout.flush()

    def warn(self, message: str) -> None:
        """Show a warning."""
        if not self._quiet:
            self._bar.write(f"warning: {message}", file=sys.stderr)

    def video(self, path: Path, step: int) -> None:
        """Hand a video to W&B, of optimization step `step`."""
        with decoration(LOGGING):
            log_video(self._wandb, path, step)

    def dataset(self, folder: Path, meta: dict[str, Any]) -> None:
        """Tell W&B which dataset the run learns from, when online."""
        with decoration(LOGGING):
            if self._wandb is not None and not self.offline:
                log_artifact(self._wandb, "dataset", folder.name, [folder], meta)

    def end_bar(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def summarize(self, summary: dict[str, Any], students: Sequence[Path]) -> None:
        """Hand the closing figures to W&B, and when online the students."""
        with decoration(LOGGING):
            if self._wandb is not None:
                self._wandb.summary.update(summary)
                if not self.offline:
                    log_artifact(self._wandb, "student", self._wandb.name, students, summary)

    def robustness(self, report: Mapping[str, Any], step: int) -> None:
        """Hand a report of robustness, as of optimization step `step`, to W&B: a table, and a curve for each kind of shift."""
        with decoration(LOGGING):
            if self._wandb is not None:
                self._wandb.log({AXES[0]: step, **_robustness_charts(report)})

    def close(self) -> None:
        """End the bar and the W&B run."""
        self.end_bar()
        with decoration(LOGGING):
            if self._wandb is not None:
                self._wandb.finish()


def _robustness_charts(report: Mapping[str, Any]) -> dict[str, Any]:
    import wandb

    rows = records(report)
    columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
    shifts = report["shifts"]
    scores = [[sizes[size].get("normalized_return") for size in SIZES] for sizes in shifts.values()]
    clean = report["clean"].get("normalized_return")
    chart = wandb.plot.line_series(
        xs=list(range(1 + len(SIZES))),
        ys=[[clean, *each] for each in scores],
        keys=list(shifts),
        title="normalized return under one shift",
        xname=f"none, {', '.join(SIZES)}",
    )
    table = wandb.Table(columns=columns, data=[[row.get(str(name)) for name in columns] for row in rows])
    return {"robustness/table": table, "robustness/chart": chart}


class NullLogger:
    """Logs nothing: the logger of all ranks but the first."""

    def log(self, *_: Any) -> None:
        """Do nothing."""

    warn = video = log

    def sync(self) -> dict[str, Any]:
        """Return the fields of a `Checkpoint`, as of no rows."""
        return {"rows": 0, "rows_crc32": 0, "wandb_id": None}
