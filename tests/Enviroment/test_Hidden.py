"""A body that vanishes from the pictures."""

import copy

import numpy as np

from Enviroment.Snapshot import restore, simulation, snapshot
from Enviroment.Tasks import find_task
from Enviroment.Utils import make_env


def play(env, steps):
    return [env.step(np.full(7, 0.1, np.float32))[0] for _ in range(steps)]


def test_the_object_is_drawn_for_ten_steps_of_each_episode_and_never_else_changed():
    seen, hidden = make_env(find_task("Pusher")), make_env(find_task("PusherMemory"))
    model, _ = simulation(hidden)
    original = copy.copy(model)
    for seed in (1900, 1901):
        shown = [seen.reset(seed=seed)[0], *play(seen, 20)]
        obs = [hidden.reset(seed=seed)[0], *play(hidden, 15)]
        saved = snapshot(hidden, original)
        obs += play(hidden, 5)
        for step, (one, other) in enumerate(zip(shown, obs)):
            np.testing.assert_array_equal(one["State"], other["State"])
            assert np.array_equal(one["Frame"], other["Frame"]) == (step < 10)
        resumed = make_env(find_task("PusherMemory"))
        restore(resumed, saved, original)
        for one, other in zip(play(resumed, 5), obs[16:]):
            np.testing.assert_array_equal(one["Frame"], other["Frame"])
        resumed.close()
    seen.close()
    hidden.close()
