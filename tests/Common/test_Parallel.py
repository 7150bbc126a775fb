"""Two ranks on the CPU have one gradient, that of one process."""

import subprocess

import pytest
import torch

from Algorithm.Rollout import GuidedMinibatch
from Common import Parallel
from Models.Distributions import SquashedGaussian
from tests.Common.ranks import CONFIGS, build
from tests.helpers import ROOT, TORCHRUN

SCRIPT = """
import sys
if __name__ == "__main__":  # environment workers import this file too
    sys.path.insert(0, sys.argv[1])
    from tests.Common.ranks import main
    main(sys.argv[2])
"""


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    place = tmp_path_factory.mktemp("gradients")
    (place / "rank.py").write_text(SCRIPT)
    words = [*TORCHRUN, place / "rank.py", ROOT, place]
    run = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    return place


@pytest.mark.parametrize("method", CONFIGS)
def test_the_gradient_of_two_ranks_is_that_of_one_process_on_the_joined_batch(method, gradients):
    ranks = [torch.load(gradients / f"{method.__name__}{rank}.pt", weights_only=True) for rank in range(2)]
    for name, gradient in ranks[0]["gradients"].items():
        assert torch.equal(gradient, ranks[1]["gradients"][name])
    assert torch.equal(ranks[0]["background"], ranks[1]["background"])
    assert ranks[0]["scaled"] == ranks[1]["scaled"]

    alone = build(method, count=1)  # all four environments
    alone.world.close()
    assert torch.equal(alone.student.background("Frame"), ranks[0]["background"])
    parts = [rank["batch"] for rank in ranks]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name not in ("obs", "teacher")}
    joined["obs"] = {key: torch.cat([part["obs"][key] for part in parts]) for key in parts[0]["obs"]}
    mean, log_std = (torch.cat([part["teacher"][name] for part in parts]) for name in ("mean", "log_std"))
    joined["teacher"] = SquashedGaussian(mean, log_std, alone.student.scale, alone.student.shift)
    assert len({tuple(state.tolist()) for state in joined["obs"]["State"]}) == 16  # each rank has its own environments
    alone.loss(GuidedMinibatch(**joined)).total.backward()
    for name, weight in alone.student.named_parameters():
        torch.testing.assert_close(ranks[0]["gradients"][name], weight.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_alone_nothing_is_exchanged(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # of something else
    assert (Parallel.count(), Parallel.rank(), Parallel.exchange("x")) == (1, 0, ["x"])
