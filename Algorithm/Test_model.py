"""Evaluation of any policy on given seeds: returns, success, agreement with the teacher."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch

from Algorithm.Episodes import Arrays, play
from Enviroment.Tasks import Task
from Enviroment.Vector_env import WorkerVectorEnv
from Models.Base_Model import GaussianPolicy
from Models.Utils import FrameStacker


class Policy(Protocol):
    """Whatever acts: a student, a teacher, or one of the two below."""

    def act(self, obs: Arrays, deterministic: bool = True) -> np.ndarray:
        """Return actions float32 [N, A] for observations with a leading [N]."""
        ...


class ZeroPolicy:
    """Stands still: the zero of the normalized return."""

    inputs = ("State",)

    def __init__(self, action_space: gym.spaces.Box):
        self._size = action_space.shape[0]

    def act(self, obs: Arrays, deterministic: bool = True) -> np.ndarray:
        """Return zeros [N, A]."""
        return np.zeros((len(obs["State"]), self._size), np.float32)


class RandomPolicy:
    """Acts uniformly within the bounds."""

    inputs = ("State",)

    def __init__(self, action_space: gym.spaces.Box, seed: int = 0):
        self._low, self._high = action_space.low, action_space.high
        self._random = np.random.default_rng(seed)

    def act(self, obs: Arrays, deterministic: bool = True) -> np.ndarray:
        """Return uniform actions [N, A]."""
        return self._random.uniform(self._low, self._high, (len(obs["State"]), len(self._low))).astype(np.float32)


@dataclass(frozen=True)
class Evaluation:
    """One episode for each seed; every array has an entry for each, [E].

    Attributes:
        seeds: the environments' seeds.
        returns: undiscounted.
        success: whether the last state was a success, bool.
        final_distance: the task's distance at the last state in metres.
        action_accuracy: 1 - mean squared difference to the teacher's actions in [-1, 1]; NaN without a teacher.
        entropy: mean over the visited states in nats, estimated by sampling; NaN for a policy without one.
    """

    seeds: tuple[int, ...]
    returns: np.ndarray
    success: np.ndarray
    final_distance: np.ndarray
    action_accuracy: np.ndarray
    entropy: np.ndarray

    def __getitem__(self, part: slice) -> "Evaluation":
        """Return some of the episodes."""
        return Evaluation(*(getattr(self, field.name)[part] for field in fields(self)))


def normalized_return(policy: Evaluation, zero: Evaluation, teacher: Evaluation) -> float:
    """Return (R - R_zero) / (R_teacher - R_zero) of the mean returns, all on the same seeds."""
    assert policy.seeds == zero.seeds == teacher.seeds
    floor = zero.returns.mean()
    return float((policy.returns.mean() - floor) / (teacher.returns.mean() - floor))


@dataclass
class Recording:
    """The first round of episodes of an `evaluate`.

    Attributes:
        actions: [N, A] for each step.
        stacks: what a policy that sees was shown, uint8 [N, stack, rows, columns] for each step.
    """

    actions: list[np.ndarray] = field(default_factory=list)
    stacks: list[np.ndarray] = field(default_factory=list)


@torch.no_grad()
def evaluate(
    policy: Policy,
    env: WorkerVectorEnv,
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
        policy: the policy that is scored.
        env: any vector environment of the task; with frames if the policy sees. Its own episodes are lost.
        task: the task.
        seeds: one episode each, in as many rounds as the environments need.
        teacher: what the policy's actions are compared with on every visited state.
        driver: who acts; the policy itself unless given (the teacher, to score the policy on the teacher's states).
        deterministic: whether actions are the policy's (the driver's) mean.
        recording: filled with the first round of episodes.
    """
    cuda = [policy.scale.device] if isinstance(policy, GaussianPolicy) and policy.scale.is_cuda else []
    acting = [who for who in (policy, driver) if who is not None]
    sees = "Frame" in env.single_observation_space.spaces and any(
        "Frame" in getattr(who, "inputs", ("Frame",)) for who in acting
    )
    # An evaluation repeats itself and leaves training's random numbers alone.
    with env.rendering(sees), torch.random.fork_rng(cuda):
        torch.manual_seed(0)
        return _run_episodes(policy, env, task, tuple(seeds), teacher, driver, deterministic, sees, recording)


def _run_episodes(
    policy: Policy,
    env: WorkerVectorEnv,
    task: Task,
    seeds: tuple[int, ...],
    teacher: Policy | None,
    driver: Policy | None,
    deterministic: bool,
    sees: bool,
    recording: Recording | None,
) -> Evaluation:
    space = env.single_action_space
    half_range = (space.high - space.low) / 2
    stacker = FrameStacker(task.stack, task.stack_stride) if sees else None
    returns, distances, squares, entropies, lengths = (np.zeros(len(seeds)) for _ in range(5))
    scored = entropy = np.empty(0)

    def act(obs: Arrays) -> np.ndarray:
        nonlocal scored, entropy
        if isinstance(policy, GaussianPolicy):
            pi = policy.distribution(policy.to_tensors(obs))
            scored = pi.action(pi.mean if deterministic else pi.sample()).cpu().numpy()
            entropy = pi.entropy().cpu().numpy()
        else:
            scored = policy.act(obs, deterministic)
        action = scored if driver is None else driver.act(obs, deterministic)
        if recording is not None and start == 0:
            recording.actions.append(action)
            if sees:
                recording.stacks.append(obs["Frame"])
        return action

    for start in range(0, len(seeds), env.num_envs):
        for step in play(env, seeds[start : start + env.num_envs], stacker, act):
            rows = start + step.live
            returns[rows] += step.reward
            lengths[rows] += 1
            if len(entropy):
                entropies[rows] += entropy[step.live]
            if teacher is not None:
                squares[rows] += (((scored[step.live] - teacher.act(step.obs)) / half_range) ** 2).mean(-1)
            distances[rows[step.ended]] = task.success_distance(step.final_state[step.ended])

    unknown = np.full(len(seeds), np.nan)
    return Evaluation(
        seeds=seeds,
        returns=returns,
        success=distances < task.success_radius,
        final_distance=distances,
        action_accuracy=1 - squares / lengths if teacher is not None else unknown,
        entropy=entropies / lengths if isinstance(policy, GaussianPolicy) else unknown,
    )


