"""The cores that a process may use, and the device that it computes on."""

import math
import os
import warnings

import pytest
import torch

from Common import Machine, Parallel
from Common.Errors import BadDevice

V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/job/7\n1:name=systemd:/\n0::/\n"}
V2 = {"proc/self/cgroup": "0::/job/7\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        (V2 | {"sys/fs/cgroup/job/7/cpu.max": "max 100000\n"}, math.inf),
        (V2 | {"sys/fs/cgroup/job/7/cpu.max": "250000 100000\n"}, 2.5),
        (V2 | {"sys/fs/cgroup/job/7/cpu.max": "400000 100000\n", "sys/fs/cgroup/job/cpu.max": "50000 50000\n"}, 1),
        (V2 | {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),  # a container that sees its own group as the root
        (V1 | {"sys/fs/cgroup/cpu/job/7/cpu.cfs_quota_us": "-1\n"}, math.inf),
        (V1 | {f"sys/fs/cgroup/cpu/job/7/cpu.cfs_{name}_us": "100000\n" for name in ("quota", "period")}, 1),
    ],
)
def test_a_quota_of_any_control_group_around_the_process_counts(files, cores, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert Machine._quota(tmp_path) == cores


def test_cores_are_those_of_affinity_and_quota_and_need_no_linux(monkeypatch):
    monkeypatch.setattr(Machine, "_quota", lambda: math.inf)
    assert Machine.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert Machine.cores() == 8
    for quota, usable in ((2.5, 3), (0.1, 1), (64, 8)):
        monkeypatch.setattr(Machine, "_quota", lambda quota=quota: quota)
        assert Machine.cores() == usable


def test_under_a_quota_pytorch_has_a_thread_for_each_usable_core_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(Machine, "_visible_cores", lambda: 64)
    monkeypatch.setattr(Machine, "_quota", lambda: 4.0)
    for given, kept in (({}, "4"), ({"OMP_NUM_THREADS": "7"}, "7")):
        monkeypatch.setattr(os, "environ", given)
        Machine.settle_threads()
        assert os.environ["OMP_NUM_THREADS"] == kept


NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCompile with `TORCH_USE_CUDA_DSA`"


@pytest.fixture
def ones(monkeypatch):
    """GPUs are there, and what `torch.ones` raises on each."""
    errors = {}
    made = torch.ones

    def ones(size, device):
        if str(device) in errors:
            raise RuntimeError(errors[str(device)])
        return made(size)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return errors


def test_a_gpu_that_pytorch_cannot_compute_on_gives_way_to_the_cpu_with_a_line(ones, capsys):
    assert [str(Machine.resolve_device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda",
        "cuda",
        "cuda:1",
        "cpu",
    ]
    assert capsys.readouterr().err == ""
    ones["cuda:0"] = NO_KERNEL
    assert Machine.resolve_device("auto").type == "cpu"
    errors = capsys.readouterr().err
    assert "computing on the CPU" in errors
    assert "no kernel image" in errors
    assert errors.count("\n") == 1
    with pytest.raises(BadDevice, match=r"'cuda:0' cannot be used.*no kernel image"):
        Machine.resolve_device("cuda:0")
    assert str(Machine.resolve_device("cuda:1")) == "cuda:1"


def test_each_rank_asks_the_gpu_that_it_would_get(ones, monkeypatch):
    ones["cuda:1"] = NO_KERNEL
    monkeypatch.setattr(Parallel, "local_rank", lambda: 1)
    assert Machine.resolve_device("auto").type == "cpu"
    ones["cuda:0"] = ones.pop("cuda:1")
    assert Machine.resolve_device("auto").type == "cuda"


def test_a_driver_that_is_missing_or_too_old_is_a_line_and_no_gpu_is_none(monkeypatch, tmp_path, capsys):
    def is_available():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system\nis too old", stacklevel=1)
        return False

    monkeypatch.setattr(Machine, "_gpu_without_driver", lambda: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (Machine.resolve_device("auto").type, capsys.readouterr().err) == ("cpu", "")
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert Machine.resolve_device("auto").type == "cpu"
    assert capsys.readouterr().err.endswith("The NVIDIA driver on your system is too old\n")
    monkeypatch.undo()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, vendor, kind in (("sound", "0x10de", "0x040300"), ("screen", "0x1234", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert Machine._gpu_without_driver(tmp_path) == ""
    (tmp_path / "screen" / "vendor").write_text("0x10de\n")
    for cuda, said in (("12.8", "finds no driver"), (None, "without CUDA")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        assert said in Machine._gpu_without_driver(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Machine._gpu_without_driver(tmp_path) == ""
