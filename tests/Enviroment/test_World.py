import gymnasium as gym
import numpy as np
import pytest
import torch

from Common.Errors import NonFinite
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_vector_env, make_world

ZEROS = torch.zeros(3, 7)


@pytest.fixture(scope="module")
def world():
    world = make_world(TASKS["Pusher"], 3, 2)
    yield world
    world.close()


@pytest.fixture(scope="module")
def env():
    env = make_vector_env(TASKS["Pusher"], 3, 1)
    yield env
    env.close()


def copied(tensors):
    return {key: value.clone() for key, value in tensors.items()}


def assert_equal(tensors, arrays):
    assert tensors.keys() == arrays.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(value, arrays[key])
        assert value.numpy().dtype == arrays[key].dtype


def test_it_describes_one_environment(world, env):
    assert world.spaces == env.single_observation_space
    assert world.action_space == env.single_action_space
    assert (world.num_envs, world.max_episode_steps, world.device) == (3, 100, torch.device("cpu"))
    obs = world.reset(range(3))
    assert world.spaces.contains({key: value[0].numpy() for key, value in obs.items()})
    assert {key: (value.dtype, tuple(value.shape)) for key, value in obs.items()} == {
        "State": (torch.float32, (3, 23)),
        "PartialState": (torch.float32, (3, 17)),
        "Frame": (torch.uint8, (3, 64, 128)),
    }


def test_it_has_the_vector_environments_numbers(world, env):
    """105 steps: over the time limit and into episodes that restarted by themselves."""
    random = torch.Generator().manual_seed(0)
    assert_equal(world.reset([7, 8, 9]), env.reset(seed=7)[0])
    for t in range(105):
        actions = torch.rand(3, 7, generator=random) * 4 - 2
        step = world.step(actions)
        obs, reward, terminated, truncated, info = env.step(actions.numpy())
        assert_equal(step.obs, obs)
        assert step.reward.dtype == torch.float64
        assert step.reward.tolist() == reward.tolist()
        assert step.terminated.tolist() == terminated.tolist()
        assert step.truncated.tolist() == step.done.tolist() == truncated.tolist() == [t == 99] * 3
        if t == 99:
            assert_equal(step.last_obs, info["final_obs"])
            assert info["_final_obs"].all()
        else:
            assert info == {}


def test_tensors_are_views_that_the_next_call_overwrites(world, env):
    first = world.reset(range(3))
    kept, pointers = copied(first), {key: value.data_ptr() for key, value in first.items()}
    step = world.step(torch.ones(3, 7))
    assert {key: value.data_ptr() for key, value in step.obs.items()} == pointers
    assert all((first[key] != kept[key]).any() for key in kept)
    reward = step.reward.clone()
    world.step(ZEROS)
    assert (step.reward != reward).all()
    copies = env.reset(seed=0)[0]
    before = {key: value.copy() for key, value in copies.items()}
    env.step(np.ones((3, 7), np.float32))
    for key, value in before.items():
        np.testing.assert_array_equal(copies[key], value)


def test_a_dictionary_of_tensors_belongs_to_the_caller(world):
    world.reset(range(3)).clear()
    world.step(ZEROS).obs["Frame"] = ZEROS
    assert world.step(ZEROS).obs["Frame"].shape == (3, 64, 128)


def test_a_state_is_restored_bit_for_bit_and_in_another_world(world):
    actions = torch.rand(12, 3, 7, generator=torch.Generator().manual_seed(1)) * 4 - 2
    world.reset(range(3))
    world.stagger()
    for t in range(6):
        world.step(actions[t])
    state = world.state()
    straight = [(copied(step.obs), step.reward.clone()) for step in map(world.step, actions[6:])]
    other = make_world(TASKS["Pusher"], 3, 1, frames=False)
    try:
        for again in (world, other):
            again.restore(state)
            for t in range(6, 12):
                step = again.step(actions[t])
                obs, reward = straight[t - 6]
                assert_equal(step.obs, {key: obs[key].numpy() for key in again.spaces})
                assert torch.equal(step.reward, reward)
    finally:
        other.close()


def test_staggered_episodes_end_one_after_the_other(world):
    for first, total, ends in ((0, None, [99, 66, 33]), (3, 6, [49, 33, 16])):
        world.reset(range(3))
        world.stagger(first, total)
        done = torch.stack([world.step(ZEROS).done.clone() for _ in range(100)])
        assert done.float().argmax(0).tolist() == ends


def test_without_rendering_frames_are_left_as_they_are(world):
    kept = copied(world.reset(range(3)))
    with world.rendering(False):
        obs = world.step(torch.ones(3, 7)).obs
        assert torch.equal(obs["Frame"], kept["Frame"])
        assert not torch.equal(obs["State"], kept["State"])
    assert not torch.equal(world.step(ZEROS).obs["Frame"], kept["Frame"])


def test_actions_of_any_kind_of_tensor_are_taken(world):
    rewards = []
    for actions in (torch.full((3, 7), 0.5), torch.full((7, 3), 0.5, dtype=torch.float64).T.requires_grad_()):
        world.reset(range(3))
        rewards.append(world.step(actions).reward.tolist())
    assert rewards[0] == rewards[1]


def test_wrong_arguments_are_refused_and_do_no_harm(world):
    world.reset(range(3))
    with pytest.raises(ValueError, match="2 seeds for 3 environments"):
        world.reset([1, 2])
    with pytest.raises(ValueError, match=r"shape \(1, 7\): \(3, 7\) is needed"):
        world.step(torch.zeros(1, 7))
    with pytest.raises(ValueError, match="1 snapshots for 3"):
        world.restore(world.state()[:1])
    with pytest.raises(NonFinite, match="action of environment 1"):
        world.step(torch.tensor([[0.0], [float("nan")], [0.0]]).expand(3, 7))
    assert world.step(ZEROS).reward.isfinite().all()
    with pytest.raises(ValueError, match="num_envs=0"):
        make_world(TASKS["Pusher"], 0)


def test_closing_twice_is_harmless_and_a_closed_world_says_so():
    world = make_world(TASKS["Reacher"], 1, 1, frames=False)
    world.close()
    world.close()
    for call in (
        lambda: world.reset([0]),
        lambda: world.step(torch.zeros(1, 2)),
        world.state,
        world.stagger,
        lambda: world.rendering(False).__enter__(),
    ):
        with pytest.raises(gym.error.ClosedEnvironmentError, match="after close"):
            call()
