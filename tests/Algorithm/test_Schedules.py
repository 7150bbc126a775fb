"""Schedules worked out by hand."""

import copy
import math

import pytest

from Algorithm.Config import DAggerConfig, PPDConfig
from Algorithm.PPD import PPD
from Algorithm.Schedules import Every, Until, cosine, falling, linear, schedule
from Common.Errors import BadSetting
from tests.Algorithm.trainers import SIZES, build


def test_numbers_on_their_way():
    assert linear(0.2, 0.6, 0.5) == pytest.approx(0.4)
    assert cosine(1.0, 0.0, 0.5) == pytest.approx(0.5)
    assert (cosine(3e-3, 1e-6, 0.0), cosine(3e-3, 1e-6, 1.0)) == (pytest.approx(3e-3), pytest.approx(1e-6))


@pytest.mark.parametrize(
    ("text", "expected"),  # at 0, 1/4, 1/2, 3/4 and 1
    [
        (5, [5, 5, 5, 5, 5]),
        ("5:1:linear", [5, 4, 3, 2, 1]),
        ("5:1:cosine", [5, 3 + math.sqrt(2), 3, 3 - math.sqrt(2), 1]),
        ("5:1@0.5:0:linear", [5, 3, 1, 0.5, 0]),
        ("5@0.25:1@0.75:linear", [5, 5, 3, 1, 1]),
        ("0:4@0.5:0:cosine", [0, 2, 4, 2, 0]),
    ],
)
def test_a_schedule_goes_through_its_numbers(text, expected):
    assert [schedule(text)(quarter / 4) for quarter in range(5)] == pytest.approx(expected)


def test_an_adaptive_schedule_follows_the_gap_and_nothing_else():
    adaptive = schedule("5:1:adaptive@2")
    assert [adaptive(0.9, gap) for gap in (math.inf, 2, 1, 0.5, 0)] == [5, 5, 3, 2, 1]


def test_a_number_that_falls_does_so_along_a_line_to_zero():
    assert [falling(0.8)(progress) for progress in (0, 0.5, 1)] == [0.8, 0.4, 0]
    assert falling("0.8:0.2:linear")(1) == 0.2
    assert not falling(0).changes


BAD = ("", "5:", "5:1", "linear", "5:linear", "5:1:straight", "5:3:1:linear", "5:1@0.5:0@0.5:linear", "5@-1:1:linear")
BAD += (
    "5:1@2:linear",
    "5:x:linear",
    "5:1:linear@2",
    "5:1:adaptive",
    "5:1:adaptive@0",
    "5:3@0.5:1:adaptive@2",
    "5: 1:linear",
)


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_schedule_is_refused_with_one_that_is(text):
    with pytest.raises(BadSetting, match=r"PPD_parameter.*5:0\.1:linear"):
        PPDConfig(PPD_parameter=text).check()


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (PPDConfig(PPD_parameter="5:-1:linear"), "at least 0"),
        (PPDConfig(PPD_parameter="5:nan:linear"), "finite"),
        (DAggerConfig(beta_mix="0.5:2@0.1:0:linear"), "at most 1"),
        (DAggerConfig(beta_mix="1:0:adaptive@2"), "falls to 0"),
    ],
)
def test_a_settings_limits_hold_for_all_numbers_of_its_schedule(config, hint):
    with pytest.raises(BadSetting, match=hint):
        config.check()


def test_scheduled_numbers_weigh_the_loss_and_are_in_the_metrics(env, task, statistics, teacher):
    config = PPDConfig(
        **SIZES, optimization_steps=5, PPD_parameter="4:0:linear", entropy_coefficient="0:8:adaptive@1e9"
    )
    trainer = build(env, task, statistics, PPD, "State", config, teacher=teacher)
    first = trainer.step(2)
    assert first["training/PPD_parameter"] == 3.5  # the mean of 4 and 3
    assert first["training/entropy_coefficient"] == 0  # nothing is known of the gap
    assert trainer.learner.gap == first["training/distillation_kl"]
    state = copy.deepcopy(trainer.state_dict())
    second = trainer.step(1)
    expected = 8 * (1 - first["training/distillation_kl"] / 1e9)
    assert second["training/entropy_coefficient"] == pytest.approx(expected)
    assert second["training/PPD_parameter"] == 2
    trainer.learner.gap = math.inf
    trainer.load_state_dict(state)
    assert trainer.learner.gap == first["training/distillation_kl"]
    assert str(trainer.step(1)) == str(second)


def test_a_constant_schedule_is_the_number_it_stands_for(env, task, statistics, teacher):
    def steps(value):
        config = PPDConfig(**SIZES, optimization_steps=4, PPD_parameter=value)
        trainer = build(env, task, statistics, PPD, "State", config, teacher=teacher)
        scalars = [trainer.step(2) for _ in range(2)]
        return [{key: x for key, x in each.items() if key != "training/PPD_parameter"} for each in scalars]

    assert str(steps(3)) == str(steps("3:3:linear"))
    assert str(steps(3)) != str(steps("3:0:linear"))


def test_until_ends_at_its_step():
    until = Until(3)
    assert [until(step) for step in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (Every(10), [0, 12, 24, 30]),
        (Every(10, early=4), [0, 6, 12, 24, 30]),  # 4 and 8 are noticed at 6 and 12
        (Every(100, early=10), [0, 12, 24, 30]),
        (Every(4, early=10), [0, 6, 12, 18, 24, 30]),
        (Every(0), []),
    ],
)
def test_every_is_due_once_for_each_multiple_reached_or_passed(every, due):
    assert [step for step in range(0, 31, 6) if every(step)] == due


def test_every_continues_from_where_it_was():
    every = Every(10)
    every.skip(25)
    assert every.next == 30
    assert not every(29)
    assert every(30)
    assert every.next == 40
