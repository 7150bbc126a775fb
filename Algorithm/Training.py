"""The one training loop: step, test, log, save. Every method's trainer runs in it."""

import contextlib
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from Algorithm.Checkpoint import save_checkpoint
from Algorithm.Logger import AXES, RunLogger
from Algorithm.Test_model import Recording, StudentTest
from Models.Base_Model import ActorCritic
from Models.Model_Pusher import save_student

CHECKPOINT_EVERY_S = 30.0
EARLY_TEST_EVERY = 1_000


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: every update needs the same large blocks, and fresh ones come with page faults."""
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


class Trainer(Protocol):
    """What the loop needs of a method."""

    student: ActorCritic
    optimization_steps: int
    samples_collected: int
    samples_seen: int

    def start(self) -> None:
        """Prepare the first step of a new run."""
        ...

    def step(self, budget: int) -> dict[str, float]:
        """Make some updates, at most `budget`; return scalars."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to go on exactly."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        ...


def train(
    trainer: Trainer,
    test: StudentTest,
    logger: RunLogger,
    folder: Path,
    card: dict[str, Any],
    *,
    optimization_steps: int,
    test_every: int,
    film: Callable[[Recording, int], object] | None = None,
    film_every: int = 0,
    resume: dict[str, Any] | None = None,
) -> float:
    """Train until `optimization_steps` updates are made; returns the seconds that training took, without tests.

    Args:
        trainer: the method.
        test: run before the first update, every `test_every` updates (every 1,000 up to there), and after the last.
        logger: gets a row for every step of the trainer.
        folder: the run's folder, for `checkpoints/last.pt` and `checkpoints/best_ID.pt`.
        card: what is written into a student's file beside its weights.
        optimization_steps: updates in all.
        test_every: updates between tests.
        film: gets the episodes of a test, and the update it stands at, every `film_every` updates.
        film_every: updates between films; 0: none.
        resume: the checkpoint to go on from.
    """
    last, best = folder / "checkpoints" / "last.pt", folder / "checkpoints" / "best_ID.pt"
    keep_freed_memory()
    elapsed, best_return, next_test = 0.0, -float("inf"), 0
    if resume is None:
        trainer.start()
    else:
        trainer.load_state_dict(resume["trainer"])
        elapsed, best_return, next_test = resume["elapsed_s"], resume["best_return"], resume["next_test"]
        card = card | {"scores": resume["student"]["card"].get("scores")}
    films = trainer.optimization_steps // film_every if film_every else 0

    def log(stats: dict[str, float]) -> None:
        nonlocal best_return, next_test, films, card
        counters = (trainer.optimization_steps, trainer.samples_collected, trainer.samples_seen)
        finished, recording = trainer.optimization_steps >= optimization_steps, None
        if trainer.optimization_steps >= next_test or finished:
            early = trainer.optimization_steps < test_every
            every = EARLY_TEST_EVERY if early else test_every
            next_test = (trainer.optimization_steps // every + 1) * every
            if early:
                next_test = min(next_test, test_every)
            if film_every and trainer.optimization_steps // film_every > films and not finished:
                recording = Recording()
            scores = test(trainer.student, recording)
            card = card | {"scores": {"optimization_steps": trainer.optimization_steps, **scores}}
            stats = stats | scores
            if stats["test/ID/return"] > best_return:
                best_return = stats["test/ID/return"]
                save_student(best, trainer.student, card)
        logger.log({**dict(zip(AXES, counters)), **stats})
        if film is not None and recording is not None:
            films = trainer.optimization_steps // film_every
            film(recording, trainer.optimization_steps)

    def save() -> None:
        save_checkpoint(
            last,
            {
                "trainer": trainer.state_dict(),
                "student": {"arguments": trainer.student.arguments, "card": card},
                "elapsed_s": elapsed,
                "best_return": best_return,
                "next_test": next_test,
                "rows": logger.metrics.rows,
                "wandb_id": logger.wandb_id,
            },
        )

    if resume is None:
        log({"time/elapsed_s": 0.0})
        save()
    saved = time.monotonic()
    while trainer.optimization_steps < optimization_steps:
        started, collected, seen = time.monotonic(), trainer.samples_collected, trainer.samples_seen
        stats = trainer.step(optimization_steps - trainer.optimization_steps)
        seconds = time.monotonic() - started
        if trainer.samples_collected > collected:
            stats.setdefault("time/env_steps_per_s", (trainer.samples_collected - collected) / seconds)
        stats["time/samples_per_s"] = (trainer.samples_seen - seen) / seconds
        elapsed += seconds
        stats["time/elapsed_s"] = elapsed
        log(stats)
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            save()
            saved = time.monotonic()
    save()
    return elapsed
