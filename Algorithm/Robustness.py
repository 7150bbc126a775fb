"""The report of robustness: how a student does under each shift of its pictures and physics, and whether it uses its camera.

Every shift of `Enviroment.Views.STRENGTHS` is examined alone, at its full size in a random direction.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from Algorithm.Test_model import Baseline, Evaluation, evaluate, figures
from Enviroment.Renderer import Quality
from Enviroment.Task import Task
from Enviroment.Utils import make_vector_env
from Enviroment.Vector_env import WorkerWorld
from Enviroment.Views import STRENGTHS, VIEWS, Views
from Models.Base_Model import ActorCritic, Policy
from Models.Memory import Memory, NoMemory, Observation

CLEAN = Views()
SIZES = ("small", "medium", "large")  # the three strengths of a shift
TRAINED = tuple(VIEWS["small"].table())  # `--views small` and `large` vary these
PHYSICS = tuple(kind for kind in STRENGTHS if Views(**{kind: 1}).physical)
FIGURES = ("return", "normalized_return", "success")
# A student ignores its camera if wrong frames cost it less normalized return than this.
MARGIN = 0.05
GRAY = 128  # of blanked frames

# Maps the newest observations [N, ...], and bool [N] where episodes begin, to those that take the place of some.
Change = Callable[[Observation, torch.Tensor], Observation]


def frozen(policy: ActorCritic) -> Change:
    """Show the episode's first frame throughout."""
    kept: Observation = {}

    def change(obs: Observation, first: torch.Tensor) -> Observation:
        for image in policy.images:
            begins = first.reshape(-1, *[1] * (obs[image].ndim - 1))
            kept[image] = torch.where(begins, obs[image], kept.get(image, obs[image]))
        return kept

    return change


def blanked(policy: ActorCritic) -> Change:
    """Show the middle gray in every pixel."""
    return lambda obs, _: {image: torch.full_like(obs[image], GRAY) for image in policy.images}


def swapped(policy: ActorCritic) -> Change:
    """Show environment i the frames of environment i + 1, and the last one those of the first."""
    return lambda obs, _: {image: obs[image].roll(-1, 0) for image in policy.images}


def without_proprioception(policy: ActorCritic) -> Change:
    """Replace proprioception by the mean of its statistics, which the student standardizes to zeros."""
    vectors = [key for key in policy.inputs if key not in policy.images]
    return lambda obs, _: {key: policy.vector_mean.to(obs[key]).expand_as(obs[key]) for key in vectors}


CHANGES: dict[str, Callable[[ActorCritic], Change]] = {
    "frames_frozen": frozen,
    "frames_blanked": blanked,
    "frames_swapped": swapped,
    "proprioception_blanked": without_proprioception,
}


class Misled:
    """A student whose observations are changed before they reach its memory."""

    def __init__(self, student: ActorCritic, change: Callable[[ActorCritic], Change]):
        self._student, self._change = student, change
        self.inputs, self.images = student.inputs, student.images

    def memory(self, num_envs: int) -> Memory:
        """Return a memory that is shown the changed observations."""
        return _Misled(self._student.memory(num_envs), self._change(self._student))

    def act(self, obs: Mapping[str, Any], deterministic: bool = True) -> np.ndarray:
        """Return the student's actions."""
        return self._student.act(obs, deterministic)


class _Misled(NoMemory):
    """The memory of an evaluation, which is never saved."""

    def __init__(self, memory: Memory, change: Change):
        self._memory, self._change = memory, change

    def see(self, obs: Observation, first: torch.Tensor) -> Observation:
        return self._memory.see(obs | self._change(obs, first), first)


class _Examination:
    """Scores policies under views on the same seeds, relative to the teacher and the baseline under the same physics."""

    def __init__(self, teacher: Policy, world: WorkerWorld, task: Task, seeds: Sequence[int], bar: tqdm):
        self._teacher, self._world, self._task, self._seeds, self._bar = teacher, world, task, seeds, bar
        self._references: dict[Views, tuple[Evaluation, Evaluation]] = {}  # by the physics; neither of the two sees

    def __call__(self, policy: Policy, views: Views = CLEAN) -> dict[str, float]:
        """Return those of `FIGURES` that the task has."""
        physics = replace(CLEAN, **{kind: getattr(views, kind) for kind in PHYSICS})
        self._world.show(views)
        if physics not in self._references:
            both = Baseline(self._world.action_space), self._teacher
            zero, best = (evaluate(one, self._world, self._task, self._seeds) for one in both)
            self._references[physics] = zero, best
        own = evaluate(policy, self._world, self._task, self._seeds)
        self._bar.update()
        found = figures(own, *self._references[physics])
        return {name: found[name] for name in FIGURES if name in found}


