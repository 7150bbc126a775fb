"""Stable-Baselines3's PPO from pixels, which has no teacher.

Its defaults but for the rollout, whose 2,048 steps are made by eight environments.
"""

from adapter import Job, main
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv


def train(job: Job) -> None:
    """Train until the time is up."""
    env = DummyVecEnv([job.make_env] * 8)
    model = PPO("MultiInputPolicy", env, n_steps=256, seed=job.seed, device="cpu")
    seen = list(job.make_env().observation_space)
    job.act = lambda obs: model.predict({key: obs[key] for key in seen}, deterministic=True)[0]

    def measure(*_: object) -> bool:  # measured
        rollouts = model._n_updates // model.n_epochs  # measured
        samples = rollouts * 2048 * model.n_epochs  # measured
        job.record(model.num_timesteps, samples, samples // model.batch_size)  # measured
        return True  # measured

    model.learn(10**9, callback=measure)


if __name__ == "__main__":
    main(train)
