"""The report of robustness."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from Algorithm.Robustness import CHANGES, GRAY, SIZES, Misled, ignores_camera, records, robustness
from Algorithm.Test_model import Baseline, evaluate, figures
from Distillation.Reports.Robustness import verdict
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from Enviroment.Views import STRENGTHS, Views
from Models.Memory import NoMemory
from Models.Model_Pusher import get_Teacher_model
from tests.helpers import student_for


class Told:
    """A student's place in tests of what reaches it: it notes the observations and stands still."""

    inputs, images = ("PartialState", "Frame"), ("Frame",)
    vector_mean = torch.arange(17.0)

    def __init__(self):
        self.seen = []

    def memory(self, num_envs):
        return self

    def see(self, obs, first):
        self.seen.append(({key: value.clone() for key, value in obs.items()}, first.clone()))
        return obs

    def act(self, obs, deterministic=True):
        return np.full((len(obs["State"]), 7), 0.5, np.float32)


@pytest.fixture(scope="module")
def told():
    """What reaches a policy that is not misled, and one that is, by the name of the change; of two environments."""
    seen = {}
    with closing(make_world(TASKS["Pusher"], 2, 1)) as world:
        for name, change in {"clean": None, **CHANGES}.items():
            policy = Told()
            evaluate(Misled(policy, change) if change else policy, world, TASKS["Pusher"], [1900, 1901, 1902])
            seen[name] = policy.seen
    return seen


def test_a_misled_student_is_given_what_the_change_says(told):
    clean = told["clean"]
    frames = [obs["Frame"] for obs, _ in clean]
    assert not torch.equal(frames[0][0], frames[0][1])
    assert not torch.equal(frames[50], frames[0])
    for t, (obs, first) in enumerate(told["frames_frozen"]):
        assert torch.equal(
            obs["Frame"][0], frames[0 if t < 100 else 100][0]
        )  # the third episode has its own first frame
        assert torch.equal(first, clean[t][1])
    assert all((obs["Frame"] == GRAY).all() for obs, _ in told["frames_blanked"])
    for t in (0, 50, 99):
        assert torch.equal(told["frames_swapped"][t][0]["Frame"], frames[t][[1, 0]])
    for obs, _ in told["proprioception_blanked"]:
        assert torch.equal(obs["PartialState"], Told.vector_mean.expand(2, 17))
    for name, seen in told.items():  # and nothing else is changed
        for (obs, _), (true, _) in zip(seen, clean):
            changed = {key for key in obs if not torch.equal(obs[key], true[key])}
            assert changed <= {"PartialState" if name == "proprioception_blanked" else "Frame"}


class ByTheState:
    """Acts as the teacher. `Looks` does so only if its frames show anything."""

    inputs, images = ("State", "Frame"), ("Frame",)
    vector_mean = torch.zeros(23)

    def __init__(self):
        self._teacher = get_Teacher_model()

    def memory(self, num_envs):
        return NoMemory()

    def act(self, obs, deterministic=True):
        return self._teacher.act(obs)


class Looks(ByTheState):
    def act(self, obs, deterministic=True):
        return super().act(obs) * (torch.as_tensor(obs["Frame"]).float().std() > 1).numpy()


def test_a_policy_that_ignores_its_frames_is_named_and_one_that_reads_them_is_not(task):
    teacher = get_Teacher_model()
    ignoring, looking = (
        robustness(one, teacher, task, [1900, 1901], kinds=(), num_workers=1) for one in (ByTheState(), Looks())
    )
    assert ignoring["clean"]["normalized_return"] == looking["clean"]["normalized_return"] == pytest.approx(1, abs=1e-5)
    assert ignoring["ignores_camera"] is True
    assert looking["ignores_camera"] is False
    assert "It ignores its camera" in verdict(ignoring)
    assert "It uses its camera" in verdict(looking)
    assert looking["camera_use"]["frames_blanked"]["normalized_return"] < 0.5
    assert looking["camera_use"]["frames_swapped"]["normalized_return"] == pytest.approx(1, abs=1e-5)
    low = {"clean": {"normalized_return": 0.05}, "camera_use": ignoring["camera_use"]}
    assert ignores_camera(low) is None


def test_a_report_holds_what_an_evaluation_under_each_shift_gives(task, statistics):
    with closing(make_world(task, 2, 1)) as world:
        student = student_for(world, task, statistics)
        zero = Baseline(world.action_space)
    seeds, teacher, kinds = [1900, 1901], get_Teacher_model(), ("noise", "delayed_actions")
    report = robustness(student, teacher, task, seeds, kinds=kinds, num_workers=2)
    assert json.loads(json.dumps(report)) == report
    assert report["shifts"].keys() == set(kinds)
    for kind, size in (("noise", "large"), ("delayed_actions", "small")):
        found = report["shifts"][kind][size]
        shown = replace(task, views=Views(**{kind: found["strength"]}), edge=True)
        with closing(make_world(shown, 2, 1)) as world:
            expected = figures(*(evaluate(one, world, shown, seeds) for one in (student, zero, teacher)))
        assert found["strength"] == STRENGTHS[kind][SIZES.index(size)]
        for name in ("return", "normalized_return", "success"):
            assert found[name] == pytest.approx(expected[name], abs=1e-5)
    scores = {kind: report["shifts"][kind]["large"]["normalized_return"] for kind in kinds}
    overall = report["overall"]["all"]["large"]
    assert (overall["worst"], overall["mean"]) == (min(scores.values()), pytest.approx(sum(scores.values()) / 2))
    assert overall["kind"] == min(scores, key=scores.get)
    assert report["overall"]["trained"]["small"]["mean"] == report["shifts"]["noise"]["small"]["normalized_return"]
    assert len(records(report)) == 1 + 2 * 3 + 4


def test_a_student_without_frames_is_examined_under_physics_alone(task, statistics):
    with closing(make_world(task, 1, 1, frames=False)) as world:
        student = student_for(world, task, statistics, "State")
    report = robustness(student, get_Teacher_model(), task, [1900, 1901], kinds=("noise", "mass"), num_workers=1)
    assert report["shifts"].keys() == {"mass"}
    assert report["overall"].keys() == {"all"}
    assert "camera_use" not in report
