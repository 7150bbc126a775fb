"""Looks at a task and a teacher before training; every finding names its remedy."""

import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Algorithm.Dataset import Dataset
from Algorithm.Policies import FunctionTeacher, proof_error
from Algorithm.Probe import Watched, read_states, watch
from Algorithm.seeds import DATASET_FIRST_SEED
from Algorithm.Test_model import Baseline, Evaluation, evaluate
from Algorithm.Video import draw_stacks, text_strip
from Common.Files import load_tensors
from Common.Machine import resolve_precision
from Distillation.Utils import EXPERIMENTS, DAggerExperiment, Experiment, Parts
from Enviroment.Renderer import renderers
from Enviroment.Snapshot import simulation
from Enviroment.Task import Task
from Enviroment.Utils import make_world, resumes_exactly
from Enviroment.World import World
from Models.Base_Model import GaussianPolicy
from Models.Memory import FrameStack
from Models.Model_Pusher import StateStatistics, make_student

EPISODES = range(DATASET_FIRST_SEED, DATASET_FIRST_SEED + 10)  # those on which a converted teacher was proven
NUM_ENVS, STEPS = 32, 200  # watched for the probe
READ = 0.3  # R^2 below which an entry counts as not seen
SECONDS = 3.0  # that each method is timed
MOVED = 0.01  # metres that a body moves to be looked for
SEEN = 4  # pixels of a body that is in the picture
MODE, UPDATES = "ImpaalaMid", 100_000  # for which the time is given


@dataclass
class Report:
    """The findings, in plain values: what was measured, and the problems, each with its remedy."""

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def inspect(task: Task, teacher: GaussianPolicy | None, source: Path, picture: Path) -> Report:
    """Inspect a task and perhaps its teacher, whose file is `source`, and draw the sheet of frames into `picture`."""
    report = Report()
    with closing(make_world(task, NUM_ENVS)) as world:
        inspect_environment(report, task, world)
        driver = teacher or RandomTeacher(world)
        inspect_returns(report, task, world, teacher)
        started = time.monotonic()
        watched = watch(world, driver, STEPS, DATASET_FIRST_SEED)
        rate = watched.age.numel() / (time.monotonic() - started)
        if teacher is not None:
            inspect_original(report, source)
            inspect_statistics(report, teacher, watched)
        spaces = world.spaces, world.action_space
    stack = FrameStack(task.stack, task.stack_stride)
    unseen = draw_sheet(task, driver, stack, picture)
    inspect_camera(report, task, watched, stack, unseen)
    measure_time(report, task, driver, watched, rate, spaces)
    return report


class RandomTeacher(GaussianPolicy):
    """Uniform actions, in place of a teacher that is still to be trained."""

    def __init__(self, world: World):
        super().__init__(world.action_space.low.tolist(), world.action_space.high.tolist(), "clipped")
        self._shape = world.spaces["State"].shape or ()

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The state's."""
        return {"State": self._shape}

    def distribution(self, obs: Any) -> Any:
        """Return a Gaussian of hardly any width around uniform actions."""
        mean = torch.rand(len(obs["State"]), len(self.scale)) * 2 - 1
        return self.gaussian(mean, torch.full_like(mean, -4.0))


def ranges(entries: Iterable[int]) -> str:
    """Write ascending numbers, those that follow one another as first-last."""
    runs: list[list[int]] = []
    for entry in entries:
        if runs and entry == runs[-1][-1] + 1:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def inspect_environment(report: Report, task: Task, world: World) -> None:
    """Describe the environment's spaces and limit, and whether resuming is exact."""
    exact = resumes_exactly(task)
    report.facts["environment"] = {
        "id": task.env_id,
        "max_episode_steps": world.max_episode_steps,
        "state": world.spaces["State"].shape[0],  # type: ignore[index]
        "proprioception": len(task.proprioception),
        "action_low": world.action_space.low.tolist(),
        "action_high": world.action_space.high.tolist(),
        "exact_resume": exact,
    }
    if not exact:
        report.problems.append(
            "a resumed run continues from other states than it was cut off in: the environment keeps something in Python that is "
            "no number or array among its attributes; keep it as one, or let runs finish without a break"
        )


