"""Collections, whole or cut."""

import errno
import json

import numpy as np
import pytest
import torch

from Algorithm.CollectDataset import collect_dataset
from Algorithm.Config import TeacherNoiseConfig
from Algorithm.Dataset import SampleWriter, open_dataset, read_samples
from Common.Errors import BadFile
from Enviroment.Utils import make_vector_env
from tests.Algorithm.trainers import META, NOISE, on_devices
from tests.helpers import DeviceWorld


def test_a_dataset_holds_what_the_environment_showed_and_the_teacher_said(envs, task, teacher, dataset, tmp_path):
    fields = dataset.fields
    assert len(dataset) == 500
    assert fields["seed"].tolist() == np.repeat(np.arange(2000, 2005), 100).tolist()
    assert np.flatnonzero(fields["episode_start"]).tolist() == [0, 100, 200, 300, 400]
    lone = make_vector_env(task, 1, 1)
    obs, _ = lone.reset(seed=[2003])
    for i in range(300, 400):
        np.testing.assert_array_equal(fields["frame"][i], obs["Frame"][0])
        np.testing.assert_array_equal(fields["state"][i], obs["State"][0])
        np.testing.assert_array_equal(fields["proprioception"][i], obs["PartialState"][0])
        obs, reward, *_ = lone.step(fields["action"][i][None])
        assert fields["reward"][i] == reward[0]
    lone.close()
    policy = teacher.distribution({"State": torch.from_numpy(np.array(fields["state"]))})
    np.testing.assert_allclose(fields["mean"], policy.mean, atol=1e-5)
    np.testing.assert_allclose(fields["log_std"], policy.log_std, atol=1e-5)
    noise = (np.arctanh(np.clip(fields["action"] / 2, -0.999999, 0.999999)) - fields["mean"]) / np.exp(
        fields["log_std"]
    )
    assert (np.abs(noise) < 0.6745).mean() == pytest.approx(0.5, abs=0.03)  # a normal distribution's quartiles
    episodes = noise.reshape(5, 100, -1)
    assert np.corrcoef(episodes[:, 1:].ravel(), episodes[:, :-1].ravel())[0, 1] == pytest.approx(0.5, abs=0.08)


@on_devices
def test_a_world_on_a_device_gives_the_same_files(envs, teacher, dataset, tmp_path, device):
    folder = tmp_path / "again"
    collect_dataset(folder, DeviceWorld(envs, device), teacher, 500, NOISE, META)
    for file in dataset.folder.glob("*.npy"):
        assert file.read_bytes() == (folder / file.name).read_bytes()


class Cut(Exception):
    pass


def test_a_cut_collection_is_no_dataset_and_goes_on_to_the_same_one(envs, teacher, dataset, tmp_path, monkeypatch):
    folder, step, steps = tmp_path / "again", envs.step, 0

    def cut(actions):
        nonlocal steps
        steps += 1
        if steps > 150:
            raise Cut
        return step(actions)

    monkeypatch.setattr(envs, "step", cut)
    with pytest.raises(Cut):
        collect_dataset(folder, envs, teacher, 500, NOISE, META)
    assert not folder.exists()
    partial = tmp_path / "again.partial"
    assert json.loads((partial / "meta.json").read_text())["samples"] == 300
    partial.rename(folder)
    with pytest.raises(BadFile, match="cut off"):
        open_dataset(folder)
    folder.rename(partial)
    with (partial / "reward.npy").open("ab") as file:
        file.write(b"cut in the middle of a write")
    steps = -1000
    collect_dataset(folder, envs, teacher, 500, NOISE, META)
    assert steps == -1000 + 100  # the first round was not run again
    assert not partial.exists()
    for file in dataset.folder.glob("*.npy"):
        assert file.read_bytes() == (folder / file.name).read_bytes()


def test_a_write_that_was_cut_leaves_what_was_there(dataset, tmp_path, monkeypatch):
    part = {name: values[:100] for name, values in dataset.fields.items()}
    writer = SampleWriter(tmp_path / "written", {})
    writer.append(part)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "ascontiguousarray", full)
    with pytest.raises(OSError, match="No space"):
        writer.append(part)
    monkeypatch.undo()
    kept = read_samples(tmp_path / "written", 100, part)
    np.testing.assert_array_equal(kept["frame"], part["frame"])


def test_a_cut_collection_with_other_settings_or_damage_is_not_gone_on_with(envs, teacher, dataset, tmp_path):
    folder = tmp_path / "mixed"
    other = TeacherNoiseConfig(teacher_noise=0.0, noise_correlation=0.5)
    collect_dataset(folder, envs, teacher, 300, other, META)
    partial = folder.rename(tmp_path / "mixed.partial")
    with pytest.raises(BadFile, match=r"teacher_noise is 0\.0, not 1\.0"):
        collect_dataset(folder, envs, teacher, 500, NOISE, META)
    collect_dataset(folder, envs, teacher, 500, NOISE, META, overwrite=True)
    np.testing.assert_array_equal(open_dataset(folder).fields["action"], dataset.fields["action"])
    folder.rename(partial)
    content = bytearray((partial / "action.npy").read_bytes())
    content[1000] ^= 1
    (partial / "action.npy").write_bytes(content)
    with pytest.raises(BadFile, match=r"action\.npy was altered"):
        collect_dataset(folder, envs, teacher, 500, NOISE, META)
