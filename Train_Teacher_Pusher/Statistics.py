"""The statistics of observations in a `VecNormalize` file: how they are found, and read without executing anything."""

import pickle
import re
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from Common.Errors import BadFile, BadInput, brief


def observation_sizes(space: spaces.Space) -> dict[str, int]:
    """Return how many numbers each observation of a space has, in the order in which `State` joins them."""
    if isinstance(space, spaces.Dict):
        return {key: spaces.flatdim(space[key]) for key in sorted(space.spaces)}
    return {"": spaces.flatdim(space)}


class Inert(dict):
    """Stands for everything in a pickle that is not needed: accepts what a pickle does to an object, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "Inert":  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        return

    def append(self, _: Any) -> None:
        """Ignore an item."""

    extend = append


ARRAY_MAKERS = ("_reconstruct", "_frombuffer", "scalar")
BUILT = {one.__name__: one for one in (RunningMeanStd, VecNormalize, OrderedDict, deque)}


class StatisticsUnpickler(pickle.Unpickler):
    """Builds numbers, arrays and running statistics; everything else becomes `Inert`, so that nothing foreign runs."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle means by a name."""
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if re.fullmatch(r"numpy\._?core\.(multiarray|numeric)", module) and name in ARRAY_MAKERS:
            return super().find_class(module.replace(".core.", "._core."), name)
        return BUILT.get(name, Inert) if module.startswith(("stable_baselines3.", "collections")) else Inert


def read_statistics(path: Path, space: spaces.Space) -> VecNormalize:
    """Read a `VecNormalize` file for observations of a space; raises `BadFile` if it is damaged or of another space."""
    try:
        with open(path, "rb") as file:
            found = StatisticsUnpickler(file).load()
        if not isinstance(found, VecNormalize):
            raise TypeError(f"it holds {type(found).__name__}")
        if not found.norm_obs:
            return found
        moments: Any = found.obs_rms if isinstance(found.obs_rms, dict) else {"": found.obs_rms}
        if vars(found).get("norm_obs_keys") is None:  # its __getattr__ asks environments, of which it has none
            found.norm_obs_keys = list(moments)
        sizes = {key: len(rms.mean) for key, rms in moments.items()}
        finite = all(
            np.isfinite([*rms.mean, *rms.var, found.epsilon, found.clip_obs]).all() for rms in moments.values()
        )
    except Exception as error:  # foreign content may break anything
        raise BadFile(f"{path}: not a VecNormalize file ({brief(error)})") from error
    wanted = observation_sizes(space)
    if not finite:
        raise BadFile(f"{path}: a statistic is not finite")
    if unlike := {key: size for key, size in sizes.items() if wanted.get(key) != size}:
        raise BadFile(
            f"{path}: statistics of {sum(unlike.values())} entries, where the policy has {sum(wanted.values())}"
        )
    return found


def find_statistics(checkpoint: Path, env_id: str) -> Path | None:
    """Return the statistics beside a checkpoint, by the usual names; raises `BadInput` where several could be meant.

    The names are `NAME_vecnormalize.pkl`, and `PREFIX_vecnormalize_STEPS_steps.pkl` of Stable-Baselines3's
    `CheckpointCallback`; else `vecnormalize.pkl` or `vec_normalize.pkl` in the same folder, or in one there that is named
    as the environment, of any version, or as the checkpoint (RL Zoo).
    """
    folder, stem = checkpoint.parent, checkpoint.stem
    own = [folder / f"{stem}_vecnormalize.pkl"]
    if steps := re.fullmatch(r"(.+)_(\d+)_steps", stem):
        own.append(folder / f"{steps[1]}_vecnormalize_{steps[2]}_steps.pkl")
    name = re.sub(r"-v\d+$", "", env_id.rpartition("/")[2])
    places = dict.fromkeys([folder, folder / stem, *sorted(folder.glob(f"{name}-v*"))])
    for paths in (own, [place / file for place in places for file in ("vecnormalize.pkl", "vec_normalize.pkl")]):
        found = [path for path in paths if path.is_file()]
        if len(found) > 1:
            raise BadInput(
                f"{checkpoint}: several statistics are beside it, {', '.join(map(str, found))}; --statistics FILE chooses"
            )
        if found:
            return found[0]
    return None
