"""A snapshot of environments."""

import numpy as np

from Enviroment.Utils import make_vector_env


def test_a_snapshot_goes_on_bit_for_bit(task):
    random = np.random.default_rng(1)
    actions = random.uniform(-2, 2, (130, 2, 7)).astype(np.float32)
    env = make_vector_env(task, 2, 1, seed=5, frames=False)
    env.reset()
    for t in range(60):
        env.step(actions[t])
    snapshots = env.world.state()
    straight = [env.step(actions[t]) for t in range(60, 130)]
    other = make_vector_env(task, 2, 2, frames=False)
    other.world.restore(snapshots)
    for t in range(60, 130):
        obs, reward, _, truncated, _ = other.step(actions[t])
        np.testing.assert_array_equal(obs["State"], straight[t - 60][0]["State"])
        np.testing.assert_array_equal(reward, straight[t - 60][1])
        np.testing.assert_array_equal(truncated, straight[t - 60][3])
    env.close(), other.close()
