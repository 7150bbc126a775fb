"""imitation's behavioural cloning, with Stable-Baselines3's network for images and vectors. All other settings are its defaults."""

from itertools import count

import numpy as np
from adapter import Job, main
from imitation.algorithms.bc import BC
from imitation.data.types import DictObs, Transitions
from stable_baselines3.common.policies import MultiInputActorCriticPolicy


def train(job: Job) -> None:
    """Clone the dataset until the time is up."""
    obs, actions, _ = job.demonstrations()
    env = job.make_env()
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    seen = DictObs({key: obs[key] for key in env.observation_space})
    policy = MultiInputActorCriticPolicy(**spaces, lr_schedule=lambda _: 1e-3)
    infos, dones = np.array([{}] * len(actions)), np.zeros(len(actions), bool)
    trainer = BC(
        **spaces,
        policy=policy,
        demonstrations=Transitions(seen, actions, infos, seen, dones),  # its batches need next observations, unused
        rng=np.random.default_rng(job.seed),
        device="cpu",
    )
    job.act = lambda obs: policy.predict({key: obs[key] for key in env.observation_space}, deterministic=True)[0]
    updates = count(1)  # measured

    def measure() -> None:  # measured
        made = next(updates)  # measured
        job.record(len(actions), made * trainer.batch_size, made)  # measured

    trainer.train(n_epochs=10**9, progress_bar=False, on_batch_end=measure)


if __name__ == "__main__":
    main(train)
