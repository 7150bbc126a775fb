"""Policies from files: any teacher, student, checkpoint or run, opened and compared with its task; teachers from code."""

import functools
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Algorithm.Checkpoint import Checkpoint
from Algorithm.Episodes import run_episodes
from Algorithm.seeds import DATASET_FIRST_SEED
from Algorithm.Teacher_source import function_name, load_function, teacher_source
from Common.Errors import BadFile, BadInput, brief
from Common.Files import load_tensors
from Common.Machine import PRECISIONS, resolve_precision
from Common.Settings import differences
from Enviroment.Renderer import QUALITIES
from Enviroment.Tasks import Task, find_task
from Enviroment.Utils import make_env, make_world
from Enviroment.World import World
from Models.Base_Model import CONSTANT_DEVIATION, GaussianPolicy, Observation, Policy
from Models.Distributions import Gaussian
from Models.Model_Pusher import StateStatistics, Teacher, build_policy, get_Teacher_model


def load_policy(path: Path, device: Any = "cpu") -> tuple[Any, dict[str, Any]]:
    """Load a teacher, a student, or the student in a run's checkpoint or folder; returns the policy and its card.

    Raises:
        BadFile: the file is missing, damaged, none of them, or of another version.
    """
    if path.is_dir():
        inside = ", ".join(sorted(file.name for file in path.glob("*.pt")))
        path = path / "checkpoints" / "last.pt"
        if inside and not path.is_file():
            raise BadFile(f"{path.parents[1]}: no run's folder; a policy in it is needed: {inside}")
    content = load_tensors(path, "teacher", "student", "checkpoint")
    if content["format"] == "teacher":
        method = (content.get("proof") or {}).get("algorithm", "SAC")
        return build_policy(path, content, device), {"task": content.get("task"), "method": method, "mode": "teacher"}
    if content["format"] == "checkpoint":
        content = Checkpoint.load(path).policy
    card = content.get("card")
    return build_policy(path, content, device), card if isinstance(card, dict) else {}


def open_policy(path: Path, device: Any = "cpu") -> tuple[Any, dict[str, Any], Task]:
    """Load a policy to use it on its task, in its own precision; returns the policy, its card, and the task as it sees it.

    Raises:
        BadFile: as `load_policy`, or the policy was trained to see something else than the task shows.
    """
    policy, card = load_policy(path, device)
    try:
        task = find_task(str(card.get("task")))
    except BadInput as error:
        raise BadFile(f"{path}: of an unknown task ({error})") from None
    render: Any = card.get("render")
    precision: Any = card.get("precision")
    if policy.images:
        if not isinstance(render, dict) or render.get("quality") not in QUALITIES or precision not in PRECISIONS:
            raise BadFile(f"{path}: its card does not say how it sees (render, precision)")
        try:
            task = task.seen_as(render)
        except BadInput as error:
            raise BadFile(f"{path}: {task.name} has no such cameras ({error})") from None
    check_fits(path, policy, task)
    if policy.images:
        if unlike := differences(render, task.rendering(render["quality"]) | {"stack": policy.stack.length}):
            raise BadFile(f"{path}: sees {task.name} in another way than the task shows it: {unlike}")
        policy.precision = resolve_precision(precision, policy.scale.device)
    return policy, card, task


def check_fits(path: Path, policy: GaussianPolicy, task: Task) -> None:
    """Raise `BadFile` unless a policy's inputs and actions are those of a task; `path` is for the message."""
    env: Any = make_env(task, frames=False)
    env.close()
    shown = {key: list(space.shape) for key, space in env.observation_space.items()}
    shown |= {name: [policy.stack.length, *camera.shape] for name, camera in task.seen.items()}
    found: dict[str, Any] = {key: list(shape) for key, shape in policy.input_shapes.items()}
    wanted: dict[str, Any] = {key: shown.get(key) for key in found}
    found["action"] = [list(policy.arguments[f"action_{end}"]) for end in ("low", "high")]
    wanted["action"] = [env.action_space.low.tolist(), env.action_space.high.tolist()]
    if unlike := differences(found, wanted):
        raise BadFile(f"{path}: does not fit {task.name}: {unlike}")


