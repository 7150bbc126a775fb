"""A body that vanishes from the pictures."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from Enviroment.Snapshot import restore, simulation, snapshot
from Enviroment.Tasks import find_task
from Enviroment.Utils import make_env


def play(env, steps):
    action = np.full(env.action_space.shape, 0.1, np.float32)
    return [env.step(action)[0] for _ in range(steps)]


@pytest.mark.parametrize("name", ["PusherMemory", "ReacherMemory"])
def test_a_body_is_drawn_for_the_first_steps_of_each_episode_and_never_else_changed(name):
    task = find_task(name)
    hidden, seen = make_env(task), make_env(replace(task, keywords=task.keywords | {"after": 100}))
    original = copy.copy(simulation(hidden)[0])
    for seed in (1900, 1901):
        shown = [seen.reset(seed=seed)[0], *play(seen, 20)]
        obs = [hidden.reset(seed=seed)[0], *play(hidden, 15)]
        saved = snapshot(hidden, original)
        obs += play(hidden, 5)
        for step, (one, other) in enumerate(zip(shown, obs)):
            np.testing.assert_array_equal(one["State"], other["State"])
            assert np.array_equal(one["Frame"], other["Frame"]) == (step < task.keywords["after"])
        resumed = make_env(task)
        restore(resumed, saved, original)
        for one, other in zip(play(resumed, 5), obs[16:]):
            np.testing.assert_array_equal(one["Frame"], other["Frame"])
        resumed.close()
    seen.close()
    hidden.close()


def test_an_arm_is_held_until_no_stack_of_frames_shows_the_body():
    for task in map(find_task, ("PusherMemory", "ReacherMemory")):
        assert task.keywords["held"] > task.keywords["after"] - 1 + (task.stack - 1) * task.stack_stride
    env, free = (
        make_env(task, frames=False),
        make_env(replace(task, keywords=task.keywords | {"held": 0}), frames=False),
    )
    start, other = env.reset(seed=1900)[0]["State"], free.reset(seed=1900)[0]["State"]
    held, moves = play(env, task.keywords["held"] + 1), play(free, 1)
    angles = slice(0, 4)
    np.testing.assert_allclose(held[-2]["State"][angles], start[angles], atol=0.02)  # it begins almost at rest
    assert abs(held[-1]["State"][6] - held[-2]["State"][6]) > 0.01
    assert abs(moves[0]["State"][6] - other[6]) > 0.01
    env.close()
    free.close()
