"""Gaussian policies, and the actor-critic that students are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from Common.Files import plain
from Models.Distributions import FAMILIES, LOG_STD_MAX, LOG_STD_MIN, Gaussian
from Models.Impoola import Encoder, head, orthogonal
from Models.Memory import (
    FEATURES,
    FIRST,
    MEMORY,
    FrameStack,
    FrameStacks,
    Memory,
    NoMemory,
    Observation,
    RecurrentMemory,
)

# Of teachers that have none, as a share of half the range of actions: TD3's exploration (Fujimoto et al. 2018,
# https://arxiv.org/abs/1802.09477).
CONSTANT_DEVIATION = 0.1

# The arguments of a student that only training needs, and that tell what it is given of the state.
TRAINED_WITH = ("predicted", "predicted_mean", "predicted_std", "critic", "state_mean", "state_std")

POLICIES: dict[str, type["GaussianPolicy"]] = {}  # by their names in files


class Policy(Protocol):
    """Anything that acts: a student, a teacher, a planner."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The observation keys that acting needs."""

    @property
    def images(self) -> tuple[str, ...]:
        """Those of them that are images."""

    def memory(self, num_envs: int) -> Memory:
        """Return a fresh memory of N environments."""

    def act(self, obs: Mapping[str, Any], deterministic: bool = True) -> np.ndarray:
        """Return actions float32 [N, A] for observations with a leading [N], as the memory gives them."""