def inspect_returns(report: Report, task: Task, world: World, teacher: GaussianPolicy | None) -> None:
    """Score the teacher, the zero action and random ones."""
    everyone: dict[str, Any] = {} if teacher is None else {"teacher": teacher}
    baselines = Baseline(world.action_space), Baseline(world.action_space, random=True)
    everyone |= {baseline.name: baseline for baseline in baselines}
    results = {name: evaluate(policy, world, task, EPISODES) for name, policy in everyone.items()}
    report.facts["episodes"] = {"number": len(EPISODES)}
    report.facts["returns"] = {name: _scores(result) for name, result in results.items()}
    report.facts["environment"]["ends_early"] = {
        name: float((result.lengths < world.max_episode_steps).mean()) for name, result in results.items()
    }
    if teacher is None:
        report.problems.append(
            f"there is no teacher yet: Train_Teacher_Pusher/Mujoco_main.py --task {task.reference} trains one, SaveWeights.py "
            "takes one over, and --teacher path/to/file.py:function names a function"
        )
        return
    best = max(result.returns.mean() for name, result in results.items() if name != "teacher")
    if not results["teacher"].returns.mean() > best:
        report.problems.append(
            f"the teacher's return of {results['teacher'].returns.mean():.1f} is no better than {best:.1f} without a teacher: "
            "it is of another task or version of the environment, its statistics are another teacher's, or it needs more training"
        )


def _scores(result: Evaluation) -> dict[str, float]:
    values = {"return": result.returns.mean(), "return_std": result.returns.std(), "length": result.lengths.mean()}
    values["success"] = result.success.mean()
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def inspect_original(report: Report, source: Path) -> None:
    """Compare a teacher with the record that its file holds of the original: its actions and its return."""
    if source.suffix == ".py":
        return
    proof, here = load_tensors(source, "teacher").get("proof"), report.facts["returns"]["teacher"]
    if proof is None:
        report.facts["original"] = {"recorded": False}
        return
    error = proof_error(source)
    report.facts["original"] = {
        "recorded": True,
        "algorithm": proof["algorithm"],
        "return": proof["original_return"],
        "return_std": proof["original_return_std"],
        "action_difference": error,
    }
    if error is None or not error < 1e-4:
        report.problems.append(
            f"the teacher's actions differ by up to {error:.2g} of half their range from its original's on recorded states: its file "
            "has another activation, normalization or weights; convert it anew by SaveWeights.py"
        )
    spread = np.hypot(proof["original_return_std"], here["return_std"]) / np.sqrt(len(EPISODES))
    if abs(here["return"] - proof["original_return"]) > 4 * spread + 1e-3 * abs(proof["original_return"]):
        report.problems.append(
            f"the teacher's return is {here['return']:.1f}, and its original's was {proof['original_return']:.1f}: the "
            "environment, its keywords or the packages' versions have changed since it was taken over"
        )


def inspect_statistics(report: Report, teacher: GaussianPolicy, watched: Watched) -> None:
    """Compare the states that the teacher visits with its statistics, and count its saturated actions."""
    bound = teacher.gaussian(watched.mean, watched.log_std).bound(watched.mean)
    saturated = float((bound.abs() > 0.99).float().mean())
    statistics: Any = teacher.statistics
    states = watched.state.flatten(0, 1).double().numpy()
    z = (states - statistics.mean) / statistics.floored_std
    odd = np.flatnonzero((np.abs(z.mean(0)) > 5) | (z.std(0) > 10)).tolist()
    report.facts["teacher"] = {"saturated": saturated, "odd_entries": odd}
    if odd:
        remedy = "its normalization is another teacher's; give SaveWeights.py the right file by --statistics"
        if isinstance(teacher, FunctionTeacher):
            remedy = "its episodes differ far more than the four that they were taken from"
        report.problems.append(
            f"the teacher's statistics do not fit the states it visits (state entries {ranges(odd)}): {remedy}"
        )
    if saturated > 0.5:
        report.problems.append(
            f"{saturated:.0%} of the teacher's actions lie at their bounds, where its policy says little about how to improve: "
            "loss_type NLL imitates them better than KL"
        )


@torch.no_grad()
def draw_sheet(task: Task, driver: GaussianPolicy, stack: FrameStack, path: Path) -> dict[str, float]:
    """Draw the stacks of eight moments of an episode.

    Returns the share of moments in which each body that moves is in no camera's picture.
    """
    from PIL import Image

    env: Any = task.make()
    eyes = renderers(task.seen)
    missing: dict[str, list[bool]] = {}
    places: dict[str, list[np.ndarray]] = {}
    frames: list[dict[str, np.ndarray]] = []
    state, _ = env.reset(seed=DATASET_FIRST_SEED)
    done = False
    while not done and len(frames) < STEPS:
        model, data = simulation(env)  # type: ignore[misc]
        frames.append({name: eye.frame(model, data).copy() for name, eye in eyes.items()})
        if len(frames) % 4 == 1:
            pixels = [eye.bodies(model, data) for eye in eyes.values()]
            for body in np.unique(model.geom_bodyid[model.geom_rgba[:, 3] > 0]).tolist():
                if model.body_weldid[body]:  # it moves
                    name = model.body(body).name or f"body {body}"
                    missing.setdefault(name, []).append(all(seen.get(body, 0) < SEEN for seen in pixels))
                    places.setdefault(name, []).append(data.xpos[body].copy())
        action = driver.act({"State": state[None].astype(np.float32)})[0]
        state, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    env.close()
    for eye in eyes.values():
        eye.close()
    rows = []
    for t in np.unique(np.linspace(0, len(frames) - 1, 8).round().astype(int)):
        steps = [frames[t - back] for back in stack.steps_back(torch.tensor(t)).tolist()]
        stacks = {name: np.stack([step[name] for step in steps]) for name in eyes}
        rows += [text_strip(f"step {t}, oldest to newest", 1024), draw_stacks(stacks, 1024)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)
    moved = [name for name, seen in places.items() if np.ptp(seen, axis=0).max() > MOVED]
    return {name: float(np.mean(missing[name])) for name in moved}


