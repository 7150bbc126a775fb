"""Evaluation on fixed seeds, checkpoints and metrics beside the updates."""

import csv
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from Algorithm.Logger import LOGGING, log_video
from Algorithm.Metrics_file import AXES, MetricsFile
from Algorithm.seeds import TEACHER_SELECTION_SEEDS
from Algorithm.Test_model import Recording, evaluate
from Algorithm.Video import write_video
from Common.Errors import BadFile, Diverged, brief, decoration
from Common.Files import sync
from Enviroment.Tasks import Task
from Enviroment.World import World
from Train_Teacher_Pusher.Original import read_original
from Train_Teacher_Pusher.SaveWeights import STATISTICS, teacher_from_model
from Train_Teacher_Pusher.Settings import KeepingSettings
from Train_Teacher_Pusher.Statistics import find_statistics

# Attributes of a model that would be saved as byte code, which only the Python that wrote it can read.
CODE = ("learning_rate", "lr_schedule")
METRICS = "metrics.csv"  # in a run's folder
FIELDS = ["timesteps", "updates", "minutes", "return", "length", "success"]


def check_finite(model: BaseAlgorithm, folder: Path) -> None:
    """Raise `Diverged` if a weight is not finite."""
    if not all(parameter.isfinite().all() for parameter in model.policy.parameters()):
        when = f"at step {model.num_timesteps}"
        raise Diverged(f"weights are not finite {when}; the checkpoints in {folder} are from before")


def save_checkpoint(model: BaseAlgorithm, folder: Path, name: str, replay: bool = False) -> None:
    """Write `NAME.zip` and `NAME_vecnormalize.pkl` (and a `replay` buffer, `NAME_replay.pkl`, if there is one), each replacing the old one when whole.

    Raises `Diverged`, and writes nothing, if a weight is not finite.
    """
    check_finite(model, folder)
    statistics: Any = model.get_vec_normalize_env()
    writers: dict[str, Any] = {
        f"{name}_{STATISTICS}": statistics.save,
        f"{name}.zip": partial(model.save, exclude=CODE),
    }
    if replay and isinstance(model, OffPolicyAlgorithm):
        writers[f"{name}_replay.pkl"] = model.save_replay_buffer
    for file, write in writers.items():
        temporary = folder / f"writing_{file}"
        write(temporary)
        with temporary.open("a") as opened:
            sync(opened)
    _replace(folder, list(writers))


def finish_checkpoint(folder: Path, name: str) -> None:
    """Finish a `save_checkpoint` that was killed, so that the files of checkpoint `name` are of one moment, and no others are left.

    They are written in an order, then renamed in the same. If the first has its name already, the others are whole. Else
    they are removed.
    """
    files = [f"{name}_{STATISTICS}", f"{name}.zip", f"{name}_replay.pkl"]
    if (folder / f"writing_{files[0]}").exists():
        for file in reversed(files):  # the first one last, or a kill in here would leave half a file as a whole one
            (folder / f"writing_{file}").unlink(missing_ok=True)
    _replace(folder, [file for file in files if (folder / f"writing_{file}").exists()])


def _replace(folder: Path, files: Sequence[str]) -> None:
    for file in files:
        os.replace(folder / f"writing_{file}", folder / file)


