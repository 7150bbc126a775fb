"""The students (`State`, `ImpaalaSmall`, `ImpaalaMid`, `ImpaalaBig`) and the teacher, and the doors to load them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from Common.Errors import BadFile, brief
from Common.Files import RESULTS, load_tensors, save_tensors
from Models.Base_Model import POLICIES, ActorCritic, GaussianPolicy, Observation, plain_arguments
from Models.Distributions import Gaussian
from Models.Memory import is_image

FILTERS: dict[str, tuple[int, ...]] = {
    "State": (),
    "ImpaalaSmall": (16, 32),
    "ImpaalaMid": (16, 32, 32),
    "ImpaalaBig": (32, 64, 64),
}
SHIPPED_TEACHER = RESULTS / "Pusher" / "Teacher" / "teacher.pt"


@dataclass(frozen=True)
class StateStatistics:
    """Mean and standard deviation of every entry of the state, float64 [S], over the teacher's training."""

    mean: np.ndarray
    std: np.ndarray

    @property
    def floored_std(self) -> np.ndarray:
        """The standard deviation, but 1 for constant entries, which would be blown up otherwise."""
        return np.where(self.std < 1e-3, 1.0, self.std)


class Teacher(GaussianPolicy):
    """The actor of a Stable-Baselines3 teacher on normalized states.

    Args:
        mean, variance: by which the state is normalized, one number for each entry.
        epsilon: added to the variance before the square root (SB3's `VecNormalize`).
        clip: normalized states are clipped to [-clip, clip]; one number, or one for each entry.
        hidden: widths of the layers.
        action_low, action_high: bounds of the actions.
        activation: of the layers, the name of a class in `torch.nn`.
        family: of its distribution, one of `FAMILIES`.
        deviation: `state` where log_std is a linear function of the last layer, `constant` where it is the same everywhere,
            `latent` where the last layer scales the noise (gSDE, Raffin et al. 2021, https://arxiv.org/abs/2005.05719).
        mean_clip: the mean is clipped to [-mean_clip, mean_clip].
        state_mean, state_variance: of the states it visits, by which students standardize theirs; `mean` and `variance`
            unless given.
    """

    mean: torch.Tensor
    std: torch.Tensor
    clip: torch.Tensor

    def __init__(
        self,
        *,
        mean: Sequence[float],
        variance: Sequence[float],
        epsilon: float,
        clip: float | Sequence[float],
        hidden: Sequence[int],
        action_low: Sequence[float],
        action_high: Sequence[float],
        activation: str = "ReLU",
        family: str = "squashed",
        deviation: str = "state",
        mean_clip: float = float("inf"),
        state_mean: Sequence[float] | None = None,
        state_variance: Sequence[float] | None = None,
    ):
        super().__init__(action_low, action_high, family)
        self.arguments = plain_arguments(locals())
        # Double precision, as SB3 normalizes: an entry that hardly moves is divided by next to nothing.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64), persistent=False)
        self.register_buffer("std", (torch.tensor(variance, dtype=torch.float64) + epsilon).sqrt(), persistent=False)
        self.register_buffer("clip", torch.tensor(clip, dtype=torch.float64), persistent=False)
        self.mean_clip = mean_clip
        widths, actions = (len(mean), *hidden), len(action_low)
        layers: list[nn.Module] = []
        for previous, width in zip(widths, hidden):
            layers += [nn.Linear(previous, width), getattr(nn, activation)()]
        self.trunk = nn.Sequential(*layers)
        self.mu = nn.Linear(widths[-1], actions)
        self.log_std: Any = None
        if deviation == "state":
            self.log_std = nn.Linear(widths[-1], actions)
        elif deviation == "constant":
            self.log_std = nn.Parameter(torch.zeros(actions))
        else:
            self.noise = nn.Parameter(torch.zeros(widths[-1], actions))  # variances
            self.floor = nn.Parameter(torch.zeros(actions))  # of the variance

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The state's."""
        return {"State": tuple(self.mean.shape)}

    @property
    def statistics(self) -> StateStatistics:
        """Mean and spread of the states it was trained on, or of those it visits."""
        kept = self.arguments
        mean, variance = kept["state_mean"] or kept["mean"], kept["state_variance"] or kept["variance"]
        return StateStatistics(np.array(mean), np.sqrt(np.array(variance)))

    def keep_statistics(self, states: np.ndarray) -> None:
        """Take the statistics from visited states [N, S], for a teacher that does not normalize them itself."""
        states = states.astype(np.float64)
        self.arguments["state_mean"] = states.mean(0).tolist()
        self.arguments["state_variance"] = states.var(0).tolist()

    def _log_std(self, hidden: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Return log_std [B, A], of its own memory, from the last layer [B, hidden]."""
        if isinstance(self.log_std, nn.Linear):
            return self.log_std(hidden).clamp(-20, 2)
        if self.log_std is not None:
            return self.log_std.expand_as(mean).clone()
        return 0.5 * (hidden.square() @ self.noise + self.floor).log()

    @torch.no_grad()
    def distribution(self, obs: Observation) -> Gaussian:
        """Return the teacher's policy; no gradient ever flows into it."""
        state = ((obs["State"].double() - self.mean) / self.std).clamp(-self.clip, self.clip).float()
        hidden = self.trunk(state)
        mean = self.mu(hidden)
        if self.mean_clip < float("inf"):
            mean = mean.clamp(-self.mean_clip, self.mean_clip)
        return self.gaussian(mean, self._log_std(hidden, mean))

    def save(
        self, path: Path | str, task: str, task_name: str | None = None, proof: dict[str, Any] | None = None
    ) -> None:
        """Write the teacher of a task as plain tensors; `task` is its reference, and its name unless that is given.

        `proof` has some of its states, the original's actions there, and how both scored.
        """
        about = {"weights": self.state_dict(), "task": task, "task_name": task_name or task}
        save_tensors(path, "teacher", named_policy(self) | about | ({"proof": proof} if proof else {}))


def named_policy(policy: GaussianPolicy) -> dict[str, Any]:
    """Return the entries of a file, beside the weights, from which `build_policy` builds the policy again."""
    return {"policy": type(policy).__name__, "arguments": policy.arguments}


OLDER = {"teacher": "Teacher", "student": "ActorCritic"}  # the policies of files that do not name theirs


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a policy's file in today's form: an older student has one camera, in arguments of its own."""
    arguments = dict(content["arguments"])
    if "frame_shape" not in arguments:
        return content
    shape, image = arguments.pop("frame_shape"), arguments.pop("image", "Frame")
    arguments["cameras"] = {} if shape is None else {image: shape}
    weights = {
        f"encoders.0.{name}" if name.startswith(("backbone.", "background")) else name: weight
        for name, weight in content["weights"].items()
    }
    return content | {"arguments": arguments, "weights": weights}


def build_policy(path: Path | str, content: dict[str, Any], device: str | torch.device = "cpu") -> Any:
    """Build the policy of a file's `content`; raises `BadFile`, with its `path`, if that is not complete."""
    kind = content["format"]
    try:
        content = upgrade(content)
        policy = POLICIES[content.get("policy", OLDER[kind])](**content["arguments"])
        policy.load_state_dict(content["weights"])
    except Exception as error:  # foreign content may break anything
        raise BadFile(f"{path}: not a complete {kind} file ({brief(error)})") from error
    values = (*policy.named_parameters(), *policy.named_buffers())
    odd = [name for name, value in values if not value.isfinite().all() and name != "clip"]  # it may be infinite
    if odd:
        raise BadFile(f"{path}: {odd[0]} is not finite")
    return policy.to(device).eval()


def get_Teacher_model(
    path: Path | str | None = None, device: str | torch.device = "cpu", task: str | None = None
) -> Teacher:
    """Load a teacher; without a path the one of `task` in `Results/<task>/Teacher`, by default the shipped one.

    Raises `BadFile` if the file is missing, damaged, not a teacher, or of another task than `task`.
    """
    path = path or (RESULTS / task / "Teacher" / "teacher.pt" if task else SHIPPED_TEACHER)
    content = load_tensors(path, "teacher")
    teacher = build_policy(path, content, device)
    trained_on = content.get("task_name", content.get("task"))
    if task is not None and trained_on != task:
        raise BadFile(f"{path}: a teacher of {trained_on} where one of {task} is needed")
    return teacher.requires_grad_(False)


def make_student(
    mode: str,
    observation_space: gym.spaces.Dict,
    action_space: gym.spaces.Box,
    proprioception: Sequence[int] | None,
    statistics: StateStatistics,
    stack: int,
    grid: Sequence[int] = (4, 8),
    stride: int = 2,
    family: str = "squashed",
    background: bool = True,
    predicts: bool = False,
    critic: str = "same",
    memory: str = "none",
) -> ActorCritic:
    """Build an untrained student from spaces.

    Args:
        mode: one of `FILTERS`.
        observation_space, action_space: one environment's; a mode that sees takes all of its images, single frames.
        proprioception: indices of the state entries in `PartialState`; None for a student of frames alone.
        statistics: the state's, by which the student's vector is standardized.
        stack, stride: frames seen at once, and steps between them.
        grid: rows and columns each backbone pools to.
        family: of the teacher's distribution.
        background: whether it takes what stands still out of its frames.
        predicts: whether a student that sees predicts, while it is trained, the state entries that it is not given.
        critic: of a student that sees, `same` values what the actor sees, and `state` the state.
        memory: `none`, or `gru` for a recurrent state.
    """
    sees = mode != "State"
    entries = list(range(len(statistics.mean)) if not sees else proprioception or ())
    seen: dict[str, Any] = {}
    if sees:
        shapes = {key: space.shape or () for key, space in observation_space.items() if is_image(space)}
        cameras = {key: (stack, *shape) for key, shape in shapes.items()}
        seen = {"cameras": cameras, "filters": FILTERS[mode], "grid": grid, "stride": stride, "background": background}
        hidden = [entry for entry in range(len(statistics.mean)) if entry not in entries] if predicts else []
        mean, std = statistics.mean[hidden].tolist(), statistics.floored_std[hidden].tolist()
        seen |= {"predicted": hidden, "predicted_mean": mean, "predicted_std": std, "critic": critic}
        if critic == "state":
            seen |= {"state_mean": statistics.mean.tolist(), "state_std": statistics.floored_std.tolist()}
    return ActorCritic(
        vector="State" if not sees else None if proprioception is None else "PartialState",
        vector_mean=statistics.mean[entries].tolist(),
        vector_std=statistics.floored_std[entries].tolist(),
        action_low=action_space.low.tolist(),
        action_high=action_space.high.tolist(),
        family=family,
        memory=memory,
        **seen,
    )


def save_student(
    path: Path | str, student: ActorCritic, card: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write a student as plain tensors, with a `card` that describes it: task, mode, render settings, scores."""
    weights = {name: value.to(dtype) for name, value in student.state_dict().items()}
    save_tensors(path, "student", named_policy(student) | {"weights": weights, "card": card})


def load_student(path: Path | str, device: str | torch.device = "cpu") -> ActorCritic:
    """Load a student; raises `BadFile` if the file is missing, damaged, or not a student."""
    return build_policy(path, load_tensors(path, "student"), device)
