"""Evaluation of any policy on given seeds: returns, success, agreement with the teacher."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from Algorithm.Episodes import EpisodeStep, run_episodes
from Common.Errors import BadSetting
from Enviroment.Tasks import Task
from Enviroment.World import World
from Models.Base_Model import GaussianPolicy, Policy
from Models.Memory import Memory, NoMemory, Observation

MOST_SEEDS = 100_000  # of a command line


class Baseline:
    """The policy whose return is the zero of the normalized return: zeros, or random actions where zeros are out of bounds."""

    inputs: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    def __init__(self, action_space: gym.spaces.Box, random: bool | None = None):
        """Make the one whose actions are `random` or zeros; unless that is given, the bounds decide."""
        self._low, self._high = torch.from_numpy(action_space.low), torch.from_numpy(action_space.high)
        self.random = bool((self._low > 0).any() or (self._high < 0).any()) if random is None else random

    @property
    def name(self) -> str:
        """`zero` or `random`."""
        return "random" if self.random else "zero"

    def memory(self, num_envs: int) -> Memory:
        """Return no memory."""
        return NoMemory()

    def act(self, obs: Mapping[str, Any], deterministic: bool = True) -> np.ndarray:
        """Return zeros, or uniform actions of PyTorch's generator, float32 [N, A]."""
        shape = len(next(iter(obs.values()))), len(self._low)
        drawn = torch.rand(shape) if self.random else torch.zeros(shape)
        return (self._low + (self._high - self._low) * drawn if self.random else drawn).float().numpy()


