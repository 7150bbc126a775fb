"""A goal that vanishes from the pictures."""

import copy
from dataclasses import replace

import numpy as np

from Enviroment.Snapshot import restore, simulation, snapshot
from Enviroment.Tasks import find_task
from Enviroment.Utils import make_env

TASK = find_task("PusherMemory")


def play(env, steps):
    return [env.step(np.full(7, 0.1, np.float32))[0] for _ in range(steps)]


def test_the_goal_is_drawn_for_ten_steps_of_each_episode_and_never_else_changed():
    hidden, seen = make_env(TASK), make_env(replace(TASK, keywords={"shown": 100}))
    original = copy.copy(simulation(hidden)[0])
    for seed in (1900, 1901):
        shown = [seen.reset(seed=seed)[0], *play(seen, 20)]
        obs = [hidden.reset(seed=seed)[0], *play(hidden, 15)]
        saved = snapshot(hidden, original)
        obs += play(hidden, 5)
        for step, (one, other) in enumerate(zip(shown, obs)):
            np.testing.assert_array_equal(one["State"], other["State"])
            assert np.array_equal(one["Frame"], other["Frame"]) == (step < 10)
        resumed = make_env(TASK)
        restore(resumed, saved, original)
        for one, other in zip(play(resumed, 5), obs[16:]):
            np.testing.assert_array_equal(one["Frame"], other["Frame"])
        resumed.close()
    seen.close()
    hidden.close()


def test_the_goal_lies_elsewhere_in_each_episode_and_the_object_apart_from_it():
    env = make_env(TASK, frames=False)
    states = np.stack([env.reset(seed=seed)[0]["State"] for seed in range(100)])
    env.close()
    away = states[:, 20:22] - (0.45, -0.05)  # Pusher's own
    assert (np.abs(away) <= (0.15, 0.1)).all() and (np.ptp(away, axis=0) > (0.25, 0.15)).all()
    assert (np.linalg.norm(states[:, 17:19] - states[:, 20:22], axis=1) > 0.17).all()
