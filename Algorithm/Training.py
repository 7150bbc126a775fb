"""The training loop of every method: step, test, log, save."""

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from Algorithm.Checkpoint import Checkpoint
from Algorithm.Learner import Trainer
from Algorithm.Logger import AXES, NullLogger, RunLogger
from Algorithm.Schedules import Every, Until
from Algorithm.Test_model import Recording
from Common import Parallel
from Common.Errors import STOPS, BadFile, Diverged, NonFinite, OutOfMemory, Stopped, brief
from Common.Machine import keep_freed_memory
from Common.Settings import differences
from Models.Base_Model import ActorCritic
from Models.Distributions import LOG_STD_MIN
from Models.Model_Pusher import named_policy, save_student

EARLY_TEST_EVERY = 1_000
UNKNOWN_AT_FIRST = "training/episode_return"  # until the first episode has ended
CHECKPOINTS_SHARE = 0.02  # of a run's time, at most


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGUSR1 in a list, so that the run stops after its current step.

    A second Ctrl-C interrupts at once. Several ranks ignore it, since torchrun passes on signals. Others count once, since
    what a batch system has sent to all processes is passed on by a study's runner as well.
    """
    requests: list[int] = []

    def request(number: int, frame: Any) -> None:
        if requests and number == signal.SIGINT and Parallel.count() == 1:
            sys.exit(128 + number)
        if not requests and Parallel.rank() == 0:
            again = "; once more stops at once" if number == signal.SIGINT and Parallel.count() == 1 else ""
            print(f"{signal.Signals(number).name}: stopping after this step{again}", file=sys.stderr, flush=True)
        requests.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        yield requests
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, *STOPS)}
    try:
        yield requests
    except Exception:
        if Parallel.count() > 1:  # torchrun stops all ranks once one has ended: leave time for error and clean-up
            before |= dict.fromkeys(STOPS, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class CollapseWatch:
    """Notices a policy that is certain of the wrong actions: its entropy is at its floor, and its accuracy falls."""

    def __init__(self, student: ActorCritic):
        # A Gaussian's entropy with every log_std at its smallest, in the action's units; tanh only takes from it.
        per_dimension = LOG_STD_MIN + 0.5 * math.log(2 * math.pi * math.e)
        self._floor = float(student.scale.log().sum()) + (per_dimension + 0.1) * len(student.scale)
        self.state = [-float("inf"), False]  # the best accuracy, and whether it has collapsed

    def __call__(self, scalars: dict[str, float]) -> bool:
        """Return whether a step with these scalars is the first with a collapsed policy."""
        entropy, accuracy = scalars.get("training/entropy"), scalars.get("training/action_accuracy")
        best, collapsed = self.state
        if entropy is None or accuracy is None or collapsed:
            return False
        self.state = [max(best, accuracy), entropy < self._floor and accuracy < best - 0.05]
        return bool(self.state[1])


def check_finite(student: ActorCritic, scalars: dict[str, float]) -> None:
    """Raise `NonFinite` if a weight or a scalar is not finite."""
    odd = [f"{k} is {v}" for k, v in scalars.items() if not math.isfinite(v) and k != UNKNOWN_AT_FIRST]
    odd += [f"{name} is not finite" for name, weight in student.named_parameters() if not weight.isfinite().all()]
    if odd:
        raise NonFinite(odd[0])


def no_test(student: ActorCritic, recording: Recording | None) -> dict[str, float]:
    """Return no scores: the test of all ranks but the first."""
    return {}


class Loop:
    """Trains a student until a number of updates is made. All ranks run it; the first tests, logs and saves.

    There is a test before the first update and after the last one, and every 1,000 updates before the first multiple of
    `test_every`.

    Args:
        folder: the run's folder, for `checkpoints/last.pt` and `checkpoints/best_ID.pt`.
        card: is kept in a student's file beside its weights.
        settings: the run's `config.json`, kept in the checkpoint.
        optimization_steps: updates in all; `test_every`: between tests.
        checkpoint_every: seconds between checkpoints, more where writing them would take over 2 % of the time.
        logger: gets a row for every step of the trainer.
        film: gets the episodes of a test, and the update, every `film_every` updates; 0: never.
        resume: the checkpoint to continue from; raises `BadFile` if it is of another run.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        card: dict[str, Any],
        settings: dict[str, Any],
        *,
        optimization_steps: int,
        test_every: int,
        checkpoint_every: float,
        logger: RunLogger | NullLogger,
        test: Callable[[ActorCritic, Recording | None], dict[str, float]] = no_test,
        film: Callable[[Recording, int], object] = lambda recording, step: None,
        film_every: int = 0,
        resume: Checkpoint | None = None,
    ):
        self.trainer, self.settings, self.card = trainer, settings, card
        self.last, self.best = folder / "checkpoints" / "last.pt", folder / "checkpoints" / "best_ID.pt"
        self.test, self.logger, self.film = test, logger, film
        self.unfinished = Until(optimization_steps)
        self.time_to_test, self.time_to_film = Every(test_every, EARLY_TEST_EVERY), Every(film_every)
        self.checkpoint_every = checkpoint_every
        self.collapsed = CollapseWatch(trainer.student)
        self.elapsed, self.best_return = 0.0, -float("inf")
        self._resumed = resume is not None
        self._saved_at, self._saving_took = time.monotonic(), 0.0
        if resume is not None:
            self._load(resume)
        self.time_to_film.skip(trainer.optimization_steps)

    def run(self) -> float:
        """Train to the end; returns the seconds that training took, without tests.

        Raises:
            Stopped: a signal of `stop_requests` came; the current step was finished and everything saved.
            Diverged: a loss, gradient, reward or observation is not finite; `last.pt` is from before.
        """
        keep_freed_memory()
        with stop_requests() as requests:
            if not self._resumed:
                self.trainer.start()
                self.log({"time/elapsed_s": 0.0})
                self.save()
            while self.unfinished(self.trainer.optimization_steps):
                with self._guarded():
                    self.log(self.step())
                # The first rank says when it is time to save. A stop that any rank is asked for stops all of them.
                answers = Parallel.exchange((self._time_to_save(), requests[:1]))
                stop = [number for _, asked in answers for number in asked]
                if answers[0][0] or stop:
                    self.save()
                if stop:
                    raise Stopped(stop[0], f"update {self.trainer.optimization_steps}")
        return self.elapsed

    def step(self) -> dict[str, float]:
        """Make a step of the trainer; returns its scalars, averaged over the ranks, with times and speeds."""
        trainer = self.trainer
        started, collected, seen = time.monotonic(), trainer.samples_collected, trainer.samples_seen
        scalars = _mean(Parallel.exchange(trainer.step(self.unfinished.steps - trainer.optimization_steps)))
        check_finite(trainer.student, scalars)
        seconds = time.monotonic() - started
        if trainer.samples_collected > collected:
            scalars.setdefault("time/env_steps_per_s", (trainer.samples_collected - collected) / seconds)
        self.elapsed += seconds
        speed = (trainer.samples_seen - seen) / seconds
        return scalars | {"time/samples_per_s": speed, "time/elapsed_s": self.elapsed}

    def log(self, scalars: dict[str, float]) -> None:
        """Log a step, with a test if it is time for one."""
        trainer, recording = self.trainer, None
        updates = trainer.optimization_steps
        finished = not self.unfinished(updates)
        if self.time_to_test(updates) or finished:
            if not finished and self.time_to_film(updates):
                recording = Recording()
            scores = self.test(trainer.student, recording)
            self.card = self.card | {"scores": {"optimization_steps": updates, **scores}}
            scalars = scalars | scores
            if scores.get("test/ID/return", -float("inf")) > self.best_return:
                self.best_return = scores["test/ID/return"]
                save_student(self.best, trainer.student, self.card)
        counters = (updates, trainer.samples_collected, trainer.samples_seen)
        self.logger.log({**dict(zip(AXES, counters)), **scalars})
        if recording is not None:
            self.film(recording, updates)
        if self.collapsed(scalars):
            self.logger.warn("the policy has collapsed: its entropy is at its floor and its accuracy falls")

    def save(self) -> None:
        """Write the checkpoint, once the rows before it are on the disk."""
        started, state = time.monotonic(), self.trainer.state_dict()
        if Parallel.rank() == 0:
            Checkpoint(
                trainer=state,
                student=named_policy(self.trainer.student) | {"card": self.card},
                settings=self.settings,
                elapsed_s=self.elapsed,
                best_return=self.best_return,
                next_test=self.time_to_test.next,
                collapse=self.collapsed.state,
                **self.logger.sync(),
            ).save(self.last)
        self._saved_at = time.monotonic()
        self._saving_took = self._saved_at - started

    def _time_to_save(self) -> bool:
        interval = max(self.checkpoint_every, self._saving_took / CHECKPOINTS_SHARE)
        return time.monotonic() - self._saved_at > interval or not self.unfinished(self.trainer.optimization_steps)

    def _load(self, checkpoint: Checkpoint) -> None:
        student = self.trainer.student
        try:
            # Built once more, since older checkpoints lack arguments that have a default.
            arguments = type(student)(**checkpoint.student["arguments"]).arguments
            if unlike := differences(arguments, student.arguments):
                raise BadFile(f"{self.last}: of another student: {unlike}")
            self.trainer.load_state_dict(checkpoint.trainer)
        except BadFile:
            raise
        except Exception as error:  # a foreign state breaks anything
            raise BadFile(f"{self.last}: not a checkpoint of this run ({brief(error)})") from error
        self.elapsed, self.best_return = checkpoint.elapsed_s, checkpoint.best_return
        self.time_to_test.next, self.collapsed.state = checkpoint.next_test, checkpoint.collapse
        self.card = self.card | {"scores": checkpoint.student["card"].get("scores")}

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn numbers that are not finite, and full memory, into errors that end the run."""
        before = self.trainer.optimization_steps
        try:
            yield
        except NonFinite as error:
            where = f"updates {before} to {max(self.trainer.optimization_steps, before + 1)}"
            raise Diverged(f"{error} in {where}; {self.last} is from before, and is kept") from None
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"training does not fit into the GPU's memory ({brief(error)})") from None


def _mean(scalars: list[dict[str, float]]) -> dict[str, float]:
    """Average the ranks' scalars."""
    if len(scalars) == 1:
        return scalars[0]
    values = {key: [each[key] for each in scalars] for key in scalars[0]}
    if known := [value for value in values.get(UNKNOWN_AT_FIRST, ()) if math.isfinite(value)]:
        values[UNKNOWN_AT_FIRST] = known
    return {key: sum(each) / len(each) for key, each in values.items()}