@dataclass(frozen=True)
class Evaluation:
    """One episode for each seed; every array has an entry for each, [E].

    Attributes:
        returns: undiscounted.
        lengths: in steps.
        success: whether the last state is a success, 0 or 1; NaN where the task knows none.
        action_accuracy: 1 - mean squared difference to the teacher's actions in [-1, 1]; NaN without a teacher.
        entropy: mean over the visited states in nats, estimated by sampling; NaN for a policy without one.
        measures: the task's measures of the last state by name, [E] each.
    """

    seeds: tuple[int, ...]
    returns: np.ndarray
    lengths: np.ndarray
    success: np.ndarray
    action_accuracy: np.ndarray
    entropy: np.ndarray
    measures: dict[str, np.ndarray]

    def __getitem__(self, part: slice) -> "Evaluation":
        """Return some of the episodes."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        measures = {name: values[part] for name, values in own.pop("measures").items()}
        return Evaluation(**{name: values[part] for name, values in own.items()}, measures=measures)


def normalized_return(policy: Evaluation, zero: Evaluation, teacher: Evaluation) -> float:
    """Return (R - R_zero) / (R_teacher - R_zero) of the mean returns, all on the same seeds; NaN where that is 0 / 0."""
    assert policy.seeds == zero.seeds == teacher.seeds
    floor, top = zero.returns.mean(), teacher.returns.mean()
    return float((policy.returns.mean() - floor) / (top - floor)) if top != floor else float("nan")


@dataclass
class Recording:
    """The steps of an `evaluate`, of which the first N episodes begin with the first, one in each environment: actions
    [N, A], and by image the stacks uint8 [N, stack, ...] if the policy sees."""

    actions: list[np.ndarray] = field(default_factory=list)
    stacks: list[dict[str, np.ndarray]] = field(default_factory=list)


@torch.no_grad()
def evaluate(
    policy: Policy,
    world: World,
    task: Task,
    seeds: Iterable[int],
    *,
    teacher: Policy | None = None,
    driver: Policy | None = None,
    deterministic: bool = True,
    recording: Recording | None = None,
) -> Evaluation:
    """Run one episode for each seed and score `policy` on it.

    Args:
        world: environments of the task, with frames if the policy sees; their own episodes are lost.
        task: measures success.
        seeds: one episode each, in any number.
        teacher: its actions are compared with the policy's on every visited state.
        driver: acts in the policy's place, such as the teacher, to score the policy on the teacher's states.
        deterministic: whether the acting policy takes its mean actions.
        recording: is filled with the steps of the first episodes, one for each environment.
    """
    cuda = [policy.scale.device] if isinstance(policy, GaussianPolicy) and policy.scale.is_cuda else []
    sees = bool(policy.images or (driver and driver.images))
    scores = _Scores(tuple(seeds), world, task, teacher)
    # An evaluation repeats itself and leaves training's random numbers alone.
    with world.rendering(sees), torch.random.fork_rng(cuda):
        torch.manual_seed(0)
        scores.run(policy, driver, deterministic, recording)
    return scores.result(entropy=isinstance(policy, GaussianPolicy))


class _Scores:
    """The sums over the steps of an evaluation's episodes, [E] each."""

    def __init__(self, seeds: tuple[int, ...], world: World, task: Task, teacher: Policy | None):
        self.seeds, self._world, self._task, self._teacher = seeds, world, task, teacher
        self._half_range = (world.action_space.high - world.action_space.low) / 2
        self._returns, self._squares, self._entropies, self._lengths = np.zeros((4, len(seeds)))
        self._measured: dict[str, np.ndarray] = {}
        self._scored = self._entropy = np.empty(0)  # of the latest step: the policy's actions [N, A], and entropy [N]

    def run(self, policy: Policy, driver: Policy | None, deterministic: bool, recording: Recording | None) -> None:
        """Run the episodes."""
        recorded = min(self._world.num_envs, len(self.seeds))  # episodes that are still recorded
        memories = {who: who.memory(self._world.num_envs) for who in (policy, driver) if who is not None}

        def act(obs: Observation, first: torch.Tensor) -> torch.Tensor:
            given = memories[policy].see(obs, first)
            if isinstance(policy, GaussianPolicy):
                pi = policy.distribution(policy.to_tensors(given))
                self._scored = pi.action(pi.mean if deterministic else pi.sample()).cpu().numpy()
                self._entropy = pi.entropy().cpu().numpy()
            else:
                self._scored = policy.act(given, deterministic)
            action = self._scored if driver is None else driver.act(memories[driver].see(obs, first), deterministic)
            if recording is not None and recorded:
                recording.actions.append(action)
                if policy.images:
                    recording.stacks.append({image: given[image].cpu().numpy() for image in policy.images})
            return torch.from_numpy(action)

        for step in run_episodes(self._world, self.seeds, act):
            self._add(step)
            recorded -= int((step.ended & (step.running < self._world.num_envs)).sum())

    def _add(self, step: EpisodeStep) -> None:
        rows, environments, ended = (x.cpu().numpy() for x in (step.running, step.environments, step.ended))
        self._returns[rows] += step.reward.cpu().numpy()
        self._lengths[rows] += 1
        if len(self._entropy):
            self._entropies[rows] += self._entropy[environments]
        if self._teacher is not None:
            wanted = self._teacher.act(step.obs)
            self._squares[rows] += (((self._scored[environments] - wanted) / self._half_range) ** 2).mean(-1)
        if ended.any():
            info = {key: value.cpu().numpy() for key, value in step.info.items()}
            for name, value in self._task.measured(step.last_obs["State"].double().cpu().numpy(), info).items():
                self._measured.setdefault(name, np.full(len(self.seeds), np.nan))[rows[ended]] = value

    def result(self, entropy: bool) -> Evaluation:
        """Return the evaluation, of a policy with or without entropy."""
        unknown = np.full(len(self.seeds), np.nan)
        return Evaluation(
            seeds=self.seeds,
            returns=self._returns,
            lengths=self._lengths,
            success=self._measured.pop("success", unknown),
            action_accuracy=1 - self._squares / self._lengths if self._teacher is not None else unknown,
            entropy=self._entropies / self._lengths if entropy else unknown,
            measures=self._measured,
        )


