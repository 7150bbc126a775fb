"""How far the states, rewards and frames of MuJoCo Warp are from those of Gymnasium and of MuJoCo's own renderer.

    python benchmarks/warp_parity.py                                          # three minutes on two busy cores
    python benchmarks/warp_parity.py --tasks Pusher --picture frames.png      # one task, and its frames side by side

Both backends begin with the same seeds and are given the same actions, uniform within the bounds. Errors are absolute
differences over all entries of the states, in their units, and over rewards. An environment whose episode has ended under
either backend is left out from then on. The frames compared are those of the first states, which are the same in every bit, so
that the renderers alone differ. A task with a shipped teacher is also played by it on held-out seeds.
"""

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import common  # noqa: F401, isort: skip  # this repository, and how threads wait, before PyTorch is loaded
import cv2
import numpy as np
import torch

from Algorithm.seeds import OD_TEST_SEEDS
from Algorithm.Test_model import Evaluation, evaluate
from Common.Files import RESULTS
from Common.Machine import resolve_device
from Enviroment.GL import choose_gl_backend
from Enviroment.Tasks import Task, find_task
from Enviroment.Utils import make_world
from Models.Model_Pusher import get_Teacher_model

TASKS = ("Pusher", "Reacher", "InvertedDoublePendulum", "HalfCheetah", "Hopper", "Walker2d", "Ant", "Swimmer")
ZOOM = 2  # screen pixels of a pixel in the picture


@dataclass
class Course:
    """How two worlds went that had the same seeds and actions; W is Warp's, M Gymnasium's with MuJoCo's renderer."""

    errors: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)  # |W - M| by step and what it is of
    frames: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))  # first frames uint8 [N, ...] of M and of W

    def row(self) -> list[str]:
        """Return the cells of a table."""
        cells = []
        for found in self.errors.values():
            left = len(found["reward"])
            cells.append(str(left))
            for error in found.values():
                cells.append(f"{error.mean():.1e}, {error.max():.1e}" if left else "")
        difference = np.abs(np.subtract(*self.frames, dtype=float))
        return [*cells[1:], f"{difference.mean():.1f}", f"{np.percentile(difference, 95):.0f}"]


def course(task: Task, num_envs: int, steps: int, device: torch.device) -> Course:
    """Step both worlds."""
    result, random = Course(), torch.Generator().manual_seed(0)
    with (
        closing(make_world(task, num_envs, backend="warp", device=device)) as warp,
        closing(make_world(task, num_envs, 1)) as workers,
    ):
        low, high = (torch.from_numpy(bound) for bound in (warp.action_space.low, warp.action_space.high))
        camera, seeds = next(iter(task.seen)), range(num_envs)
        first, ours = (world.start(seeds)[camera].cpu().numpy().copy() for world in (workers, warp))
        result.frames = first, ours
        running = torch.ones(num_envs, dtype=torch.bool)
        for number in range(1, steps + 1):
            actions = low + (high - low) * torch.rand(num_envs, len(low), generator=random)
            with workers.rendering(False), warp.rendering(False):
                step, reference = warp.step(actions), workers.step(actions)
            running &= ~(step.done.cpu() | reference.done)
            if number in (1, steps):
                pairs = {
                    "State": (step.obs["State"], reference.obs["State"]),
                    "reward": (step.reward, reference.reward),
                }
                result.errors[number] = {
                    name: (own.cpu().double() - other.double()).abs()[running].numpy()
                    for name, (own, other) in pairs.items()
                }
    return result


def played(task: Task, teacher: Path, seeds: Sequence[int], device: torch.device) -> list[str]:
    """Return the cells of the table of teachers."""
    policy, found = get_Teacher_model(str(teacher), device), {}
    for backend in ("workers", "warp"):
        with closing(make_world(task, min(100, len(seeds)), 1, False, backend=backend, device=device)) as world:
            found[backend] = evaluate(policy, world, task, seeds)
    apart = np.abs(found["warp"].returns - found["workers"].returns)
    return [*(cell(evaluation) for evaluation in found.values()), f"{apart.mean():.1e}, {apart.max():.1e}"]


def cell(evaluation: Evaluation) -> str:
    """Return the return of some episodes, with their standard deviation, and their success if the task knows one."""
    returns, success = evaluation.returns, evaluation.success.mean()
    return f"{returns.mean():.3f} ± {returns.std():.2f}" + (f", {success:.2f}" if np.isfinite(success) else "")


def side_by_side(courses: Sequence[Course]) -> np.ndarray:
    """Return a picture with a row for each task: MuJoCo's frame, Warp's, and how much they differ."""
    shown = []
    for found in courses:
        own, other = (frames[0].astype(np.int16) for frames in found.frames)
        shown.append([own, other, np.abs(own - other)])
    width = max(own.shape[1] for own, *_ in shown)
    rows = [[np.pad(frame, ((0, 4), (0, width - frame.shape[1] + 4))) for frame in row] for row in shown]
    return np.vstack([np.hstack(row) for row in rows]).astype(np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--num_envs", type=int, default=32, help="episodes whose states, rewards and frames are compared"
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--episodes", type=int, default=100, help="held-out seeds that teachers play, from 1900 up")
    parser.add_argument("--picture", type=Path, help="a PNG of first frames side by side")
    arguments = parser.parse_args()
    choose_gl_backend()
    device, steps = resolve_device(arguments.device), arguments.steps
    courses, taught = {}, []
    for name in arguments.tasks:
        task = find_task(name)
        courses[task.name] = course(task, arguments.num_envs, steps, device)
        teacher = RESULTS / task.name / "Teacher" / "teacher.pt"
        if teacher.is_file() and arguments.episodes:
            seeds = range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + arguments.episodes)
            taught.append([task.name, *played(task, teacher, seeds, device)])
    ends = "state after 1 step", "reward", f"episodes after {steps} steps", "state", "reward"
    rows = [[name, *found.row()] for name, found in courses.items()]
    print(table(["mean, largest error", *ends, "frames, gray levels: mean", "95 %"], rows))
    if taught:
        print(
            "\n" + table(["teacher", "return, success in Gymnasium", "in Warp", "returns apart: mean, largest"], taught)
        )
    if arguments.picture:
        cv2.imwrite(str(arguments.picture), side_by_side(list(courses.values())))


if __name__ == "__main__":
    main()
