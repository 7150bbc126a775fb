"""How far Warp is from Gymnasium, as the benchmark tells it."""

import pytest
import torch

from Enviroment.Tasks import TASKS
from tests.helpers import ROOT

pytest.importorskip("mujoco_warp")


@pytest.fixture
def warp_parity(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import warp_parity

    return warp_parity


def test_both_worlds_are_compared_after_the_first_and_the_last_step(warp_parity):
    found = warp_parity.course(TASKS["Pusher"], 2, 3, torch.device("cpu"))
    assert list(found.errors) == [1, 3]
    assert found.errors[3]["State"].shape == (2, 23)
    assert 0 < found.errors[3]["State"].max() < 1e-4
    assert len(found.row()) == 7
    assert warp_parity.side_by_side([found, found]).shape == (2 * 2 * 68, 2 * 3 * 132)


def test_episodes_that_have_ended_are_left_out(warp_parity):
    found = warp_parity.course(TASKS["InvertedDoublePendulum"], 2, 30, torch.device("cpu"))
    assert len(found.errors[1]["reward"]) == 2
    assert found.row()[2:5] == ["0", "", ""]
