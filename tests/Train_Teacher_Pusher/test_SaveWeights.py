"""A teacher acts as the SAC it was taken from."""

import gymnasium as gym
import numpy as np
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from Models.Model_Pusher import (
    SHIPPED_TEACHER,
    Teacher,
    get_Teacher_model,
)
from Train_Teacher_Pusher.SaveWeights import load_sac, teacher_from_sac


def test_the_teacher_acts_as_the_sac_it_was_taken_from(tmp_path):
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
    sac, statistics = load_sac(SHIPPED_TEACHER.with_name("sac.zip"))
    states = np.random.default_rng(0).normal(0, 0.5, (500, 23)).astype(np.float32)
    states[:, 17:] = np.array([0.45, -0.05, -0.275, 0.45, -0.05, -0.323], np.float32)
    expected, _ = sac.predict(statistics.normalize_obs(states), deterministic=True)
    np.testing.assert_allclose(get_Teacher_model().act({"State": states}), expected, atol=1e-6)