def robustness(
    student: Any,
    teacher: Policy,
    task: Task,
    seeds: Sequence[int],
    *,
    kinds: Iterable[str] = STRENGTHS,
    render_quality: Quality = "fast",
    num_workers: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Examine a student on one episode for each seed, of which there are at least 2, under shifts of some kinds and misled.

    A student without frames is examined under the shifts of physics alone. A terminal shows a progress bar unless `quiet`.

    Returns:
        Plain values. `episodes` is their number, `clean` holds the figures without any shift, and `shifts[kind][size]` the
        `strength` and the figures under a shift, with the sizes `SIZES`. `overall[kinds][size]` has the `mean` and the
        `worst` normalized return, and the `kind` of the worst, over `all` kinds and over the `trained` ones. If the student
        sees, `camera_use[change]` has the figures under each of `CHANGES`, and `ignores_camera` the verdict. Figures that
        a task does not have are left out.
    """
    kinds = [kind for kind in kinds if student.images or kind in PHYSICS]
    changes = dict(CHANGES) if student.images else {}
    if set(student.inputs) == set(student.images):
        changes.pop("proprioception_blanked", None)
    total = 1 + len(SIZES) * len(kinds) + len(changes)
    varied = replace(task, views=VIEWS["large"], edge=True)
    how: Any = {"frames": bool(student.images), "render_quality": render_quality}
    with (
        closing(make_vector_env(varied, min(len(seeds), 20), num_workers, **how).world) as world,
        tqdm(total=total, desc="robustness", leave=False, disable=quiet or not sys.stderr.isatty()) as bar,
    ):
        examine = _Examination(teacher, world, task, seeds, bar)
        report: dict[str, Any] = {"episodes": len(seeds), "clean": examine(student)}
        report["shifts"] = {
            kind: {
                size: {"strength": strength, **examine(student, Views(**{kind: strength}))}  # type: ignore[arg-type]
                for size, strength in zip(SIZES, STRENGTHS[kind])
            }
            for kind in kinds
        }
        if changes:
            report["camera_use"] = {name: examine(Misled(student, change)) for name, change in changes.items()}
            report["ignores_camera"] = ignores_camera(report)
    groups = {"all": kinds, "trained": [kind for kind in kinds if kind in TRAINED]}
    report["overall"] = {name: _overall(report["shifts"], group) for name, group in groups.items() if group}
    return report


def ignores_camera(report: Mapping[str, Any]) -> bool | None:
    """Return whether neither blank frames nor those of another episode cost a student `MARGIN` of normalized return.

    None stands for a student that scores too little for a fall to be seen.
    """
    clean, use = report["clean"].get("normalized_return", 0.0), report["camera_use"]
    if clean < 2 * MARGIN:
        return None
    return all(clean - use[name]["normalized_return"] < MARGIN for name in ("frames_blanked", "frames_swapped"))


def _overall(shifts: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    summary = {}
    for size in SIZES:
        scores = {kind: shifts[kind][size].get("normalized_return") for kind in kinds}
        known = {kind: score for kind, score in scores.items() if score is not None}
        if known:
            worst = min(known, key=known.__getitem__)
            summary[size] = {"mean": float(np.mean(list(known.values()))), "worst": known[worst], "kind": worst}
    return summary


def records(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a report as rows: `shift`, `size`, `strength`, and the figures; no size and strength where nothing is shifted."""
    whole = {"clean": report["clean"], **report.get("camera_use", {})}
    rows = [{"shift": name, "size": None, "strength": None, **found} for name, found in whole.items()]
    shifts = report["shifts"].items()
    return rows + [{"shift": kind, "size": size, **found} for kind, sizes in shifts for size, found in sizes.items()]
