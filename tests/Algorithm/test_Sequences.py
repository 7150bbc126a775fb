"""Sequences of consecutive samples, and students with a recurrent state that learn from them."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from Algorithm.BehaviouralCloning import BehaviouralCloning
from Algorithm.Config import CloningConfig, PPOConfig
from Algorithm.Sequences import Sequences
from Models.Memory import FIRST, MEMORY
from tests.Algorithm.trainers import build
from tests.helpers import student_for


def test_streams_walk_through_whole_episodes_and_carry_their_memory():
    starts, size = np.array([0, 5, 12]), 20
    sequences = Sequences(2, 4, {MEMORY: (1,)}, torch.device("cpu"))
    draws = torch.Generator().manual_seed(0)
    walked = np.concatenate([sequences.draw(starts, size, draws) for _ in range(60)], 1)
    ends = dict(zip(starts, (5, 12, 20)))
    for stream in walked:
        begun = np.flatnonzero(np.isin(stream, starts))
        assert begun[0] == 0
        assert set(stream[begun]) == {0, 5, 12}
        for one, following in pairwise(begun):  # every episode from its first sample to its last
            np.testing.assert_array_equal(stream[one:following], np.arange(stream[one], ends[stream[one]]))
    sequences.remember({MEMORY: torch.arange(8.0)[:, None]})
    given = sequences.observations(torch.tensor([3, 4, 0, 1, 0, 1, 2, 3]))
    assert given[MEMORY].flatten().tolist() == [3.0, 7.0]  # after the last sample of each window
    assert given[FIRST].tolist() == [False, False, True, False, True, False, False, False]


@pytest.mark.parametrize("mode", ["State", "ImpaalaSmall"])
def test_windows_of_a_rollout_give_the_policy_that_acted_across_episode_ends(env, task, statistics, mode):
    config = PPOConfig(num_envs=2, rollout_steps=64, minibatch_size=64, window=8)
    trainer = build(env, task, statistics, mode=mode, config=config, memory="gru")
    for _ in range(2):
        trainer.collect_rollout()
        assert trainer.rollout.done.any()
        indices = trainer.rollout.shuffled()
        assert indices.shape == (16, 8)
        assert sorted(indices.flatten().tolist()) == list(range(128))
        batch = trainer.rollout.minibatch(indices.flatten())
        with torch.no_grad():
            policy, value, *_ = trainer.student(batch.obs)
        assert (policy.log_prob(batch.u) - batch.log_prob).abs().max() < 1e-4
        assert (value - batch.value).abs().max() < 1e-4
        assert batch.obs[MEMORY].abs().max() > 0
        trainer.rollout.carry_over()


def test_cloning_of_sequences_remembers_what_the_student_does(envs, task, statistics, dataset):
    student = student_for(envs, task, statistics, "State", memory="gru")
    config = CloningConfig(
        optimization_steps=40, minibatch_size=8, window=4, learning_rate=1e-9, learning_rate_end=1e-9
    )
    trainer = BehaviouralCloning(student, dataset.fields, config, 0)
    trainer.start()
    memory = student.memory(2)
    for _ in range(30):  # beyond the first episodes of 100 samples
        indices, _ = trainer.draw()
        obs, _ = trainer.samples.gather(indices.flatten())
        obs |= trainer._sequences.observations(trainer.samples.age[indices.flatten()])
        with torch.no_grad():
            trainer._sequences.remember(student(obs).memory)
        for step in indices.T:  # one after the other, as in acting
            state, first = torch.from_numpy(dataset.fields["state"][step]), trainer.samples.age[step] == 0
            memory.see({"State": state}, first)
        assert torch.allclose(memory.state()["states"], trainer._sequences.memory[MEMORY], atol=1e-5)


def test_only_a_student_with_a_memory_learns_what_an_episode_began_with(envs, task, statistics, dataset):
    """Its state is shown in an episode's first sample alone, and wanted in all others."""
    begins = np.arange(len(dataset.fields["state"])) % 10 == 0
    shown, wanted = dataset.fields["state"] * begins[:, None], np.repeat(dataset.fields["state"][::10, :7], 10, 0)
    fields = {**dataset.fields, "state": shown, "mean": 3 * wanted, "episode_start": begins}
    loss = {}
    for memory in ("none", "gru"):
        config = CloningConfig(optimization_steps=400, minibatch_size=60, loss_type="KL", window=10)
        student = student_for(envs, task, statistics, "State", memory=memory)
        trainer = BehaviouralCloning(student, fields, config, 0)
        trainer.start()
        while trainer.optimization_steps < 400:
            loss[memory] = trainer.step(100)["training/loss"]
    assert loss["gru"] < 0.3 * loss["none"]
