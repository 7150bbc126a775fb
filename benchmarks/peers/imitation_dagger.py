"""imitation's DAgger, with Stable-Baselines3's features of images and vectors. All other settings are its defaults.

It takes no dictionaries as observations and asks its expert with the learner's own, so that here one vector holds the frames,
the proprioception and the state, and the learner's features leave the state out. Half of its data are the teacher's episodes,
the other half its own.
"""

from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from adapter import Job, main
from gymnasium.spaces.utils import flatten
from imitation.algorithms.bc import BC
from imitation.algorithms.dagger import SimpleDAggerTrainer
from imitation.data.types import Trajectory
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.vec_env import DummyVecEnv


def split(flat: torch.Tensor, spaces: Any) -> dict[str, torch.Tensor]:
    """Return the entries of a flattened observation [N, D]."""
    parts = flat.split([int(np.prod(space.shape)) for space in spaces.values()], dim=1)
    return {key: part.unflatten(1, spaces[key].shape) for key, part in zip(spaces, parts)}


class Features(CombinedExtractor):
    """The features of all entries but the state."""

    def __init__(self, space: gym.Space, spaces: gym.spaces.Dict, images: list[str]):
        super().__init__(gym.spaces.Dict({key: spaces[key] for key in spaces if key != "State"}))
        self.spaces, self.images = spaces, images

    def forward(self, flat: Any) -> torch.Tensor:
        """Return the features [N, F] of flattened observations [N, D]."""
        obs = split(flat, self.spaces)
        return super().forward(obs | {image: obs[image] / 255 for image in self.images})


class Expert(BasePolicy):
    """The teacher as a policy of Stable-Baselines3."""

    def __init__(self, job: Job, spaces: gym.spaces.Dict, env: DummyVecEnv):
        super().__init__(env.observation_space, env.action_space)
        self.teacher, self.spaces = job.teacher, spaces

    def _predict(self, flat: Any, deterministic: bool = False) -> torch.Tensor:
        return torch.from_numpy(self.teacher.act(split(flat, self.spaces)))


def train(job: Job) -> None:
    """Aggregate data, and then go on cloning them until the time is up."""
    spaces = job.make_env(state=True).observation_space
    env = DummyVecEnv([lambda: gym.wrappers.FlattenObservation(job.make_env(state=True))] * 8)
    env.seed(job.seed)
    policy = ActorCriticPolicy(
        env.observation_space,
        env.action_space,
        lr_schedule=lambda _: 1e-3,
        features_extractor_class=Features,
        features_extractor_kwargs={"spaces": spaces, "images": list(job.task.seen)},
    )
    rng = np.random.default_rng(job.seed)
    obs, actions, starts = job.demonstrations(0.5)
    flat: list[Any] = [flatten(spaces, {key: obs[key][i] for key in spaces}) for i in range(len(starts))]
    trajectories = [  # an episode's last observation has no action here
        Trajectory(np.stack(flat[first:end]), actions[first : end - 1], None, terminal=True)
        for first, end in zip(np.flatnonzero(starts), [*np.flatnonzero(starts)[1:], len(starts)])
    ]
    cloning = BC(
        observation_space=env.observation_space, action_space=env.action_space, policy=policy, rng=rng, device="cpu"
    )
    trainer = SimpleDAggerTrainer(
        venv=env,
        scratch_dir=job.given.scratch,
        expert_policy=Expert(job, spaces, env),
        expert_trajs=trajectories,
        bc_trainer=cloning,
        rng=rng,
    )

    def act(obs: dict[str, np.ndarray]) -> np.ndarray:
        rows: list[Any] = [flatten(spaces, {key: obs[key][i] for key in spaces}) for i in range(len(obs["State"]))]
        return policy.predict(np.stack(rows), deterministic=True)[0]

    job.act, updates = act, count(1)

    def measure() -> None:  # measured
        made = next(updates)  # measured
        collected = sum(map(len, trainer._all_demos))  # measured
        job.record(collected, made * cloning.batch_size, made)  # measured

    settings = {"on_batch_end": measure, "progress_bar": False, "log_rollouts_venv": None}
    trainer.train(job.given.frames - len(starts), bc_train_kwargs={"n_epochs": trainer.DEFAULT_N_EPOCHS, **settings})
    cloning.train(n_epochs=10**9, **settings)


if __name__ == "__main__":
    main(train)