def plain_arguments(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an `__init__`, whose `locals()` are `scope`, as plain values."""
    return plain({name: value for name, value in scope.items() if name not in ("self", "__class__")})


class GaussianPolicy(nn.Module):
    """A network whose output is a `Gaussian` of a `family` over the action space from `action_low` to `action_high` [A].

    A file keeps a policy by the name of its class and its `arguments`; every subclass registers itself in `POLICIES`.
    """

    arguments: dict[str, Any]  # it was built with these plain values
    images: tuple[str, ...] = ()  # the inputs that are images
    stack = FrameStack()  # of each image
    scale: torch.Tensor
    shift: torch.Tensor

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        POLICIES[cls.__name__] = cls

    def __init__(self, action_low: Sequence[float], action_high: Sequence[float], family: str = "squashed"):
        super().__init__()
        self.family = family
        self._distribution = FAMILIES[family]
        low, high = torch.tensor(action_low), torch.tensor(action_high)
        self.register_buffer("scale", (high - low) / 2, persistent=False)
        self.register_buffer("shift", (high + low) / 2, persistent=False)

    def gaussian(self, mean: torch.Tensor, log_std: torch.Tensor) -> Gaussian:
        """Return the distribution of this policy's family with `mean` and `log_std` [B, A]."""
        return self._distribution(mean, log_std, self.scale, self.shift)

    def distribution(self, obs: Observation) -> Gaussian:
        """Return the policy at observations with a leading [B]."""
        raise NotImplementedError

    def memory(self, num_envs: int) -> Memory:
        """Return a fresh memory of N environments, through which observations reach `distribution`."""
        return FrameStacks(self.stack, self.images, num_envs) if self.images else NoMemory()

    def to_tensors(self, obs: Mapping[str, np.ndarray | torch.Tensor]) -> Observation:
        """Move the policy's inputs to its device."""
        return {key: torch.as_tensor(obs[key]).to(self.scale.device, non_blocking=True) for key in self.inputs}

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one of each input; images are stacked."""
        raise NotImplementedError

    @property
    def inputs(self) -> tuple[str, ...]:
        """The keys of the actor's observation set, which are all that acting needs."""
        return tuple(self.input_shapes)

    @torch.no_grad()
    def act(self, obs: Mapping[str, Any], deterministic: bool = True) -> np.ndarray:
        """Return actions float32 [N, A] in the environment's units; images are stacked, `uint8` [N, stack, ...], oldest first."""
        policy = self.distribution(self.to_tensors(obs))
        return policy.action(policy.mean if deterministic else policy.sample()).cpu().numpy()


class Outputs(NamedTuple):
    """A student's outputs for observations [B, ...]."""

    policy: Gaussian
    value: torch.Tensor  # [B]
    errors: torch.Tensor | None  # squared errors [B, P] of the predicted state entries, if it predicts some
    memory: Observation  # its recurrent state after each step, [B, H] as `MEMORY`; empty without one


class ActorCritic(GaussianPolicy):
    """Student: an Impoola backbone for each camera, a standardized vector beside them, an actor and a critic head.

    All arguments are plain values, and are saved with the weights.

    Args:
        vector: the observation key of the vector input, `State` or `PartialState`; None for a student of frames alone.
        vector_mean, vector_std: constants that standardize it, one number for each entry; those of `vector_std` above 0.
        action_low, action_high: bounds of the actions.
        cameras: the shape of the stack of each image by its observation key, (stack, rows, columns) or (stack, 3, rows,
            columns), all of as many frames; empty for a policy that does not see.
        filters: backbone channels of each stage; empty without cameras.
        grid: rows and columns each backbone pools to.
        hidden, lift: widths of the heads, and of the vector beside backbones.
        stride: steps between the frames of a stack.
        background: whether `learn_background` takes what stands still out of the frames; otherwise all of them begin at
            the middle gray.
        family: of its distribution, one of `FAMILIES`: its teacher's, so that the KL between them is exact.
        predicted: indices of the state entries that a head predicts from the features while the student is trained.
        predicted_mean, predicted_std: constants that standardize them.
        critic: `same`: it values what the actor sees, by the same features; `state`: it values the state, by a network of its
            own; `none`: this student only acts. A critic of the state needs no frames, and its loss has no part in the
            features, which then serve the actor alone.
        state_mean, state_std: constants that standardize a critic's state.
        memory: `none`, or `gru`: both heads see the state of a gated recurrent unit (Cho et al. 2014,
            https://arxiv.org/abs/1406.1078), `hidden` wide, which carries what was seen from step to step. What it is given
            is normalized (Ba et al. 2016, https://arxiv.org/abs/1607.06450), or its gates saturate before anything is learnt.
    """

    vector_mean: torch.Tensor
    vector_std: torch.Tensor
    predicted: torch.Tensor
    predicted_mean: torch.Tensor
    predicted_std: torch.Tensor
    state_mean: torch.Tensor
    state_std: torch.Tensor

    def __init__(
        self,
        *,
        vector: str | None,
        vector_mean: Sequence[float],
        vector_std: Sequence[float],
        action_low: Sequence[float],
        action_high: Sequence[float],
        cameras: Mapping[str, Sequence[int]] | None = None,
        filters: Sequence[int] = (),
        grid: Sequence[int] = (4, 8),
        hidden: int = 128,
        lift: int = 64,
        stride: int = 2,
        background: bool = True,
        family: str = "squashed",
        predicted: Sequence[int] = (),
        predicted_mean: Sequence[float] = (),
        predicted_std: Sequence[float] = (),
        critic: str = "same",
        state_mean: Sequence[float] = (),
        state_std: Sequence[float] = (),
        memory: str = "none",
    ):
        super().__init__(action_low, action_high, family)
        self.arguments = plain_arguments(locals())
        self.precision: str = "fp32"
        self._vector, self._subtracts, self._knows_background = vector, background, False
        self.register_buffer("vector_mean", torch.tensor(vector_mean), persistent=False)
        self.register_buffer("vector_std", torch.tensor(vector_std), persistent=False)

        cameras = cameras or {}
        self.images = tuple(cameras)
        encoders = [Encoder(shape, filters, grid) for shape in cameras.values()]
        self.encoders: Any = nn.ModuleList(encoders)
        features = len(vector_mean)
        if cameras:
            self.stack = FrameStack(next(iter(cameras.values()))[0], stride)
            seen = sum(encoder.backbone.out_features for encoder in encoders)
            if vector is not None:
                self.lift = nn.Sequential(orthogonal(nn.Linear(features, lift)), nn.SiLU())
            features = seen if vector is None else seen + lift
        self.recurrent: nn.GRUCell | None = None
        if memory == "gru":
            self.condense = nn.Sequential(orthogonal(nn.Linear(features, hidden)), nn.LayerNorm(hidden), nn.SiLU())
            self.recurrent, features = nn.GRUCell(hidden, hidden), hidden
        # Small first outputs: the policy starts centred, its log_std in the middle of its range.
        self.actor = head(features, hidden, 2 * len(action_low), gain=0.01)
        self.critic: Any = head(features, hidden, 1, gain=1.0) if critic == "same" else None
        self.state_critic: nn.Sequential | None = None
        if critic == "state":
            self.register_buffer("state_mean", torch.tensor(state_mean), persistent=False)
            self.register_buffer("state_std", torch.tensor(state_std), persistent=False)
            self.state_critic = head(len(state_mean), hidden, 1, gain=1.0)
        self.predictor: nn.Sequential | None = None
        if predicted:
            self.register_buffer("predicted", torch.tensor(predicted), persistent=False)
            self.register_buffer("predicted_mean", torch.tensor(predicted_mean), persistent=False)
            self.register_buffer("predicted_std", torch.tensor(predicted_std), persistent=False)
            self.predictor = head(features, hidden, len(predicted), gain=0.1)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the vector, if there is one, and of each image's stack."""
        shapes = {} if self._vector is None else {self._vector: tuple(self.vector_mean.shape)}
        return shapes | {image: tuple(shape) for image, shape in (self.arguments["cameras"] or {}).items()}

    @property
    def memory_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one recurrent state, as `MEMORY`; empty for a student that has none."""
        return {} if self.recurrent is None else {MEMORY: (self.recurrent.hidden_size,)}

    def memory(self, num_envs: int) -> Memory:
        """Return a fresh memory of N environments, through which observations reach `distribution`."""
        memory = super().memory(num_envs)
        if self.recurrent is None:
            return memory
        return RecurrentMemory(memory, self._remember, self.scale.new_zeros(num_envs, self.recurrent.hidden_size))

    def _remember(self, obs: Observation) -> torch.Tensor:
        return self.features(super().to_tensors(obs) | {MEMORY: obs[MEMORY]})

    def to_tensors(self, obs: Mapping[str, np.ndarray | torch.Tensor]) -> Observation:
        """Move the policy's inputs to its device; the recurrent state stands for all that was seen."""
        if FEATURES in obs and self.recurrent is not None:
            return {FEATURES: torch.as_tensor(obs[FEATURES]).to(self.scale.device)}
        return super().to_tensors(obs)

    @property
    def critic_inputs(self) -> tuple[str, ...]:
        """The keys of the critic's observation set."""
        return self.inputs if self.state_critic is None else ("State",)

    @property
    def training_inputs(self) -> tuple[str, ...]:
        """The keys of all observations that training needs: the actor's, the critic's, and the state to be predicted."""
        state = () if self.predictor is None else ("State",)
        return tuple(dict.fromkeys((*self.inputs, *self.critic_inputs, *state)))

    def for_acting(self) -> "ActorCritic":
        """Return a copy without what only training needs: no critic, and no head that predicts the state."""
        return self.rebuilt(**dict.fromkeys(TRAINED_WITH, ()) | {"critic": "none"}).eval()

    def rebuilt(self, **changes: Any) -> "ActorCritic":
        """Return a copy with some other `arguments`; what it has in common with this one has the same weights.

        This one was trained: the copy keeps its background, whatever frames it is shown.
        """
        copy = ActorCritic(**self.arguments | changes)
        own, others = self.state_dict(), copy.state_dict()
        copy.load_state_dict(others | {name: own[name] for name in own.keys() & others.keys()})
        copy.precision, copy._knows_background = self.precision, True
        return copy.to(self.scale.device)

    def actor_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but the critic's own; the features are among them."""
        every = self.named_parameters()
        return [parameter for name, parameter in every if not name.startswith(("critic.", "state_critic."))]

    def background(self, image: str) -> torch.Tensor:
        """Return what is subtracted from an image's frames, float32 of a frame's shape."""
        return self.encoders[self.images.index(image)].background

    def learn_background(self, image: str, frames: np.ndarray) -> None:
        """Take the still parts out of a backbone's input for good, before training; a trained student knows them already.

        Nine tenths of a frame never change. Left in, they are a large constant in every feature, along which one Adam
        step moves the policy further than along anything that tells states apart. The still part of `frames`, uint8
        [N, ...] such as the first of N episodes, is their median pixel by pixel.
        """
        if self._subtracts and not self._knows_background:
            self.background(image).copy_(torch.from_numpy(np.median(frames, axis=0)))

    def features(self, obs: Observation) -> torch.Tensor:
        """Return the input of both heads, float32 [B, features]; one pass through each backbone.

        Of a student with a recurrent state it is that state after each step of the S sequences whose steps are the batch.
        """
        if FEATURES in obs:
            return obs[FEATURES]
        parts = [encoder(obs[image], self.precision) for image, encoder in zip(self.images, self.encoders)]
        if self._vector is not None:
            vector = (obs[self._vector] - self.vector_mean) / self.vector_std
            parts.append(self.lift(vector) if parts else vector)
        features = torch.cat(parts, dim=1)
        return features if self.recurrent is None else self._unrolled(self.recurrent, features, obs)

    def _unrolled(self, recurrent: nn.GRUCell, features: torch.Tensor, obs: Observation) -> torch.Tensor:
        """Return the recurrent state [B, H] after each step of `features` [B, F], sequence after sequence."""
        if MEMORY not in obs:
            raise ValueError("a recurrent student acts on what its memory(n).see returns")
        state = obs[MEMORY]
        length = features.shape[0] // state.shape[0]
        first = obs[FIRST].unflatten(0, (-1, length)) if FIRST in obs else None
        states = []
        for number, step in enumerate(self.condense(features).unflatten(0, (-1, length)).unbind(1)):
            state = recurrent(step, state if first is None else state.masked_fill(first[:, number, None], 0))
            states.append(state)
        return torch.stack(states, 1).flatten(0, 1)

    def _policy(self, features: torch.Tensor) -> Gaussian:
        mean, raw = self.actor(features).chunk(2, dim=-1)
        # Squashed smoothly: a hard clamp has no gradient where it bites.
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw) + 1)
        return self.gaussian(mean, log_std)

    def forward(self, obs: Observation) -> Outputs:
        """Return all outputs, from one pass."""
        features = self.features(obs)
        value = self.critic(features).squeeze(-1) if self.state_critic is None else self.value(obs)
        memory = {} if self.recurrent is None else {MEMORY: features.detach()}
        return Outputs(self._policy(features), value, self._prediction_errors(features, obs), memory)

    def _prediction_errors(self, features: torch.Tensor, obs: Observation) -> torch.Tensor | None:
        """Return the squared errors [B, H] of the predicted state entries, in units of their standard deviations."""
        if self.predictor is None:
            return None
        wanted = (obs["State"][:, self.predicted] - self.predicted_mean) / self.predicted_std
        return (self.predictor(features) - wanted).square()

    def distribution(self, obs: Observation) -> Gaussian:
        """Return the policy alone."""
        return self._policy(self.features(obs))

    def value(self, obs: Observation) -> torch.Tensor:
        """Return the value [B] alone, of observations that have the `critic_inputs`."""
        if self.state_critic is None:
            return self.critic(self.features(obs)).squeeze(-1)
        return self.state_critic((obs["State"] - self.state_mean) / self.state_std).squeeze(-1)
