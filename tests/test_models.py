import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

from Models.Base_Model import LOG_STD_MAX, LOG_STD_MIN
from Models.Files import BadFile
from Models.Model_Pusher import (
    FILTERS,
    SHIPPED_TEACHER,
    StateStatistics,
    Teacher,
    get_Teacher_model,
    load_student,
    make_student,
    save_student,
)
from Models.Utils import FrameStacker, screen, stack_ages

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
    model.learn_background(frames)
    assert (model.background == 200).all()
    still = {"Frame": torch.full((1, 4, 64, 128), 200, dtype=torch.uint8), "PartialState": torch.zeros(1, 17)}
    assert (model.features(still)[:, : model.backbone.out_features] == 0).all()


def test_constant_state_entries_are_left_alone():
    spread = StateStatistics(np.zeros(23), np.where(np.arange(23) == 5, 0.0, 1.0))
    assert spread.floored_std[5] == 1


def test_frame_stacks_against_a_naive_stack_across_episode_boundaries():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (40, 2, 3, 5), dtype=np.uint8)
    first = random.random((40, 2)) < 0.15
    first[0] = True
    stacker = FrameStacker(stack=4, stride=2)
    for t in range(40):
        stacks = stacker.reset(frames[0]) if t == 0 else stacker.push(frames[t], first[t])
        for n in range(2):
            start = max(s for s in range(t + 1) if first[s, n])
            for position, back in enumerate((6, 4, 2, 0)):
                np.testing.assert_array_equal(stacks[n, position], frames[max(t - back, start), n])


def test_stack_ages_fill_with_the_first_frame():
    np.testing.assert_array_equal(stack_ages(torch.tensor([0, 3, 9]), 4, 2), [[0, 0, 0, 0], [3, 3, 2, 0], [6, 4, 2, 0]])


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


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"format": "teacher", "weights": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(BadFile):
        get_Teacher_model(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_the_teacher_acts_as_the_sac_it_was_taken_from(tmp_path):
    from stable_baselines3 import SAC
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from Train_Teacher_Pusher.SaveWeights import teacher_from_sac

    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pusher-v5")] * 4), norm_reward=False)
    sac = SAC("MlpPolicy", env, learning_starts=100, policy_kwargs={"net_arch": [32, 32]}, seed=0)
    sac.learn(400)
    teacher_from_sac(sac, env).save(tmp_path / "teacher.pt", task="Pusher")
    ours = get_Teacher_model(tmp_path / "teacher.pt")
    states = env.get_original_obs().astype(np.float32)
    expected, _ = sac.predict(env.normalize_obs(states), deterministic=True)
    np.testing.assert_allclose(ours.act({"State": states}), expected, atol=1e-6)
    assert isinstance(ours, Teacher)


def test_the_shipped_teacher_acts_as_its_stable_baselines3_checkpoint():
    from Train_Teacher_Pusher.SaveWeights import load_sac

    sac, statistics = load_sac(SHIPPED_TEACHER.with_name("sac.zip"))
    states = np.random.default_rng(0).normal(0, 0.5, (500, 23)).astype(np.float32)
    states[:, 17:] = np.array([0.45, -0.05, -0.275, 0.45, -0.05, -0.323], np.float32)
    expected, _ = sac.predict(statistics.normalize_obs(states), deterministic=True)
    np.testing.assert_allclose(get_Teacher_model().act({"State": states}), expected, atol=1e-6)


def test_a_teacher_of_another_task_is_refused(teacher, tmp_path):
    teacher.save(tmp_path / "teacher.pt", task="Reacher")
    with pytest.raises(BadFile, match="Reacher"):
        get_Teacher_model(tmp_path / "teacher.pt", task="Pusher")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_screen_is_the_scaled_difference_to_the_background(dtype):
    frames = torch.randint(0, 256, (3, 4, 6, 10), dtype=torch.uint8)
    background = torch.rand(6, 10) * 255
    seen = screen(frames, background, dtype)
    assert torch.equal(seen, (frames.to(dtype) - background.to(dtype)) / 64)
    assert seen.dtype == dtype
    assert seen.is_contiguous(memory_format=torch.channels_last)
