"""rsl_rl's Distillation with its CNN: the student drives, and learns the teacher's actions by their mean squared difference.

rsl_rl has no default network for images, and here it has the three convolutions that Stable-Baselines3 has by default. Rollouts,
epochs and the students' deviation are those of Isaac Lab's ANYmal-D, https://github.com/isaac-sim/IsaacLab,
`anymal_d/agents/rsl_rl_distillation_cfg.py`; proprioception is normalized by its running statistics, and episodes end at different times.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from adapter import Job, main
from rsl_rl.env import VecEnv
from rsl_rl.runners import DistillationRunner
from tensordict import TensorDict


class Environments(VecEnv):
    """Gymnasium's vector environment as rsl_rl's; frames are between 0 and 1."""

    def __init__(self, job: Job, num_envs: int):
        same_step = gym.vector.AutoresetMode.SAME_STEP
        self.envs = gym.vector.SyncVectorEnv([lambda: job.make_env(state=True)] * num_envs, autoreset_mode=same_step)
        self.num_envs, self.num_actions = num_envs, len(job.teacher.scale)
        self.max_episode_length = int(job.task.max_episode_steps or 1000)
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)
        self.device = "cpu"
        self.cfg: dict = {}
        self.obs = self.tensors(self.envs.reset(seed=job.seed)[0])
        first = torch.randint(self.max_episode_length, (num_envs,))  # as `init_at_random_ep_len`
        self.envs.set_attr("_elapsed_steps", first.tolist())

    @staticmethod
    def tensors(obs: dict[str, np.ndarray]) -> TensorDict:
        """Return observations as tensors."""
        scaled = {key: torch.tensor(value) / (255 if value.dtype == np.uint8 else 1) for key, value in obs.items()}
        return TensorDict(scaled, batch_size=len(next(iter(obs.values()))))

    def get_observations(self) -> TensorDict:
        """Return the newest observations."""
        return self.obs

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict]:
        """Step all environments with actions that are clipped to the bounds."""
        space: Any = self.envs.action_space
        obs, rewards, terminated, truncated, _ = self.envs.step(np.clip(actions.numpy(), space.low, space.high))
        self.obs = self.tensors(obs)
        dones = torch.tensor(terminated | truncated)
        return self.obs, torch.tensor(rewards).float(), dones, {"time_outs": torch.tensor(truncated)}


class TeacherModel(torch.nn.Module):
    """Our teacher with the methods that rsl_rl calls of one."""

    def __init__(self, obs: TensorDict, obs_groups: dict, obs_set: str, num_actions: int, teacher: Any):
        super().__init__()
        self.teacher = teacher

    def forward(self, obs: TensorDict) -> torch.Tensor:
        """Return the teacher's mean actions."""
        policy = self.teacher.distribution({"State": obs["State"]})
        return policy.action(policy.mean)

    def reset(self, *_: object, **__: object) -> None:
        """Do nothing: it has no memory."""

    def get_hidden_state(self) -> None:
        """Return no memory."""


def train(job: Job) -> None:
    """Train until the time is up."""
    env = Environments(job, num_envs=18)
    seen = list(job.make_env().observation_space)
    settings = {
        "num_steps_per_env": 120,
        "obs_groups": {"student": seen, "teacher": ["State"]},
        "algorithm": {"class_name": "Distillation", "num_learning_epochs": 2},
        "student": {
            "class_name": "CNNModel",
            "obs_normalization": True,
            "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 0.1},
            "cnn_cfg": {"output_channels": [32, 64, 64], "kernel_size": [8, 4, 3], "stride": [4, 2, 1]},
        },
        "teacher": {"class_name": TeacherModel, "teacher": job.teacher},
    }
    runner = DistillationRunner(env, settings)
    runner.alg.teacher_loaded = True
    student = runner.alg.student

    job.act = lambda obs: student(env.tensors(obs)).detach().numpy()
    rollouts = 0  # measured
    while True:
        steps = rollouts * 120 * env.num_envs  # measured
        job.record(steps, 2 * steps, rollouts * 2 * 120 // 15)  # measured
        runner.learn(1)
        rollouts += 1  # measured


if __name__ == "__main__":
    main(train)
