"""Datasets are found, cut to a prefix, and refused if damaged."""

import json

import numpy as np
import pytest

from Algorithm.CollectDataset import collect_dataset
from Algorithm.Dataset import find_dataset, open_dataset
from Common.Errors import BadFile
from tests.Algorithm.trainers import META, NOISE


def test_a_smaller_dataset_is_a_prefix_and_needs_no_second_collection(envs, teacher, dataset, tmp_path):
    folder = tmp_path / "dataset_250"
    assert find_dataset(folder, 250, {"teacher_noise": 1.0}) == dataset.folder
    assert find_dataset(folder, 250, {"teacher_noise": 2.0}) is None
    assert find_dataset(folder, 501, {}) is None
    collect_dataset(folder, envs, teacher, 250, NOISE, META)
    assert find_dataset(folder, 250, {}) == folder
    smaller, prefix = open_dataset(folder), dataset.prefix(250)
    assert len(smaller) == len(prefix) == 300  # whole episodes
    for name, values in smaller.fields.items():
        np.testing.assert_array_equal(values, prefix.fields[name])


@pytest.mark.parametrize("damage", ["truncated", "missing", "meta", "shorter", "reshaped", "version"])
def test_a_damaged_dataset_is_refused(dataset, damage):
    folder = dataset.folder
    if damage == "truncated":
        (folder / "frame.npy").write_bytes((folder / "frame.npy").read_bytes()[:99_999])
    elif damage == "missing":
        (folder / "mean.npy").unlink()
    elif damage == "meta":
        (folder / "meta.json").write_text("{")
    elif damage == "reshaped":
        np.save(folder / "frame.npy", np.zeros((500, 32, 64), np.uint8))
    elif damage == "shorter":
        np.save(folder / "reward.npy", np.zeros(3))
    else:
        (folder / "meta.json").write_text(json.dumps({**dataset.meta, "version": 99}))
    with pytest.raises(BadFile, match="dataset_500"):
        open_dataset(folder)
