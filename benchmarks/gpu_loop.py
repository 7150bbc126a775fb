"""What a second of PPD on Pusher costs where MuJoCo Warp simulates and renders, and how well a student does after a minute.

    python benchmarks/gpu_loop.py --minutes 8     # on a GPU; no new measurement begins that would end later
    python benchmarks/gpu_loop.py --smoke         # a few worlds on Warp's CPU device: under two minutes

In the order of their importance:

- `loop`: environment steps and samples a second of whole steps of PPD, and how their time is shared by the policy (forward passes and
  noise), physics (with rewards and restarts), rendering, storing (frames, stacks), targets (teacher, advantages) and updates. The shares
  are of other steps, in which every part waits for the GPU.
- `render`: frames a second of the renderer alone, and steps a second of the physics alone, by the number of worlds.
- `learning`: a student for each seed, trained for `--seconds` of wall clock from its first rollout on, recordings of CUDA graphs
  included, under `--views`, since the two renderers' pictures differ a little, and scored on 100 OD seeds in Gymnasium with MuJoCo's own renderer, and in Warp.
- `updates`: samples a second through updates alone, by the size of minibatches.
- `workers`: the loop with the default settings in worker processes.

The file `--output` is written anew after every measurement.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import common  # noqa: F401, isort: skip  # this repository, and how threads wait, before PyTorch is loaded
import torch
from common import Profile, machine, untrained_student

from Algorithm.PPO import PPO
from Algorithm.Rollout import Rollout
from Algorithm.seeds import OD_TEST_SEEDS
from Algorithm.Test_model import StudentTest
from Common.Files import write_json
from Common.Machine import keep_freed_memory, resolve_device
from Distillation.Utils import Parts, PPDExperiment
from Enviroment.GL import choose_gl_backend
from Enviroment.Tasks import TASKS, Task
from Enviroment.Utils import make_world
from Enviroment.Views import VIEWS
from Enviroment.Warp_world import WarpWorld
from Enviroment.World import World
from Models.Model_Pusher import get_Teacher_model

TASK = TASKS["Pusher"]
STORING = ("write_observation", "observation", "final_observation", "carry_over")
PARTS: list[tuple[Any, str, str]] = [
    (PPO, "collect_rollout", "policy"),
    (WarpWorld, "step", "physics"),
    (WarpWorld, "_draw", "render"),
    *((Rollout, name, "store") for name in STORING),
    (PPO, "compute_targets", "targets"),
    (Rollout, "ask", "targets"),
    (PPO, "learn", "updates"),
]
FIGURES = ("return", "normalized_return", "success", "teacher_return")


def wait() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], least: float, calls: int = 1) -> float:
    """Return the seconds of a call, over as many as `least` seconds take, after `calls` of them that record graphs."""
    for _ in range(calls):
        call()
    wait()
    started, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - started < least:
        call()
        wait()
        count += 1
    return (time.perf_counter() - started) / count


class Bench:
    """The measurements; `open_things` closes their worlds."""

    def __init__(self, arguments: argparse.Namespace, open_things: ExitStack):
        self.arguments, self._open_things = arguments, open_things
        self.device = resolve_device(arguments.device)
        self.teacher = get_Teacher_model(device=self.device)
        names = ("mode", "num_envs", "rollout_steps", "minibatch_size", "epochs", "learning_rate")
        places = {"device": str(self.device), "views": arguments.views, "backend": "warp"}
        self.job = PPDExperiment.of({name: getattr(arguments, name) for name in names} | places)
        self.task = replace(TASK, views=VIEWS[arguments.views])
        self.least = 0.5 if arguments.smoke else 3.0
        self.training_world = self.world(self.task, self.job.method.num_envs)
        self.rate = 0.0  # updates a second

    def world(self, task: Task, num_envs: int, backend: str = "warp") -> World:
        """Make a world with frames, which is closed at the end."""
        world = make_world(task, num_envs, backend=backend, device=self.device)
        self._open_things.callback(world.close)
        return world

    def trainer(self, job: PPDExperiment, world: World) -> Any:
        """Return a trainer of an untrained student that has begun its first episodes."""
        torch.manual_seed(job.seed())
        student = untrained_student(self.task, job.student.mode, self.device)
        trainer = job.trainer(Parts(student, self.teacher, lambda _: world, Path()))
        trainer.start()
        return trainer

    def loop(self) -> dict[str, Any]:
        """Measure whole steps of PPD in Warp."""
        trainer = self.trainer(self.job, self.training_world)
        seconds, found = self._rates(trainer)
        with closing(Profile(PARTS, wait)) as profile:
            count, started = max(1, round(self.least / 2 / seconds)), time.perf_counter()
            for _ in range(count):
                trainer.step(10**9)
            wait()
            timed = (time.perf_counter() - started) / count
        shares = {part: value / count for part, value in profile.seconds.items()}
        shares["other"] = timed - sum(shares.values())
        self.rate = found["updates_per_s"]
        return found | {
            "seconds_of_a_step": round(seconds, 4),
            "seconds_of_a_step_that_waits": round(timed, 4),
            "of_that": {part: round(value, 5) for part, value in shares.items()},
        }

    def _rates(self, trainer: Any) -> tuple[float, dict[str, Any]]:
        """Return the seconds of a step of a trainer, and what it does in a second."""
        seconds = seconds_of(lambda: trainer.step(10**9), self.least, 2)
        before = trainer.optimization_steps, trainer.samples_collected, trainer.samples_seen
        trainer.step(10**9)
        after = trainer.optimization_steps, trainer.samples_collected, trainer.samples_seen
        names = ("updates_per_s", "env_steps_per_s", "samples_per_s")
        return seconds, {name: round((b - a) / seconds, 2) for name, a, b in zip(names, before, after)}

    def render(self) -> Iterator[dict[str, Any]]:
        """Measure the renderer alone and the physics alone; yields what is known after each number of worlds."""
        rows: list[dict[str, Any]] = []
        for n in self.arguments.worlds:
            with closing(WarpWorld(TASK, n, True, self.device)) as world:
                world.reset(range(n))
                actions = torch.zeros(n, *world.action_space.shape, device=self.device)
                draw = seconds_of(world._draw, self.least / 2, 3)
                with world.rendering(False):
                    step = seconds_of(functools.partial(world.step, actions), self.least / 2, 3)
            rows.append({"worlds": n, "frames_per_s": round(n / draw), "steps_without_frames_per_s": round(n / step)})
            yield {"by_worlds": rows}

    def learning(self) -> Iterator[dict[str, Any]]:
        """Train a student for each seed; yields their scores after each."""
        arguments = self.arguments
        seeds = range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + arguments.episodes)
        tests = {
            place: StudentTest(self.world(TASK, envs, backend), TASK, self.teacher, {"OD": seeds})
            for place, envs, backend in (("gymnasium", min(20, len(seeds)), "workers"), ("warp", len(seeds), "warp"))
        }
        updates = max(1, int(0.95 * arguments.seconds * self.rate))
        runs: list[dict[str, Any]] = []
        for run_index in range(arguments.runs):
            job = self.job.replace(run_index=run_index, optimization_steps=updates)
            trainer = self.trainer(job, self.training_world)
            wait()
            started = time.perf_counter()
            while trainer.optimization_steps < updates and time.perf_counter() - started < arguments.seconds:
                trainer.step(updates - trainer.optimization_steps)
                wait()
            run: dict[str, Any] = {
                "run_index": run_index,
                "seconds": round(time.perf_counter() - started, 2),
                "updates": trainer.optimization_steps,
                "env_steps": trainer.samples_collected,
            }
            for place, test in tests.items():
                scores = test(trainer.student)
                run[place] = {name: round(scores[f"test/OD/{name}"], 4) for name in FIGURES}
            runs.append(run)
            yield {"planned_updates": updates, "runs": runs} | {place: self.spread(runs, place) for place in tests}

    def spread(self, runs: list[dict[str, Any]], place: str) -> dict[str, Any]:
        """Return mean, standard deviation and extremes over the seeds of the normalized return, and the mean success."""
        scores = [run[place]["normalized_return"] for run in runs]
        return {
            "normalized_return": round(statistics.mean(scores), 4),
            "std": round(statistics.stdev(scores), 4) if len(scores) > 1 else None,
            "min": min(scores),
            "max": max(scores),
            "success": round(statistics.mean(run[place]["success"] for run in runs), 4),
        }

    def updates(self) -> Iterator[dict[str, Any]]:
        """Measure updates alone; yields what is known after each size of minibatches."""
        rows: list[dict[str, Any]] = []
        for size in self.arguments.minibatches:
            trainer = self.trainer(self.job.replace(minibatch_size=size), self.training_world)
            trainer.collect_rollout()
            trainer.compute_targets()
            samples = trainer.rollout.steps * trainer.world.num_envs
            indices = torch.randint(samples, (size,), device=self.device)
            seconds = seconds_of(functools.partial(trainer.learner.update, indices=indices), self.least / 2, 3)
            rows.append({"minibatch_size": size, "ms": round(1e3 * seconds, 2), "samples_per_s": round(size / seconds)})
            yield {"by_size": rows}

    def workers(self) -> dict[str, Any]:
        """Measure whole steps of PPD in worker processes, with the default settings."""
        job = PPDExperiment.of({"mode": self.arguments.mode, "device": str(self.device)})
        return self._rates(self.trainer(job, self.world(TASK, job.method.num_envs, "workers")))[1]


def measure(bench: Bench, begun: float, result: dict[str, Any]) -> None:
    """Make all measurements for which there is time; `begun` is when the first of the minutes began."""
    arguments = bench.arguments
    needs = {"loop": 0.0, "render": 15.0, "learning": arguments.seconds + 15.0, "updates": 10.0, "workers": 20.0}

    def left() -> float:
        return 60 * arguments.minutes - (time.monotonic() - begun)

    def keep(name: str, found: dict[str, Any]) -> None:
        result[name] = found
        result["seconds"] = round(time.monotonic() - begun, 1)
        write_json(arguments.output, result)
        print(f"{name}: written to {arguments.output}", file=sys.stderr, flush=True)

    for name, need in needs.items():
        if left() < need:
            keep(name, {"left_out": "no time was left"})
            continue
        found = getattr(bench, name)()
        if isinstance(found, dict):
            keep(name, found)
            continue
        for known in found:
            keep(name, known)
            if left() < need:
                break


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--output", type=Path, default=Path("gpu_loop.json"))
    parser.add_argument("--mode", default="ImpaalaSmall")
    parser.add_argument("--views", default="small", choices=VIEWS)
    parser.add_argument("--num_envs", type=int, default=2048)
    parser.add_argument("--rollout_steps", type=int, default=16)
    parser.add_argument("--minibatch_size", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, for each seed")
    parser.add_argument("--runs", type=int, default=5, help="seeds")
    parser.add_argument("--episodes", type=int, default=100, help="of each score")
    parser.add_argument("--worlds", type=int, nargs="+", default=[256, 1024, 4096, 8192])
    parser.add_argument("--minibatches", type=int, nargs="+", default=[72, 256, 1024, 4096])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes in place of all of these")
    arguments = parser.parse_args()
    if arguments.smoke:
        tiny = {"num_envs": 4, "rollout_steps": 4, "minibatch_size": 8, "seconds": 1.0, "runs": 2, "episodes": 1}
        vars(arguments).update(tiny, minutes=2.0, worlds=[2, 4], minibatches=[8])
    return arguments


def main() -> None:
    """Command line."""
    begun, arguments = time.monotonic(), parse()
    choose_gl_backend()
    keep_freed_memory()
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    with ExitStack() as open_things:
        result = {"settings": settings, "machine": machine()}
        measure(Bench(arguments, open_things), begun, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