def proof_error(path: Path) -> float | None:
    """Compare a teacher's actions with those that its file's `proof` has of the original, on the states there.

    Returns the largest difference as a share of half the range of actions; None if the file has no proof. Raises `BadFile`
    as `load_policy` does.
    """
    content = load_tensors(path, "teacher")
    teacher, proof = build_policy(path, content), content.get("proof")
    if proof is None:
        return None
    try:
        difference = torch.from_numpy(teacher.act({"State": proof["states"]})) - proof["actions"]
    except Exception as error:  # foreign content may break anything
        raise BadFile(f"{path}: its proof is damaged ({brief(error)})") from error
    return float((difference / teacher.scale).abs().max())


def play(world: World, policy: Policy, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Run a deterministic episode for each seed; returns the returns [E] and the visited states float32 [N, S]."""
    states, returns = [], np.zeros(len(seeds))
    for step in run_episodes(world, seeds, lambda obs, _: torch.from_numpy(policy.act(obs))):
        states.append(step.obs["State"].cpu().numpy())
        returns[step.running.cpu().numpy()] += step.reward.cpu().numpy()
    return returns, np.concatenate(states)


class FunctionTeacher(GaussianPolicy):
    """A function of states as a teacher: a Gaussian around its actions, clipped to the bounds, of a constant deviation.

    Args:
        function: maps states float32 [N, S] to actions [N, A] in the environment's units, both NumPy arrays.
        label: names it in messages.
        task: its own.
    """

    def __init__(self, function: Callable[[np.ndarray], Any], label: str, task: Task):
        env: Any = make_env(task, frames=False)
        low, high = env.action_space.low.tolist(), env.action_space.high.tolist()
        super().__init__(low, high, "clipped")
        self.arguments = {"action_low": low, "action_high": high}
        self._function, self._label, self._task = function, label, task
        self._shape = env.observation_space["State"].shape
        states = [env.reset(seed=DATASET_FIRST_SEED + k)[0]["State"] for k in range(2)]
        env.close()
        self.act({"State": np.stack(states)})  # or it is refused before anything begins

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The state's."""
        return {"State": self._shape}

    @functools.cached_property
    def statistics(self) -> StateStatistics:
        """Mean and spread of the states of four of its own episodes."""
        with closing(make_world(self._task, 4, 1, frames=False)) as world:
            states = play(world, self, range(DATASET_FIRST_SEED, DATASET_FIRST_SEED + 4))[1].astype(np.float64)
        return StateStatistics(states.mean(0), states.std(0))

    @torch.no_grad()
    def distribution(self, obs: Observation) -> Gaussian:
        """Return the Gaussian around the function's actions; raises `BadInput` for anything but finite actions [N, A]."""
        states = obs["State"].cpu().numpy()
        try:
            given = self._function(states)
            actions = torch.as_tensor(given.detach() if isinstance(given, torch.Tensor) else np.asarray(given))
            actions = actions.to(self.scale)
        except Exception as error:  # it is foreign code
            raise BadInput(f"teacher {self._label}: {type(error).__name__}: {brief(error)}") from error
        wanted = (len(states), *self.scale.shape)
        if actions.shape != wanted:
            found = list(actions.shape)
            raise BadInput(
                f"teacher {self._label}: actions of shape {found} for states {list(states.shape)}, not {list(wanted)}"
            )
        if not actions.isfinite().all():
            raise BadInput(f"teacher {self._label}: an action is not finite")
        mean = (actions - self.shift) / self.scale
        return self.gaussian(mean, torch.full_like(mean, CONSTANT_DEVIATION).log())


AnyTeacher = Teacher | FunctionTeacher


def open_teacher(reference: str | Path | None, task: Task, device: Any = "cpu") -> AnyTeacher:
    """Return a teacher of a task.

    Args:
        reference: a teacher file, `Results/<task>/Teacher/teacher.pt` for None; or a function of states, in a module as
            `package.module:function`, or in a file, which is executed, as `path/to/file.py:function`.
        task: must be the one it was trained on.
        device: where it is asked; a function gets NumPy arrays everywhere.

    Raises:
        BadInput: there is no such teacher, or it does not fit the task.
    """
    source = teacher_source(reference, task)
    teacher: AnyTeacher
    if in_code := function_name(reference):
        function = load_function(*in_code)
        teacher = FunctionTeacher(function, str(reference), task).to(device).eval()
    else:
        teacher = get_Teacher_model(source, device, task.name)
    check_fits(source, teacher, task)
    return teacher
