"""Peers: what they are given, and the table of their results."""

import json
from contextlib import closing
from dataclasses import asdict

import numpy as np
import pytest
import torch

from Common.Errors import BadFile, BadInput
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_env, make_world
from Models.Memory import FrameStack, FrameStacks
from tests.helpers import ROOT

SETTINGS = {"frames": 10_000, "samples": 1_000, "minutes": 10, "every": 30, "episodes": 20}


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "peers")
    import run

    return run


@pytest.fixture
def common(peers):
    import common

    return common


def test_a_peer_is_given_what_our_students_see(common):
    task, seen = TASKS["Pusher"], []
    with closing(make_world(task, 1, 1)) as world:
        memory = FrameStacks(FrameStack(task.stack, task.stack_stride), task.seen, 1)
        first = torch.ones(1, dtype=torch.bool)
        actions = np.random.default_rng(0).uniform(-2, 2, (9, 7)).astype(np.float32)

        def see(obs, first):
            seen.append({key: value[0].numpy().copy() for key, value in memory.see(obs, first).items()})

        see(world.reset([1900]), first)
        for action in actions:
            see(world.step(torch.from_numpy(action[None])).obs, ~first)
    with closing(common.Stacked(make_env(task), task, state=True)) as env:
        given = [env.reset(seed=1900)[0], *(env.step(action)[0] for action in actions)]
        assert all(obs in env.observation_space for obs in given)
    for ours, theirs in zip(seen, given, strict=True):
        assert theirs.keys() == {"State", "PartialState", "Frame"}
        for key in theirs:
            np.testing.assert_array_equal(ours[key], theirs[key])


def test_the_frames_of_a_stack_in_colour_are_channels_oldest_first(common):
    stacks = np.arange(2 * 4 * 3 * 2 * 2).reshape(2, 4, 3, 2, 2)  # [N, stack, 3, rows, columns]
    channels = common.as_channels(stacks, 1)
    assert channels.shape == (2, 12, 2, 2)
    np.testing.assert_array_equal(channels[:, 3:6], stacks[:, 1])


def results(peers, folder, name, rows, **changes):
    """Write a peer's file, with a checkpoint for each (samples seen, minutes, normalized return)."""
    checkpoints = [peers.Checkpoint(500, seen, seen // 64, 60 * minutes, score, 0.5) for seen, minutes, score in rows]
    lines = [json.dumps(row) for row in (SETTINGS | changes, *map(asdict, checkpoints))]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(f"| {name} ")).strip("| ").split(" | ")


def test_the_table_has_means_over_seeds_and_a_dash_with_its_reason(peers, tmp_path):
    results(peers, tmp_path, "imitation-bc_seed0", [(0, 0, 0.0), (1_100, 4, 0.92), (3_000, 10.2, 0.8)])
    results(peers, tmp_path, "imitation-bc_seed1", [(0, 0, 0.0), (1_000, 5, 0.5), (2_000, 9.9, 0.6), (9_000, 12, 1.0)])
    results(peers, tmp_path, "sb3-ppo_seed0", [(0, 0, 0.0), (400, 10, 0.1)])
    (tmp_path / "sb3-distill_seed0.txt").write_text("cannot be installed: no network\n")
    text = peers.table(tmp_path)
    lines = str(peers.user_lines("imitation-bc"))
    assert row(text, "imitation-bc")[1:] == [
        "2",
        "0.710",
        "0.700",
        "0.500",
        "8.0",
        "12.0 (1 of 2)",
        "500",
        "2,500",
        lines,
    ]
    assert row(text, "sb3-ppo")[2:4] == ["–", "0.100"]
    assert "- sb3-ppo: saw fewer than 1,000 samples in 10 minutes" in text
    assert row(text, "sb3-distill")[1:8] == ["0", *"–––––––"][:7]
    assert "- sb3-distill_seed0: cannot be installed: no network" in text


def test_results_that_cannot_be_compared_are_refused(peers, tmp_path):
    with pytest.raises(BadInput, match="no peer's results"):
        peers.table(tmp_path)
    results(peers, tmp_path, "sb3-ppo_seed0", [(400, 10, 0.1)])
    results(peers, tmp_path, "sb3-ppo_seed1", [(400, 10, 0.1)], minutes=5)
    with pytest.raises(BadFile, match="different minutes"):
        peers.table(tmp_path)
    (tmp_path / "sb3-ppo_seed1.jsonl").write_text("{}\n{}")
    with pytest.raises(BadFile, match="damaged"):
        peers.table(tmp_path)


def test_lines_of_user_code_are_those_without_docstrings_comments_and_measuring(peers, monkeypatch, tmp_path):
    script = '"""About\nit."""\n\nimport x  # why\n\n\ndef train(job):\n    """Do it."""\n    # how\n    x.do(\n        job\n    )\n'
    (tmp_path / "it.py").write_text(script + "    job.record(1)  # measured\n")
    monkeypatch.setattr(peers, "PLACE", tmp_path)
    monkeypatch.setitem(peers.PEERS, "it", peers.Peer("it.py"))
    assert peers.user_lines("it") == 5
    assert peers.user_lines("ours-dagger") == 2


def test_tests_of_our_runs_are_checkpoints_counted_on_from_those_before(peers, tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "x_axis/optimization_steps,x_axis/samples_collected,x_axis/samples_seen,time/elapsed_s,"
        "test/OD/normalized_return,test/OD/success\n0,10,0,0,0.1,0\n5,10,320,2.5,,\n10,10,640,5.0,0.9,0.5\n"
    )
    found = peers.ours.checkpoints(tmp_path / "metrics.csv", peers.Checkpoint(10, 64, 1, 3.0, 0.1, 0.0))
    assert found == [peers.Checkpoint(10, 64, 1, 3.0, 0.1, 0.0), peers.Checkpoint(10, 704, 11, 8.0, 0.9, 0.5)]