def inspect_camera(report: Report, task: Task, watched: Watched, stack: FrameStack, unseen: dict[str, float]) -> None:
    """Measure how much of the state that proprioception lacks the frames of each camera tell."""
    missing = [entry for entry in range(watched.state.shape[-1]) if entry not in task.proprioception]
    still = [name for name, frames in watched.frames.items() if not (frames.float().std((0, 1)) > 0.5).any()]
    read = {
        name: {} if name in still or not missing else read_states(watched, name, missing, stack)
        for name in watched.frames
    }
    scores = {entry: max(own[entry] for own in read.values() if own) for own in read.values() for entry in own}
    report.facts["camera"] = {
        "read": read,
        "constant": [entry for entry in missing if entry not in scores] if scores else [],
        "bodies_not_seen": {name: share for name, share in unseen.items() if share > 0.05},
    }
    for name in still:
        which = "the camera" if len(read) == 1 else f"camera {name}"
        report.problems.append(
            f"{which} is blind: its picture never changes; aim it at the robot (the camera's lookat, distance, azimuth, "
            "elevation, or follow)"
        )
    if blind := [entry for entry, score in scores.items() if score < READ]:
        worst = sorted(unseen, key=lambda name: -unseen[name])[:4]
        gone = [f"{name} in {unseen[name]:.0%} of the frames" for name in worst if unseen[name] > 0.2]
        hint = f"; out of the picture or hidden: {', '.join(gone)}" if gone else ""
        report.problems.append(
            f"the frames hardly tell state entries {ranges(blind)}{hint}: aim the camera at what they describe, come "
            "nearer, enlarge its size, lengthen stack_stride for slow speeds, or give them as proprioception"
        )


def measure_time(
    report: Report, task: Task, teacher: GaussianPolicy, watched: Watched, rate: float, spaces: tuple[Any, Any]
) -> None:
    """Estimate how long each method takes on this machine, in hours, from a few of its updates."""
    timed = {flag: kind for flag, kind in EXPERIMENTS.items() if not issubclass(kind, DAggerExperiment)}
    hours = {flag: _hours(kind, task, teacher, watched, spaces) for flag, kind in timed.items()}
    dagger = DAggerExperiment.of({}).method
    hours["BC_phase"] += UPDATES / rate / 3600  # its dataset of 100,000 samples
    hours["Dagger_phase"] = hours["BC_phase"] + UPDATES / dagger.rollout_updates * dagger.rollout_samples / rate / 3600
    report.facts["time"] = {"updates": UPDATES, "mode": MODE, "env_steps_per_s": round(rate), "hours": hours}


def _hours(
    kind: type[Experiment], task: Task, teacher: GaussianPolicy, watched: Watched, spaces: tuple[Any, Any]
) -> float:
    """Return the hours that 100,000 updates of a method take."""
    job = kind.of({"task": task.reference, "mode": MODE, "precision": resolve_precision("auto", torch.device("cpu"))})
    states = watched.state.flatten(0, 1).double().numpy()
    statistics = StateStatistics(states.mean(0), states.std(0))
    look: Any = (task.stack, job.student.grid, task.stack_stride, teacher.family)
    student = make_student(MODE, spaces[0], spaces[1], task.proprioception, statistics, *look)
    student.precision = job.student.precision
    with ExitStack() as worlds:
        folder = Path(worlds.enter_context(tempfile.TemporaryDirectory()))
        dataset = Dataset(folder, {}, watched.fields(task.proprioception))  # of cloning

        def world(num_envs: int) -> World:
            return worlds.enter_context(closing(make_world(task, num_envs)))

        trainer = job.trainer(Parts(student, teacher, world, folder, dataset))  # type: ignore[arg-type]
        trainer.start()
        return UPDATES / _updates_per_second(trainer.step, lambda: trainer.optimization_steps) / 3600


def _updates_per_second(step: Callable[[int], Any], updates: Callable[[], int]) -> float:
    step(8)  # the first updates choose kernels
    started, before = time.monotonic(), updates()
    while time.monotonic() - started < SECONDS:
        step(16)
    return (updates() - before) / (time.monotonic() - started)
