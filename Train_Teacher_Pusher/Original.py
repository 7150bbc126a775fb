"""A Stable-Baselines3 or sb3-contrib file, read without executing anything that is in it.

The zip's JSON describes the policy and its spaces, and the weights are plain tensors. The pickles beside them, which only
the Python that wrote them can read, are not needed to act.
"""

import importlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from Common.Errors import BadFile, BadInput, brief
from Common.Files import file_hash
from Models.Memory import Memory, NoMemory
from Train_Teacher_Pusher.Statistics import observation_sizes, read_statistics

OFF_POLICY = {  # the algorithm whose policy is defined in a module
    "stable_baselines3.sac.policies": "SAC",
    "stable_baselines3.td3.policies": "TD3",
    "sb3_contrib.tqc.policies": "TQC",
}
ON_POLICY = ("PPO", "A2C", "TRPO")  # whose policies are defined in stable_baselines3.common.policies
SUPPORTED = "SAC, TQC, TD3, DDPG, PPO, A2C and TRPO"
NOT_SUPPORTED = {
    "dqn": "DQN",
    "qrdqn": "QRDQN",
    "crossq": "CrossQ",
    "ars": "ARS",
    "recurrent": "RecurrentPPO",
    "maskable": "MaskablePPO",
}
SIZES = r"\(([\d, ]+)\), (\w+)\)"  # a Box's shape and type, at its end in print


class Original:
    """The policy of a file, as Stable-Baselines3 itself runs it.

    Attributes:
        policy: Stable-Baselines3's.
        statistics: by which its observations are normalized, or None.
        algorithm: its name.
        was_normalized: whether it was certainly trained with `VecNormalize`, which files of SAC and the like do not tell.
        facts: the file's name, its SHA-256 and the algorithm, to be kept with the teacher.
    """

    inputs: tuple[str, ...] = ("State",)
    images: tuple[str, ...] = ()

    def __init__(self, path: Path, algorithm: str, policy: Any, statistics: VecNormalize | None, was_normalized: bool):
        self.was_normalized = was_normalized
        self.policy, self.statistics, self.algorithm = policy, statistics, algorithm
        self.action_space: spaces.Box = policy.action_space
        self.facts = {"algorithm": algorithm, "file": path.name, "sha256": file_hash(path)}

    def memory(self, num_envs: int) -> Memory:
        """Return no memory."""
        return NoMemory()

    def act(self, obs: Mapping[str, Any], deterministic: bool = True) -> np.ndarray:
        """Return actions float32 [N, A] for `State` [N, S]."""
        given: Any = np.asarray(obs["State"])
        if isinstance(self.policy.observation_space, spaces.Dict):
            sizes = observation_sizes(self.policy.observation_space)
            given = dict(zip(sizes, np.split(given, np.cumsum([*sizes.values()])[:-1], axis=-1)))
        if self.statistics is not None:
            given = self.statistics.normalize_obs(given)
        return self.policy.predict(given, deterministic=deterministic)[0]


def read_original(
    path: Path, state_size: int, action_space: spaces.Box, statistics: Path | None, device: str = "cpu"
) -> Original:
    """Read a file, and the statistics of its observations if there are any, for a task of these spaces.

    Raises:
        BadFile: it is missing, damaged, of an algorithm that is not supported, or does not fit the task.
    """
    data, weights = read_zip(path)
    try:
        algorithm = find_algorithm(path, data)
        check_actions(path, data.get("action_space"), action_space)
        observation_space = read_observation_space(path, data.get("observation_space"), state_size)
        arguments = policy_arguments(path, data)
        if algorithm in ON_POLICY:
            arguments["use_sde"] = data.get("use_sde", False)
            if architecture := without_shared_layers(weights, arguments.get("net_arch")):
                arguments["net_arch"] = architecture
    except BadInput:
        raise
    except Exception as error:  # foreign content may break anything
        raise BadFile(f"{path}: its description of the policy is damaged ({brief(error)})") from error
    alias = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"
    policy_class = algorithm_class(algorithm).policy_aliases[alias]
    try:
        policy = policy_class(observation_space, action_space, lambda _: 0.0, **arguments)
        if hasattr(policy, "actor"):  # critics differ from version to version, and are not needed
            actor = {name.removeprefix("actor."): value for name, value in weights.items() if name.startswith("actor.")}
            policy.actor.load_state_dict(actor)
        else:
            policy.load_state_dict(weights)
    except Exception as error:  # foreign content may break anything
        raise BadFile(f"{path}: its weights are not those of the policy it describes ({brief(error)})") from error
    if not all(value.isfinite().all() for value in weights.values()):
        raise BadFile(f"{path}: a weight is not finite")
    normalizer = None if statistics is None else read_statistics(statistics, observation_space)
    was_normalized = algorithm in ON_POLICY and data.get("_last_original_obs") is not None
    return Original(path, algorithm, policy.to(device), normalizer, was_normalized)


