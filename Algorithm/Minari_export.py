"""A dataset written once more in the format of Minari (https://minari.farama.org), lossless."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from Algorithm.Dataset import Dataset, episode_ends, field
from Common.Errors import BadInput
from Common.Files import check_output
from Enviroment.Tasks import Task
from Enviroment.Utils import make_env


def check_minari(path: Path) -> None:
    """Raise `BadInput` if Minari is not installed, or if `path` exists or cannot be written."""
    try:
        import h5py  # noqa: F401
        import minari  # noqa: F401
    except ImportError:
        raise BadInput("an export to Minari needs Minari: pip install 'minari[hdf5]==0.5.4'") from None
    if path.exists():
        raise BadInput(f"{path} exists already: another folder is needed for the Minari dataset")
    check_output(path)


def export_minari(dataset: Dataset, task: Task, path: Path) -> None:
    """Write `dataset` to the folder `path`, from which `minari.MinariDataset(path)` reads it.

    Minari wants the observation after the last action as well, which a dataset does not hold: every episode is stepped
    again from its seed with its actions, in the views of `task`. The teacher's pre-tanh `mean` and `log_std` are in the `infos`, [T, A] each.

    Raises:
        BadInput: an episode comes out differently.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    path = path.absolute()  # Minari joins a relative one to itself
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    views = ", ".join(f"{name} {value}" for name, value in task.views.table().items())
    env = make_env(task, render_quality=dataset.meta["render"]["quality"])
    try:
        storage = MinariStorage.new(temporary, env.observation_space, env.action_space, _spec(env), jpeg_encoding=False)
        storage.update_metadata(
            {
                "dataset_id": f"{task.name.lower()}/teacher-v0",
                "minari_version": minari.__version__,
                "algorithm_name": "SAC (Stable-Baselines3)",
                "description": f"Teacher's episodes; actions drawn with {dataset.meta['teacher_noise']} of its standard deviations, "
                f"which correlate by {dataset.meta['noise_correlation']} from step to step; "
                f"teacher {dataset.meta['teacher_sha256']}"
                + (f"; views that differ from episode to episode: {views}" if views else ""),
            }
        )
        storage.update_episodes(_episodes(dataset, env))
        temporary.replace(path)
    finally:
        env.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _spec(env: Any) -> Any:
    """Return the registration of an environment; None where it holds a function, which JSON cannot."""
    spec = gym.registry[env.spec.id]
    try:
        spec.to_json()
    except ValueError:
        return None
    return spec


def _episodes(dataset: Dataset, env: Any) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    fields, start = dataset.fields, 0
    for end in tqdm(episode_ends(fields["episode_start"]), unit="episode", desc="minari"):
        rows = slice(start, end)
        seed = int(fields["seed"][start])
        env.reset(seed=seed)
        rewards = []
        for action in fields["action"][rows]:
            last, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
        if not np.array_equal(rewards, fields["reward"][rows]):
            raise BadInput(f"{dataset.folder}: episode {seed} comes out differently, perhaps with another MuJoCo")
        yield EpisodeBuffer(
            seed=seed,
            observations={key: np.concatenate([fields[field(key)][rows], last[key][None]]) for key in last},
            actions=fields["action"][rows],
            rewards=fields["reward"][rows],
            terminations=[False] * (end - start - 1) + [terminated],
            truncations=[False] * (end - start - 1) + [truncated],
            infos={name: fields[name][rows] for name in ("mean", "log_std")},
        )
        start = end
