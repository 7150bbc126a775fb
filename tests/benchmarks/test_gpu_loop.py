"""What a second of PPD costs, measured in Warp."""

import json
import sys
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from tests.helpers import ROOT


@pytest.fixture
def gpu_loop(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_loop

    return gpu_loop


def test_the_parts_of_a_step_make_up_the_whole_and_are_measured_in_it_alone(gpu_loop, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_loop.py", "--smoke", "--device", "cpu"])
    methods = [getattr(owner, name) for owner, name, _ in gpu_loop.PARTS]
    with ExitStack() as open_things:
        bench = gpu_loop.Bench(gpu_loop.parse(), open_things)
        bench.least = 0.1
        found = bench.loop()
    assert list(found["of_that"]) == ["store", "render", "physics", "policy", "targets", "updates", "other"]
    assert sum(found["of_that"].values()) == pytest.approx(found["seconds_of_a_step_that_waits"], rel=0.01)
    assert found["env_steps_per_s"] == pytest.approx(16 / found["seconds_of_a_step"], rel=0.01)
    assert found["samples_per_s"] == pytest.approx(found["env_steps_per_s"], rel=0.01)  # one epoch
    assert [getattr(owner, name) for owner, name, _ in gpu_loop.PARTS] == methods


def test_what_there_is_no_time_for_is_left_out_and_what_there_is_is_kept(gpu_loop, tmp_path):
    class Bench:
        arguments = SimpleNamespace(minutes=0.5, seconds=60.0, output=tmp_path / "found.json")

        def loop(self):
            return {"rate": 1}

        def render(self):
            yield {"rows": 1}
            yield {"rows": 2}

        updates = workers = loop

    gpu_loop.measure(Bench(), time.monotonic(), {"settings": {}})
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["loop"], found["render"], found["updates"]) == ({"rate": 1}, {"rows": 2}, {"rate": 1})
    assert "left_out" in found["learning"]
    gpu_loop.measure(Bench(), time.monotonic() - 25, {})
    assert json.loads((tmp_path / "found.json").read_text())["workers"] == {"left_out": "no time was left"}
