"""The datasets of the command line: where they lie, collecting them, and whether one is what a run asks for."""

import dataclasses
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from Algorithm.CollectDataset import collect_dataset
from Algorithm.Utils import Dataset, find_dataset, open_dataset
from Common.Errors import BadInput
from Common.Files import locked
from Common.Settings import differences
from Distillation import Utils
from Distillation.Utils import DATASET_SIZES, NOISE, CommonConfig, dataset_folder, describe
from Enviroment.Tasks import Task
from Enviroment.Utils import make_vector_env
from Models.Model_Pusher import Teacher, get_Teacher_model


def collect(config: Utils.Collection, task: Task, teacher: Teacher, teacher_path: Path, overwrite: bool) -> None:
    """Collect a dataset, and write it once more for Minari if that is wanted.

    Raises:
        BadInput: there is one already, and no export is wanted, or the one there has other settings.
        BadFile: another process is collecting it, or the one there is damaged.
    """
    folder = dataset_folder(config, config.num_data)
    description = describe(config, teacher_path, task.rendering(config.render_quality))
    if folder.exists() and not overwrite:
        if config.export_minari is None:
            raise BadInput(f"{folder} is there already; --overwrite collects it anew")
        check_same(open_dataset(folder), description, ("task", "teacher_sha256", "render", *NOISE))
    if config.export_minari is not None:
        from Algorithm.Minari_export import check_minari, export_minari

        check_minari(Path(config.export_minari))
    if not folder.exists() or overwrite:
        meta = {key: description[key] for key in ("task", "teacher_sha256", "render", "versions")}
        folder.parent.mkdir(parents=True, exist_ok=True)  # or fail before time is spent
        started = time.monotonic()
        with (
            locked(folder),
            closing(
                make_vector_env(task, config.num_envs, config.num_workers, None, True, config.render_quality)
            ) as env,
        ):
            noise = config.teacher_noise, config.noise_correlation
            collect_dataset(folder, env, teacher, config.num_data, *noise, meta, config.quiet, overwrite)
        seconds = time.monotonic() - started
        dataset = open_dataset(folder)
        returns = dataset.fields["reward"].sum() / dataset.fields["episode_start"].sum()
        print(f"{len(dataset)} samples, mean return {returns:.2f}, {seconds:.0f} s\ndataset  {folder}")
    if config.export_minari is not None:
        export_minari(open_dataset(folder), task, Path(config.export_minari))
        print(f"minari   {config.export_minari}")


def open_matching(
    config: Utils.Cloning | Utils.DAgger, task: Task, teacher_path: Path, description: dict[str, Any]
) -> Dataset:
    """Open the dataset a run asks for, or the beginning of a larger one; collect it if that is asked for too.

    Raises:
        BadInput: there is none, or only one with other settings.
        BadFile: it is damaged.
    """
    samples = DATASET_SIZES[config.dataset]
    wanted = dataset_folder(config, samples)
    noise = {name: getattr(config, name) for name in NOISE}
    folder = find_dataset(wanted, samples, noise)
    if folder is None and isinstance(config, Utils.Cloning) and config.collect:
        common = {field.name: getattr(config, field.name) for field in dataclasses.fields(CommonConfig)}
        collection = Utils.Collection(num_data=samples, **common, **noise)
        collect(collection, task, get_Teacher_model(teacher_path, config.device), teacher_path, overwrite=False)
        folder = wanted
    if folder is None:
        usual = Utils.Collection()
        flags = "".join(f"--{key} {value:g} " for key, value in noise.items() if value != getattr(usual, key))
        raise BadInput(
            f"no {wanted.name} in {wanted.parent}: --C_data --num_data {samples} {flags}collects it, --BC_phase with "
            "--collect does so by itself"
        )
    dataset = open_dataset(folder)
    check_same(
        dataset, description, ("task", "teacher_sha256", *NOISE, *(["render"] if config.mode != "State" else []))
    )
    return dataset.prefix(samples)


def check_same(dataset: Dataset, description: dict[str, Any], keys: Sequence[str]) -> None:
    """Raise `BadInput` where a dataset is not what was asked for, however its frames are to be stacked."""

    def single(meta: dict[str, Any]) -> dict[str, Any]:
        render = meta.get("render")
        if not isinstance(render, dict):
            return meta
        return meta | {"render": {key: value for key, value in render.items() if not key.startswith("stack")}}

    unlike = differences(single(dataset.meta), single(description), keys)
    if unlike:
        raise BadInput(f"{dataset.folder} has other settings than asked for: {unlike}")
