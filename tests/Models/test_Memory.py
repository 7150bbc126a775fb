"""Stacks of frames."""

import numpy as np
import torch

from Models.Base_Model import ActorCritic
from Models.Memory import FIRST, MEMORY, FrameStack, FrameStacks


def test_frame_stacks_against_a_naive_stack_across_episode_boundaries():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (40, 2, 3, 5), dtype=np.uint8)
    first = random.random((40, 2)) < 0.15
    first[0] = True
    memory = FrameStacks(FrameStack(length=4, stride=2), ("Picture",), 2)
    for t in range(40):
        state = torch.full((2, 1), t)
        if t == 20:  # a memory continues from its state
            saved, memory = memory.state(), FrameStacks(FrameStack(4, 2), ("Picture",), 2)
            memory.restore(saved)
        seen = memory.see({"Picture": torch.from_numpy(frames[t]), "State": state}, torch.from_numpy(first[t]))
        assert seen["State"] is state
        stacks = seen["Picture"].numpy()
        for n in range(2):
            start = max(s for s in range(t + 1) if first[s, n])
            for position, back in enumerate((6, 4, 2, 0)):
                np.testing.assert_array_equal(stacks[n, position], frames[max(t - back, start), n])


def test_stack_ages_fill_with_the_first_frame():
    np.testing.assert_array_equal(
        FrameStack(4, 2).steps_back(torch.tensor([0, 3, 9])), [[0, 0, 0, 0], [3, 3, 2, 0], [6, 4, 2, 0]]
    )


def recurrent(memory="gru"):
    torch.manual_seed(0)
    return ActorCritic(
        vector="State",
        vector_mean=[0.0] * 3,
        vector_std=[1.0] * 3,
        action_low=[-1.0],
        action_high=[1.0],
        hidden=8,
        memory=memory,
    )


def test_a_window_has_the_states_and_the_gradient_of_a_full_unroll():
    student, states = recurrent(), torch.randn(2, 6, 3)
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[0, 2] = True  # an episode ends within the first sequence
    begin = torch.randn(2, 8)
    obs = {"State": states.flatten(0, 1), MEMORY: begin, FIRST: first.flatten()}
    after = student.features(obs).unflatten(0, (2, 6))
    by_hand = torch.zeros(2, 6, 8)
    for sequence in range(2):
        state = begin[sequence][None]
        for step in range(6):
            state = state * ~first[sequence, step]
            state = student.recurrent(student.condense(states[sequence, step][None]), state)
            by_hand[sequence, step] = state[0]
    assert torch.allclose(after, by_hand, atol=1e-6)
    weight = student.recurrent.weight_hh
    (window,) = torch.autograd.grad(after.square().sum(), weight)
    (full,) = torch.autograd.grad(by_hand.square().sum(), weight)
    assert torch.allclose(window, full, rtol=1e-4, atol=1e-6)
    # Two windows have the same states, but the gradient of the second ends where it begins.
    early = student.features({"State": states[:, :3].flatten(0, 1), MEMORY: begin, FIRST: first[:, :3].flatten()})
    state = early.unflatten(0, (2, 3))[:, -1].detach()
    late = student.features({"State": states[:, 3:].flatten(0, 1), MEMORY: state, FIRST: first[:, 3:].flatten()})
    assert torch.allclose(late.unflatten(0, (2, 3)), after[:, 3:], atol=1e-6)
    (cut,) = torch.autograd.grad(early.square().sum() + late.square().sum(), weight)
    assert not torch.allclose(cut, full, rtol=1e-2)


def test_a_recurrent_state_begins_each_episode_anew_and_goes_on_from_its_state():
    student, states = recurrent().eval(), torch.randn(10, 2, 3)
    memory, fresh = student.memory(2), student.memory(2)
    for t in range(10):
        first = torch.tensor([t == 0, t in (0, 4)])
        if t == 7:
            saved, memory = memory.state(), student.memory(2)
            memory.restore(saved)
        seen = memory.see({"State": states[t]}, first)
        if t >= 4:
            again = fresh.see({"State": states[t]}, torch.full((2,), t == 4))
            assert torch.allclose(student(again).policy.mean[1], student(seen).policy.mean[1], atol=1e-6)
            assert not torch.allclose(student(again).policy.mean[0], student(seen).policy.mean[0], atol=1e-6)
    assert student.act(seen).shape == (2, 1)