def read_zip(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return a file's description, in which pickles stay pickled, and its policy's weights; or raise `BadFile`."""
    if not path.is_file():
        raise BadFile(f"{path}: no such file (a .zip of Stable-Baselines3 is needed)")
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
            weights = torch.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
        if not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
            raise TypeError("a weight is no tensor")
        return {**data}, {**weights}
    except Exception as error:  # zip, JSON and torch raise a dozen kinds for a damaged file
        raise BadFile(f"{path}: damaged, or not a .zip of Stable-Baselines3 ({brief(error)})") from error


def find_algorithm(path: Path, data: dict[str, Any]) -> str:
    """Return the algorithm's name by the module of the policy's class; raises `BadFile` unless it is supported."""
    described = data.get("policy_class")
    module = str(described.get("__module__") if isinstance(described, dict) else described)
    if module == "stable_baselines3.common.policies":
        return "TRPO" if "cg_max_steps" in data else "PPO" if "clip_range" in data else "A2C"
    if module in OFF_POLICY:
        is_ddpg = (
            module.endswith("td3.policies") and data.get("policy_delay") == 1 and not data.get("target_noise_clip")
        )
        return "DDPG" if is_ddpg else OFF_POLICY[module]
    known = NOT_SUPPORTED.get(module.split(".")[-2] if "." in module else "")
    what = known or f"a policy class of the module {module!r}"
    raise BadFile(f"{path}: {what} is not supported; {SUPPORTED} are, with their own policies")


def algorithm_class(algorithm: str) -> Any:
    """Return an algorithm's class by its name; raises `BadInput` where its package is missing. TRPO has A2C's policies."""
    package = "sb3_contrib" if algorithm == "TQC" else "stable_baselines3"
    try:
        return getattr(importlib.import_module(package), "A2C" if algorithm == "TRPO" else algorithm)
    except ModuleNotFoundError as error:
        raise BadInput(f"{algorithm} needs sb3-contrib: pip install -e '.[contrib]'") from error


def check_actions(path: Path, described: Any, wanted: spaces.Box) -> None:
    """Raise `BadFile` unless a described action space is the task's."""
    kind = space_kind(described)
    if kind != "Box":
        raise BadFile(f"{path}: its actions are {kind or 'not described'}, where a Box, real numbers, is needed")
    try:
        ends = [np.array([float(x) for x in described[end].strip("[]").split()]) for end in ("low", "high")]
    except (KeyError, AttributeError, ValueError) as error:
        raise BadFile(f"{path}: the bounds of its actions are not readable ({brief(error)})") from error
    if ends[0].shape != wanted.shape:
        raise BadFile(f"{path}: trained with {ends[0].size} actions where the task has {wanted.low.size}")
    if not (np.allclose(ends[0], wanted.low) and np.allclose(ends[1], wanted.high)):
        found = f"{ends[0].tolist()} to {ends[1].tolist()}"
        raise BadFile(
            f"{path}: its actions are from {found}, the task's {wanted.low.tolist()} to {wanted.high.tolist()}"
        )


def space_kind(described: Any) -> str:
    """Return the class of a described space, such as `Box`; empty where there is none."""
    return str(described.get(":type:")).rpartition(".")[2].strip("'>") if isinstance(described, dict) else ""


def read_observation_space(path: Path, described: Any, state_size: int) -> spaces.Space:
    """Return a described observation space of vectors; raises `BadFile` unless it is `state_size` numbers in all."""
    kind = space_kind(described)
    if kind == "Dict":
        printed = str(described.get("spaces"))
        found = re.findall(r"'([^']+)'[,:] Box\([^()]*" + SIZES, printed)
        if not found or len(found) != len(re.findall(r"'[^']+'[,:] ", printed)):
            raise BadFile(f"{path}: its observations are {printed}, where boxes are needed")
        parts = {key: (shape, dtype) for key, shape, dtype in found}
    elif kind == "Box":
        parts = {"": (str(described.get("shape", described.get("_shape"))).strip("[]"), described.get("dtype"))}
    else:
        raise BadFile(
            f"{path}: its observations are {kind or 'not described'}, where a Box or a Dict of them is needed"
        )
    sizes = {}
    for key, (shape, dtype) in parts.items():
        numbers = [int(size) for size in re.findall(r"\d+", shape)]
        if len(numbers) != 1:
            image = "an image" if dtype == "uint8" else f"of shape {numbers}"
            raise BadFile(
                f"{path}: its observation {key!r} is {image}, where a teacher has to act on the state, a vector"
            )
        sizes[key] = numbers[0]
    if (total := sum(sizes.values())) != state_size:
        raise BadFile(f"{path}: trained with {total} inputs where the task has {state_size}")
    boxes: dict[str, Any] = {key: spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items()}
    return spaces.Dict(boxes) if kind == "Dict" else boxes[""]


def policy_arguments(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the policy's class that are described in words and numbers; raises `BadFile` for others."""
    described = data.get("policy_kwargs") or {}
    extractor = str(described.get("features_extractor_class", "FlattenExtractor"))
    if not re.search(r"\b(FlattenExtractor|CombinedExtractor)\b", extractor):
        raise BadFile(
            f"{path}: its features extractor {extractor} is not supported; Stable-Baselines3's default ones are"
        )
    skipped = ("optimizer", "features_extractor", "sde_net_arch", "device", ":")
    arguments = {key: value for key, value in described.items() if not key.startswith(skipped)}
    if "activation_fn" in arguments:
        match = re.fullmatch(r"<class 'torch\.nn\.modules\.\w+\.(\w+)'>", str(arguments["activation_fn"]))
        if match is None:
            raise BadFile(
                f"{path}: its activation {arguments['activation_fn']} is not supported; a class of torch.nn is"
            )
        arguments["activation_fn"] = getattr(torch.nn, match[1])
    return arguments


def without_shared_layers(weights: dict[str, torch.Tensor], architecture: Any) -> dict[str, list[int]] | None:
    """Give actor and critic copies of the layers that they share, which Stable-Baselines3 no longer builds (since 1.8).

    Changes `weights`. Returns the architecture that this is, or None where it is as described.
    """
    apart: dict[str, list[int]] = {}
    if isinstance(architecture, list) and architecture and isinstance(architecture[-1], dict):
        *shared, apart = architecture
    elif isinstance(architecture, list):
        shared = architecture
    else:
        return None
    prefix = "mlp_extractor.shared_net."
    kept = {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}
    if not kept:
        return {who: [*shared, *apart.get(who, [])] for who in ("pi", "vf")}
    for net in ("mlp_extractor.policy_net.", "mlp_extractor.value_net."):
        own = {name.removeprefix(net): weights.pop(name) for name in list(weights) if name.startswith(net)}
        for name, value in own.items():
            number, _, rest = name.partition(".")
            weights[f"{net}{int(number) + 2 * len(shared)}.{rest}"] = value  # a layer and its activation each
        weights |= {net + name: value for name, value in kept.items()}
    return {who: [*shared, *apart.get(who, [])] for who in ("pi", "vf")}
