"""The one training loop: step, test, log, save. Every method's trainer runs in it."""

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from Algorithm.Checkpoint import save_checkpoint
from Algorithm.Logger import AXES, RunLogger
from Algorithm.Test_model import Recording, StudentTest
from Common import Parallel
from Common.Errors import BadFile, Diverged, NonFinite, Stopped, brief
from Common.Machine import keep_freed_memory
from Common.Settings import differences
from Models.Base_Model import LOG_STD_MIN, ActorCritic
from Models.Model_Pusher import save_student

EARLY_TEST_EVERY = 1_000
UNKNOWN_AT_FIRST = "training/episode_return"  # before the first episode has ended
CHECKPOINTS_SHARE = 0.02  # of a run's time, at most


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list this gives, for a good moment to stop; a second one interrupts at once.

    A rank takes no notice of a second one: torchrun passes on what a batch system has already sent to all processes.
    """
    requests: list[int] = []

    def request(number: int, frame: Any) -> None:
        if requests and Parallel.count() == 1:
            sys.exit(128 + number)
        if not requests and Parallel.rank() == 0:
            again = "" if Parallel.count() > 1 else "; again stops at once"
            print(f"stopping after this step{again}", file=sys.stderr, flush=True)
        requests.append(number)

    if threading.current_thread() is not threading.main_thread():  # signals are not ours to handle
        yield requests
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    except Exception:
        if Parallel.count() > 1:  # torchrun tells all to stop when one has ended: time to say why, and to clean up
            before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class CollapseWatch:
    """Notices a policy that has become certain of the wrong actions: its entropy at its floor, its accuracy falling."""

    def __init__(self, student: ActorCritic):
        # A Gaussian's entropy with every log_std at its smallest, in the action's units; tanh only takes from it.
        per_dimension = LOG_STD_MIN + 0.5 * math.log(2 * math.pi * math.e)
        self._floor = float(student.scale.log().sum()) + (per_dimension + 0.1) * len(student.scale)
        self.state = [-float("inf"), False]  # the best accuracy, and whether it has collapsed

    def __call__(self, stats: dict[str, float]) -> bool:
        """Take the scalars of a step; returns whether it is the first with a collapsed policy."""
        entropy, accuracy = stats.get("training/entropy"), stats.get("training/action_accuracy")
        best, collapsed = self.state
        if entropy is None or accuracy is None or collapsed:
            return False
        self.state = [max(best, accuracy), entropy < self._floor and accuracy < best - 0.05]
        return bool(self.state[1])


def check_finite(student: ActorCritic, stats: dict[str, float]) -> None:
    """Raise `NonFinite` if a weight or a scalar of a step is not finite."""
    odd = [f"{k} is {v}" for k, v in stats.items() if not math.isfinite(v) and k != UNKNOWN_AT_FIRST]
    odd += [f"{name} is not finite" for name, weight in student.named_parameters() if not weight.isfinite().all()]
    if odd:
        raise NonFinite(odd[0])


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
    test: StudentTest | None,
    logger: RunLogger | None,
    folder: Path,
    card: dict[str, Any],
    *,
    optimization_steps: int,
    test_every: int,
    checkpoint_every: float,
    settings: dict[str, Any],
    film: Callable[[Recording, int], object] | None = None,
    film_every: int = 0,
    resume: dict[str, Any] | None = None,
) -> float:
    """Train until `optimization_steps` updates are made; returns the seconds that training took, without tests.

    With several ranks all call it; the first has `test` and `logger`, and writes.

    Args:
        trainer: the method.
        test: run before the first update, every `test_every` updates (every 1,000 up to there), and after the last.
        logger: gets a row for every step of the trainer.
        folder: the run's folder, for `checkpoints/last.pt` and `checkpoints/best_ID.pt`.
        card: what is written into a student's file beside its weights.
        optimization_steps: updates in all.
        test_every: updates between tests.
        checkpoint_every: seconds between checkpoints, or more where writing them would take 2 % of the time.
        settings: kept in the checkpoint, to tell whose it is.
        film: gets the episodes of a test, and the update it stands at, every `film_every` updates.
        film_every: updates between films; 0: none.
        resume: the checkpoint to go on from.

    Raises:
        Stopped: SIGINT or SIGTERM came; the step under way was finished and everything saved.
        Diverged: a loss, gradient, reward or observation is not finite; `last.pt` is from before.
        BadFile: `resume` is of another run.
    """
    last, best = folder / "checkpoints" / "last.pt", folder / "checkpoints" / "best_ID.pt"
    keep_freed_memory()
    collapse = CollapseWatch(trainer.student)
    elapsed, best_return, next_test = 0.0, -float("inf"), 0
    if resume is None:
        trainer.start()
    else:
        _load(trainer, resume, last)
        elapsed, best_return, next_test = resume["elapsed_s"], resume["best_return"], resume["next_test"]
        collapse.state = resume["collapse"]
        card = card | {"scores": resume["student"]["card"].get("scores")}
    films = trainer.optimization_steps // film_every if film_every else 0

    def log(stats: dict[str, float]) -> None:
        nonlocal best_return, next_test, films, card
        if test is None or logger is None:
            return
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

    def save() -> float:
        """Write the checkpoint; returns how long that took."""
        started, state = time.monotonic(), trainer.state_dict()
        if logger is None:
            return 0.0
        logger.metrics.sync()  # a checkpoint counts on the rows from before it
        save_checkpoint(
            last,
            {
                "trainer": state,
                "student": {"arguments": trainer.student.arguments, "card": card},
                "settings": settings,
                "elapsed_s": elapsed,
                "best_return": best_return,
                "next_test": next_test,
                "rows": logger.metrics.rows,
                "rows_crc32": logger.metrics.crc32,
                "wandb_id": logger.wandb_id,
                "collapse": collapse.state,
            },
        )
        return time.monotonic() - started

    @contextlib.contextmanager
    def guarded() -> Iterator[None]:
        before = trainer.optimization_steps
        try:
            yield
        except NonFinite as error:
            where = f"updates {before} to {max(trainer.optimization_steps, before + 1)}"
            raise Diverged(f"{error} in {where}; {last} is from before, and is kept") from None

    with stop_requests() as requests:
        seconds_to_save = 0.0
        if resume is None:
            log({"time/elapsed_s": 0.0})
            seconds_to_save = save()
        saved = time.monotonic()
        while trainer.optimization_steps < optimization_steps:
            started, collected, seen = time.monotonic(), trainer.samples_collected, trainer.samples_seen
            with guarded():
                stats = _mean(Parallel.exchange(trainer.step(optimization_steps - trainer.optimization_steps)))
                check_finite(trainer.student, stats)
            seconds = time.monotonic() - started
            if trainer.samples_collected > collected:
                stats.setdefault("time/env_steps_per_s", (trainer.samples_collected - collected) / seconds)
            stats["time/samples_per_s"] = (trainer.samples_seen - seen) / seconds
            elapsed += seconds
            stats["time/elapsed_s"] = elapsed
            with guarded():
                log(stats)
            if collapse(stats) and logger is not None:
                logger.warn("the policy has collapsed: its entropy is at its floor and its accuracy falls")
            finished = trainer.optimization_steps >= optimization_steps
            due = time.monotonic() - saved > max(checkpoint_every, seconds_to_save / CHECKPOINTS_SHARE)
            answers = Parallel.exchange((due, requests[:1]))  # the first says when; whoever is told to stop, all are
            stop = [number for _, asked in answers for number in asked]
            if answers[0][0] or stop or finished:
                seconds_to_save = save()
                saved = time.monotonic()
            if stop:
                raise Stopped(stop[0], f"update {trainer.optimization_steps}")
    return elapsed


def _mean(stats: list[dict[str, float]]) -> dict[str, float]:
    """Average the ranks' scalars."""
    if len(stats) == 1:
        return stats[0]
    values = {key: [each[key] for each in stats] for key in stats[0]}
    if known := [value for value in values.get(UNKNOWN_AT_FIRST, ()) if math.isfinite(value)]:
        values[UNKNOWN_AT_FIRST] = known
    return {key: sum(each) / len(each) for key, each in values.items()}


def _load(trainer: Trainer, checkpoint: dict[str, Any], path: Path) -> None:
    try:
        unlike = differences(checkpoint["student"]["arguments"], trainer.student.arguments)
        if unlike:
            raise BadFile(f"{path}: of another student: {unlike}")
        trainer.load_state_dict(checkpoint["trainer"])
    except BadFile:
        raise
    except Exception as error:  # whatever a foreign state breaks
        raise BadFile(f"{path}: not a checkpoint of this run ({brief(error)})") from error
