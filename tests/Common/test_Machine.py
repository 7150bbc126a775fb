"""The cores that a process may use, and the device that it computes on."""

import math
import os

import pytest

from Common import Machine

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