class StudentTest:
    """Tests a student while it trains: in-distribution (ID) and out-of-distribution (OD) seeds, beside its teacher.

    The teacher and the baseline are run once, on the same seeds, when the test is made.

    Args:
        world: environments, which the caller closes.
        task: measures success.
        teacher: the student's actions are compared with its actions.
        seeds: one sequence of seeds for each set, by the set's name.
    """

    def __init__(self, world: World, task: Task, teacher: Policy, seeds: Mapping[str, Sequence[int]]):
        self._world, self._task, self._driver = world, task, teacher
        self._parts: dict[str, slice] = {}
        self._seeds: list[int] = []
        for name, part in seeds.items():
            self._parts[name] = slice(len(self._seeds), len(self._seeds) + len(part))
            self._seeds += part
        self._teacher = evaluate(teacher, world, task, self._seeds)
        self._zero = evaluate(Baseline(world.action_space), world, task, self._seeds)

    def _evaluate(self, student: Policy, **options: Any) -> Evaluation:
        return evaluate(student, self._world, self._task, self._seeds, teacher=self._driver, **options)

    def _figures(self, student: Evaluation) -> dict[str, dict[str, dict[str, float]]]:
        """Return `[set][student, teacher or zero][figure]`."""
        everyone = {"student": student, "teacher": self._teacher, "zero": self._zero}
        return {
            name: {who: figures(e[part], self._zero[part], self._teacher[part]) for who, e in everyone.items()}
            for name, part in self._parts.items()
        }

    def __call__(self, student: Policy, recording: Recording | None = None) -> dict[str, float]:
        """Return the metrics `test/{ID,OD}/...` that a student's deterministic policy has; `recording` takes its episodes."""
        metrics = {}
        for name, found in self._figures(self._evaluate(student, recording=recording)).items():
            wanted = [
                ("student", figure)
                for figure in ("return", "normalized_return", "success", "action_accuracy", "entropy")
            ]
            for who, figure in (*wanted, ("teacher", "return"), ("teacher", "success"), ("zero", "return")):
                if figure in found[who]:
                    own = "" if who == "student" else f"{who}_"
                    metrics[f"test/{name}/{own}{figure}"] = found[who][figure]
        return metrics

    def report(self, student: Policy, recording: Recording | None = None) -> dict[str, dict[str, dict[str, float]]]:
        """Return the closing figures, `[set][student, teacher or zero][figure]`.

        The student's accuracy is measured on the states that it visits, and on those that its teacher visits.
        `recording` takes the first round of the student's episodes.
        """
        report = self._figures(self._evaluate(student, recording=recording))
        guided = self._evaluate(student, driver=self._driver)
        for name, part in self._parts.items():
            accuracy = float(guided[part].action_accuracy.mean())
            report[name]["student"]["action_accuracy_on_teacher_states"] = accuracy
        return report


def figures(policy: Evaluation, zero: Evaluation, teacher: Evaluation | None) -> dict[str, float]:
    """Summarize an evaluation in plain numbers; those it does not have are left out."""
    values = {
        "episodes": len(policy.seeds),
        "return": float(policy.returns.mean()),
        "return_std": float(policy.returns.std()),
        "length": float(policy.lengths.mean()),
        "normalized_return": np.nan if teacher is None else normalized_return(policy, zero, teacher),
        "success": float(policy.success.mean()),
        **{f"final_{name}": float(values.mean()) for name, values in policy.measures.items()},
        "action_accuracy": float(policy.action_accuracy.mean()),
        "entropy": float(policy.entropy.mean()),
    }
    return {key: value for key, value in values.items() if np.isfinite(value)}


def table(report: dict[str, dict[str, float]], task: Task) -> str:
    """Lay out `[who][figure]` as a table for the terminal."""
    columns = {"normalized": ("normalized_return", 12, ".3f", ""), "success": ("success", 9, ".2f", "")}
    for name, measure in task.measures.items():
        columns[name] = (f"final_{name}", 10 + len(measure.unit), ".3f", measure.unit)
    columns["accuracy"] = ("action_accuracy", 10, ".4f", "")
    columns["length"] = ("length", 8, ".0f", "")
    used = {name: column for name, column in columns.items() if any(column[0] in row for row in report.values())}
    if len({row.get("length") for row in report.values()}) == 1:  # nobody's episodes end early, or an older file
        used.pop("length", None)
    wide = max(5, *(len(f"{row['return_std']:.2f}") for row in report.values()))
    lines = [f"{'':<9}{'return':>{11 + wide}}" + "".join(f"{name:>{width}}" for name, (_, width, _, _) in used.items())]
    for who, row in report.items():
        line = f"{who:<9}{row['return']:>8.2f} ± {row['return_std']:<{wide}.2f}"
        for key, width, form, unit in used.values():
            shown = f"{row[key]:{form}} {unit}".rstrip() if key in row else ""
            line += f"{shown:>{width}}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def parse_seeds(text: str) -> Sequence[int]:
    """Read `1900-1999` (both included) or `1900,1907`; raises `BadSetting` for anything else, and for too many."""
    try:
        parts = [part.partition("-") for part in text.split(",")]
        ends = [(int(first), int(last if dash else first)) for first, dash, last in parts]
        if not all(0 <= first <= last < 2**32 for first, last in ends):
            raise ValueError
    except ValueError:
        raise BadSetting(
            f"seeds {text[:100]!r}: a range like 1900-1999 or a list like 1900,1907 is needed, of numbers below 2^32"
        ) from None
    if (number := sum(last - first + 1 for first, last in ends)) > MOST_SEEDS:
        raise BadSetting(f"seeds {text[:100]}: {number:,} episodes, where at most {MOST_SEEDS:,} are possible")
    return [seed for first, last in ends for seed in range(first, last + 1)]
