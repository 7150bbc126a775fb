"""sb3_distill's proximal policy distillation (Spigler 2025, https://openreview.net/forum?id=WfVXe88oMh), by its defaults.

Those are Stable-Baselines3's PPO's, but that the rollout's 2,048 steps are made by eight environments, and a weight of 1 of the
distillation. It asks the teacher with the student's observations, and needs a Gaussian over actions from it: here to first
order the teacher's own, around its mean action.
"""

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import torch
from adapter import Job, main
from sb3_distill import ProximalPolicyDistillation
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.vec_env import DummyVecEnv


class Features(CombinedExtractor):
    """The features of all entries but the state."""

    def __init__(self, space: Any):
        super().__init__(gym.spaces.Dict({key: space[key] for key in space if key != "State"}))


def train(job: Job) -> None:
    """Train until the time is up."""

    @torch.no_grad()
    def teacher(obs: dict[str, torch.Tensor]) -> DiagGaussianDistribution:
        policy = job.teacher.distribution({"State": obs["State"]})
        slope = torch.func.vmap(torch.func.vmap(torch.func.grad(policy.bound)))(policy.mean)
        log_std = policy.log_std + (policy.scale * slope.clamp(min=0.01)).log()
        return DiagGaussianDistribution(len(policy.scale)).proba_distribution(policy.action(policy.mean), log_std)

    env = DummyVecEnv([lambda: job.make_env(state=True)] * 8)
    features = {"features_extractor_class": Features}
    model = ProximalPolicyDistillation(
        "MultiInputPolicy", env, n_steps=256, seed=job.seed, device="cpu", policy_kwargs=features
    )
    model.set_teacher(SimpleNamespace(policy=SimpleNamespace(get_distribution=teacher)))
    job.act = lambda obs: model.predict(obs, deterministic=True)[0]

    def measure(*_: object) -> bool:  # measured
        rollouts = model._n_updates // model.n_epochs  # measured
        samples = rollouts * 2048 * model.n_epochs  # measured
        job.record(model.num_timesteps, samples, samples // model.batch_size)  # measured
        return True  # measured

    model.learn(10**9, callback=measure)


if __name__ == "__main__":
    main(train)