def evaluations(folder: Path, steps: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the best return in a run's `metrics.csv`, and its rows up to some steps; raises `BadFile` if it is damaged.

    Steps after the checkpoint are made again, but `best.zip` may be from there.
    """
    metrics = folder / METRICS
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
        rows = list(reader := csv.DictReader(lines))
        if lines and not {"timesteps", "return", "minutes"} <= {*(reader.fieldnames or ())}:
            raise ValueError("columns are missing")
        for row in rows:
            int(row["timesteps"]), float(row["return"]), float(row["minutes"])
        kept = [row for row in rows if int(row["timesteps"]) <= steps]
        if any(None in row or None in row.values() for row in kept):
            raise ValueError("a row is not whole")
    except (ValueError, KeyError, TypeError, OSError, csv.Error) as error:
        raise BadFile(f"{metrics}: damaged ({brief(error)})") from error
    return max((float(row["return"]) for row in rows), default=-float("inf")), kept


def _next(steps: int, every: int) -> int:
    """Return the next multiple of `every`: a run that is cut off more often than that is evaluated and saved all the same."""
    return (steps // every + 1) * every


class EvaluationCallback(BaseCallback):
    """Scores the deterministic policy from time to time, writes `metrics.csv`, and keeps `best.zip` and `last.zip`.

    The best is chosen by mean return on seeds that no published figure uses. Training ends once `stops` has an entry.
    """

    model: BaseAlgorithm

    def __init__(
        self,
        model: BaseAlgorithm,
        folder: Path,
        task: Task,
        world: World,
        keeping: KeepingSettings,
        stops: list[int],
        run: Any,
    ):
        super().__init__()
        self._folder, self._task, self._world, self._run = folder, task, world, run
        self._keeping, self._stops = keeping, stops
        self._minutes, self._evaluated = 0.0, 0
        self._best, rows = evaluations(folder, model.num_timesteps)
        if rows:
            self._minutes, self._evaluated = float(rows[-1]["minutes"]), int(rows[-1]["timesteps"])
        entropy = ["entropy_coefficient"] if hasattr(model, "log_ent_coef") else []
        columns = [*FIELDS, *entropy, *(f"final_{name}" for name in task.measures)]
        self._metrics = MetricsFile(folder / METRICS, keep=len(rows), columns=columns)
        if run is not None and run.offline:  # its folder holds the whole curve, as in `RunLogger`
            for row in rows:
                self._send({key: float(value) for key, value in row.items() if value})

    def _on_training_start(self) -> None:
        self._started = time.monotonic()
        self._next_evaluation = _next(self.num_timesteps, self._keeping.eval_freq)
        self._next_checkpoint = _next(self.num_timesteps, self._keeping.checkpoint_freq)

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._next_evaluation:
            self._next_evaluation = _next(self.num_timesteps, self._keeping.eval_freq)
            self._evaluate()
        if self.num_timesteps >= self._next_checkpoint:
            self._next_checkpoint = _next(self.num_timesteps, self._keeping.checkpoint_freq)
            save_checkpoint(self.model, self._folder, "last", replay=True)
        return not self._stops

    def _on_training_end(self) -> None:
        stopped = bool(self._stops)
        if not stopped and self._evaluated != self.num_timesteps:
            self._evaluate()
        save_checkpoint(self.model, self._folder, "last", replay=True)
        if not stopped:
            self._film()

    def _film(self) -> None:
        recording, seeds = Recording(), TEACHER_SELECTION_SEEDS[:3]
        best, actions = self._folder / "best.zip", self._world.action_space
        size = self._world.spaces["State"].shape[0]  # type: ignore[index]
        original = read_original(best, size, actions, find_statistics(best, self._task.env_id))
        teacher = teacher_from_model(original, original.statistics)
        evaluate(teacher, self._world, self._task, seeds, recording=recording)
        video = self._folder / "best.mp4"
        with decoration("the video of the best checkpoint"):  # not the episodes: a worker that dies is for `--resume`
            write_video(video, self._task, seeds, {"teacher": recording})
            log_video(self._run, video, self.model._n_updates)

    def _send(self, row: dict[str, Any]) -> None:
        self._run.log({AXES[0]: row["updates"], **{f"teacher/{key}": value for key, value in row.items()}})

    def _evaluate(self) -> None:
        self._evaluated = self.num_timesteps
        statistics: Any = self.model.get_vec_normalize_env()
        result = evaluate(teacher_from_model(self.model, statistics), self._world, self._task, TEACHER_SELECTION_SEEDS)
        row: dict[str, Any] = {
            "timesteps": self.num_timesteps,
            "updates": self.model._n_updates,
            "minutes": round(self._minutes + (time.monotonic() - self._started) / 60, 2),
            "return": round(float(result.returns.mean()), 3),
            "length": round(float(result.lengths.mean()), 1),
            "success": round(float(result.success.mean()), 3),
        }
        if hasattr(self.model, "log_ent_coef"):
            row["entropy_coefficient"] = round(float(self.model.log_ent_coef.detach().exp()), 5)
        row |= {f"final_{name}": round(float(values.mean()), 4) for name, values in result.measures.items()}
        row = {name: value for name, value in row.items() if np.isfinite(value)}
        if row["return"] > self._best:  # before the row, after which a resumed run would take it for saved
            self._best = row["return"]
            save_checkpoint(self.model, self._folder, "best")
        self._metrics.write(row)
        if self._run is not None:
            with decoration(LOGGING):
                self._send(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