class StudentTest:
    """Tests a student while it trains: in-distribution (ID) and out-of-distribution (OD) seeds, beside its teacher.

    The teacher and standing still are run once, on the same seeds, when the test is made.

    Args:
        env: vector environment, closed by the caller. What has more episodes, both sets together, takes several rounds.
        task: the task.
        teacher: the teacher.
        seeds: one sequence of seeds for each set; the keys are the sets' names.
    """

    def __init__(self, env: WorkerVectorEnv, task: Task, teacher: Policy, seeds: Mapping[str, Sequence[int]]):
        self._env, self._task, self._teacher = env, task, teacher
        self._parts: dict[str, slice] = {}
        self._seeds: list[int] = []
        for name, part in seeds.items():
            self._parts[name] = slice(len(self._seeds), len(self._seeds) + len(part))
            self._seeds += part
        self._baselines = {
            "teacher": evaluate(teacher, env, task, self._seeds),
            "zero": evaluate(ZeroPolicy(env.single_action_space), env, task, self._seeds),
        }

    def __call__(self, student: Policy, recording: Recording | None = None) -> dict[str, float]:
        """Return the metrics `test/{ID,OD}/...` of a student's deterministic policy; `recording` takes its episodes."""
        result = evaluate(student, self._env, self._task, self._seeds, teacher=self._teacher, recording=recording)
        metrics: dict[str, float] = {}
        for name, part in self._parts.items():
            episodes, teacher, zero = result[part], self._baselines["teacher"][part], self._baselines["zero"][part]
            metrics |= {
                f"test/{name}/return": float(episodes.returns.mean()),
                f"test/{name}/normalized_return": normalized_return(episodes, zero, teacher),
                f"test/{name}/success": float(episodes.success.mean()),
                f"test/{name}/action_accuracy": float(episodes.action_accuracy.mean()),
                f"test/{name}/entropy": float(episodes.entropy.mean()),
                f"test/{name}/teacher_return": float(teacher.returns.mean()),
                f"test/{name}/teacher_success": float(teacher.success.mean()),
                f"test/{name}/zero_return": float(zero.returns.mean()),
            }
        return metrics

    def report(self, student: Policy, recording: Recording | None = None) -> dict[str, dict[str, dict[str, float]]]:
        """Return the closing figures, `[set][student, teacher or zero][figure]`; `recording` takes the student's
        first round of episodes.

        Beside the accuracy on the states the student visits stands the one on those its teacher visits: the difference
        is what drifting off costs.
        """
        evaluations = {
            "student": evaluate(
                student, self._env, self._task, self._seeds, teacher=self._teacher, recording=recording
            ),
            **self._baselines,
        }
        guided = evaluate(student, self._env, self._task, self._seeds, teacher=self._teacher, driver=self._teacher)
        report: dict[str, dict[str, dict[str, float]]] = {}
        for name, part in self._parts.items():
            teacher, zero = self._baselines["teacher"][part], self._baselines["zero"][part]
            report[name] = {who: figures(e[part], zero, teacher) for who, e in evaluations.items()}
            report[name]["student"]["action_accuracy_on_teacher_states"] = float(guided[part].action_accuracy.mean())
        return report


def figures(policy: Evaluation, zero: Evaluation, teacher: Evaluation) -> dict[str, float]:
    """Summarize an evaluation in plain numbers; those it does not have are left out."""
    values = {
        "episodes": len(policy.seeds),
        "return": float(policy.returns.mean()),
        "return_std": float(policy.returns.std()),
        "normalized_return": normalized_return(policy, zero, teacher),
        "success": float(policy.success.mean()),
        "final_distance": float(policy.final_distance.mean()),
        "action_accuracy": float(policy.action_accuracy.mean()),
        "entropy": float(policy.entropy.mean()),
    }
    return {key: value for key, value in values.items() if not np.isnan(value)}


def table(report: dict[str, dict[str, float]]) -> str:
    """Lay out `[who][figure]` as a small table for the terminal: return with its standard deviation over episodes,
    success, mean distance at the end, accuracy of actions."""
    lines = [f"{'':<9}{'return':>16}{'normalized':>12}{'success':>9}{'distance':>11}{'accuracy':>10}"]
    for who, row in report.items():
        accuracy = f"{row['action_accuracy']:10.4f}" if "action_accuracy" in row else ""
        lines.append(
            f"{who:<9}{row['return']:>8.2f} ± {row['return_std']:<5.2f}{row['normalized_return']:>12.3f}{row['success']:>9.2f}"
            f"{row['final_distance']:>9.3f} m{accuracy}"
        )
    return "\n".join(lines)


def parse_seeds(text: str) -> Sequence[int]:
    """Read `1900-1999` (both included) or `1900,1907`.

    Raises:
        ValueError: it is neither.
    """
    try:
        seeds: list[int] = []
        for part in text.split(","):
            first, dash, last = part.partition("-")
            episodes = range(int(first), int(last if dash else first) + 1)
            if not episodes:
                raise ValueError
            seeds += episodes
    except ValueError:
        raise ValueError(f"seeds {text!r}: give them as 1900-1999 or 1900,1907") from None
    return seeds
