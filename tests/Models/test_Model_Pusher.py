"""Students, teachers and their files."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

from Algorithm.Checkpoint import Checkpoint
from Algorithm.Policies import load_policy
from Common.Errors import BadFile
from Common.Files import RESULTS, load_tensors
from Models.Distributions import LOG_STD_MAX, LOG_STD_MIN, ClippedGaussian
from Models.Model_Pusher import (
    FILTERS,
    SHIPPED_TEACHER,
    StateStatistics,
    get_Teacher_model,
    load_student,
    make_student,
    save_student,
)

SPACE = gym.spaces.Dict(
    {
        "State": gym.spaces.Box(-np.inf, np.inf, (23,), np.float32),
        "PartialState": gym.spaces.Box(-np.inf, np.inf, (17,), np.float32),
        "Frame": gym.spaces.Box(0, 255, (64, 128), np.uint8),
    }
)
ACTIONS = gym.spaces.Box(-2.0, 2.0, (7,), np.float32)


def student(mode, statistics):
    torch.manual_seed(0)
    return make_student(mode, SPACE, ACTIONS, range(17), statistics, stack=4)


def observation(n=3):
    random = np.random.default_rng(0)
    state = random.standard_normal((n, 23)).astype(np.float32)
    frames = random.integers(0, 256, (n, 4, 64, 128), dtype=np.uint8)
    return {"State": state, "PartialState": state[:, :17], "Frame": frames}


@pytest.mark.parametrize("mode", FILTERS)
def test_every_mode_acts_within_bounds_and_survives_a_file(mode, statistics, tmp_path):
    model = student(mode, statistics)
    actions = model.act(observation())
    assert actions.shape == (3, 7)
    assert actions.dtype == np.float32
    assert (np.abs(actions) <= 2).all()
    save_student(tmp_path / "student.pt", model, {"mode": mode})
    np.testing.assert_array_equal(load_student(tmp_path / "student.pt").act(observation()), actions)


def test_a_student_has_its_teachers_family_and_files_from_before_are_squashed(statistics, tmp_path):
    made = make_student("State", SPACE, ACTIONS, range(17), statistics, stack=4, family="clipped")
    save_student(tmp_path / "student.pt", made, {})
    loaded = load_student(tmp_path / "student.pt")
    assert isinstance(loaded.distribution(loaded.to_tensors(observation())), ClippedGaussian)
    before = student("State", statistics)
    del before.arguments["family"]
    save_student(tmp_path / "student.pt", before, {})
    assert load_student(tmp_path / "student.pt").family == "squashed"


def test_a_student_does_not_look_at_what_it_is_not_given(statistics):
    model, obs = student("ImpaalaSmall", statistics), observation()
    hidden = {**obs, "State": np.full_like(obs["State"], np.nan)}
    np.testing.assert_array_equal(model.act(hidden), model.act(obs))
    moved = {**obs, "Frame": obs["Frame"][:, ::-1].copy()}
    assert not np.array_equal(model.act(moved), model.act(obs))


def test_log_std_stays_in_its_range_with_a_gradient_and_starts_inside(statistics):
    model, obs = student("State", statistics), observation()
    log_std = model.distribution(model.to_tensors(obs)).log_std
    assert (log_std > LOG_STD_MIN + 0.1).all()
    assert (log_std < LOG_STD_MAX - 0.1).all()
    with torch.no_grad():
        model.actor[-1].bias[7:] = 4.0
    policy = model.distribution(model.to_tensors(obs))
    policy.log_std.sum().backward()
    assert (policy.log_std <= LOG_STD_MAX).all()
    assert (model.actor[-1].bias.grad[7:] > 0).all()


def test_bf16_agrees_with_fp32(statistics):
    model, obs = student("ImpaalaMid", statistics), observation()
    exact = model.value(model.to_tensors(obs))
    model.precision = "bf16"
    torch.testing.assert_close(model.value(model.to_tensors(obs)), exact, rtol=0.05, atol=0.05)


def test_what_stands_still_is_taken_out_of_the_picture(statistics):
    model = student("ImpaalaSmall", statistics)
    frames = np.full((9, 64, 128), 200, np.uint8)
    frames[np.arange(9), :, np.arange(9)] = 255  # something in another place in every frame
    model.learn_background("Frame", frames)
    assert (model.background("Frame") == 200).all()
    still = {"Frame": torch.full((1, 4, 64, 128), 200, dtype=torch.uint8), "PartialState": torch.zeros(1, 17)}
    assert (model.features(still)[:, : model.encoders[0].backbone.out_features] == 0).all()


TWO_CAMERAS = gym.spaces.Dict(
    {
        **SPACE.spaces,
        "Frame": gym.spaces.Box(0, 255, (3, 16, 32), np.uint8),
        "side": gym.spaces.Box(0, 255, (24, 24), np.uint8),
    }
)


@pytest.mark.parametrize("proprioception", [range(17), None])
def test_a_student_has_a_backbone_for_each_camera_and_perhaps_nothing_else(proprioception, statistics, tmp_path):
    torch.manual_seed(0)
    made = make_student("ImpaalaSmall", TWO_CAMERAS, ACTIONS, proprioception, statistics, stack=2)
    shapes = {"PartialState": (17,), "Frame": (2, 3, 16, 32), "side": (2, 24, 24)}
    if proprioception is None:
        del shapes["PartialState"]
    assert made.input_shapes == shapes
    random = np.random.default_rng(0)
    obs = {"PartialState": np.zeros((5, 17), np.float32)}
    obs |= {image: random.integers(0, 256, (5, *shapes[image]), dtype=np.uint8) for image in made.images}
    save_student(tmp_path / "student.pt", made, {})
    actions = load_student(tmp_path / "student.pt").act(obs)
    np.testing.assert_array_equal(actions, made.act(obs))
    for key in shapes:  # it depends on every input
        assert not np.array_equal(made.act({**obs, key: obs[key] + np.ones((), obs[key].dtype)}), actions)
    assert [encoder.backbone.stages[0].in_channels for encoder in made.encoders] == [6, 2]


def test_a_student_that_keeps_its_background_begins_at_the_middle_gray(statistics):
    made = make_student("ImpaalaSmall", TWO_CAMERAS, ACTIONS, range(17), statistics, stack=2, background=False)
    made.learn_background("Frame", np.full((9, 3, 16, 32), 200, np.uint8))
    assert (made.background("Frame") == 128).all()


def test_a_student_and_a_checkpoint_from_before_there_were_several_cameras_act_as_they_did(tmp_path):
    path = RESULTS / "Pusher" / "Students" / "DAgger.pt"
    content = load_tensors(path, "student")
    assert "frame_shape" in content["arguments"]
    random = np.random.default_rng(0)
    obs = {"Frame": random.integers(0, 256, (5, 4, 64, 128), dtype=np.uint8)}
    obs["PartialState"] = random.standard_normal((5, 17)).astype(np.float32)
    actions = load_student(path).act(obs)
    was = [1.99999, -1.80186, -0.17262, -0.8541, -1.96928, -1.93292, -1.99863]
    np.testing.assert_allclose(actions[0], was, atol=2e-5)
    student = {key: content[key] for key in ("policy", "arguments", "card") if key in content}
    counts = {"elapsed_s": 0.0, "best_return": 0.0, "next_test": 0, "rows": 0, "rows_crc32": 0, "wandb_id": None}
    trainer = {"student": content["weights"], "counters": [0, 0, 0]}
    Checkpoint(trainer=trainer, student=student, settings={}, collapse=[], **counts).save(tmp_path / "last.pt")
    np.testing.assert_array_equal(load_policy(tmp_path / "last.pt")[0].act(obs), actions)


def test_constant_state_entries_are_left_alone():
    spread = StateStatistics(np.zeros(23), np.where(np.arange(23) == 5, 0.0, 1.0))
    assert spread.floored_std[5] == 1


def test_the_shipped_teacher_loads_without_stable_baselines3():
    code = "import sys; from Models.Model_Pusher import get_Teacher_model as g; g(); print('stable_baselines3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_teacher_survives_its_file(teacher, tmp_path):
    teacher.save(tmp_path / "teacher.pt", task="Pusher")
    np.testing.assert_array_equal(
        get_Teacher_model(tmp_path / "teacher.pt").act(observation()), teacher.act(observation())
    )


def test_bad_files_are_refused(teacher, statistics, tmp_path):
    truncated, student_file, text = tmp_path / "cut.pt", tmp_path / "student.pt", tmp_path / "text.pt"
    truncated.write_bytes(SHIPPED_TEACHER.read_bytes()[:5000])
    save_student(student_file, student("State", statistics), {})
    text.write_text("not a teacher")
    for path in (tmp_path / "missing.pt", truncated, student_file, text, tmp_path):
        with pytest.raises(BadFile, match=str(path.name)):
            get_Teacher_model(path)


def test_a_teacher_of_another_task_is_refused(teacher, tmp_path):
    teacher.save(tmp_path / "teacher.pt", task="Reacher")
    with pytest.raises(BadFile, match="Reacher"):
        get_Teacher_model(tmp_path / "teacher.pt", task="Pusher")


def test_a_student_that_only_acts_needs_no_predictor():
    statistics = StateStatistics(np.zeros(23), np.ones(23))
    trained = make_student("ImpaalaSmall", SPACE, ACTIONS, range(17), statistics, stack=4, predicts=True).eval()
    acting = trained.for_acting()
    obs = {"PartialState": torch.randn(2, 17), "Frame": torch.randint(0, 256, (2, 4, 64, 128), dtype=torch.uint8)}
    assert np.array_equal(acting.act(obs), trained.act(obs))
    assert acting.predictor is None
    assert type(acting)(**acting.arguments).state_dict().keys() == acting.state_dict().keys()


def test_a_critic_of_the_state_needs_nothing_else_and_leaves_the_features_to_the_actor(statistics):
    torch.manual_seed(0)
    trained = make_student(
        "ImpaalaSmall", SPACE, ACTIONS, range(17), statistics, stack=4, predicts=True, critic="state"
    )
    obs = {key: torch.from_numpy(value) for key, value in observation().items()}
    policy, value, *_ = trained(obs)
    assert torch.equal(value, trained.value({"State": obs["State"]}))
    value.sum().backward()
    assert {name for name, weight in trained.named_parameters() if weight.grad is not None} == {
        name for name, _ in trained.named_parameters() if name.startswith("state_critic")
    }
    assert set(trained.training_inputs) == {"State", "PartialState", "Frame"}
    acting = trained.for_acting()
    assert torch.equal(acting.distribution({key: obs[key] for key in acting.inputs}).mean, policy.mean)
    assert set(acting.training_inputs) == {"PartialState", "Frame"}
    assert not [name for name in acting.state_dict() if "state" in name or "predict" in name or "critic" in name]
    assert not acting.arguments["state_mean"]


def test_a_rebuilt_student_has_the_weights_that_it_shares_and_the_background_that_it_learned(statistics):
    first = np.full((3, 64, 128), 7, np.uint8)
    source = student("ImpaalaSmall", statistics)
    source.learn_background("Frame", first)
    copy = source.rebuilt(critic="state", state_mean=[0.0] * 23, state_std=[1.0] * 23)
    copy.learn_background("Frame", first + 50)
    assert torch.equal(copy.background("Frame"), torch.full((64, 128), 7.0))
    np.testing.assert_array_equal(copy.act(observation()), source.act(observation()))
    assert copy.critic is None
    again = copy.rebuilt(critic="same", state_mean=[], state_std=[])
    assert not torch.equal(again.critic[0].weight, source.critic[0].weight)


def test_a_student_of_the_state_is_the_same_with_either_critic(statistics):
    students = []
    for critic in ("same", "state"):
        torch.manual_seed(0)
        students.append(make_student("State", SPACE, ACTIONS, range(17), statistics, stack=4, critic=critic))
    one, other = students
    assert one.arguments == other.arguments
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())
