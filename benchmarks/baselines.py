"""The same work as one writes it first: what the benchmarks compare with."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common  # noqa: F401, isort: skip  # this repository, and how threads wait, before PyTorch is loaded
import cv2
import gymnasium as gym
import numpy as np
import torch
from common import Stacked, untrained_student

from Algorithm.Dataset import episode_ages, open_dataset
from Algorithm.Losses import distillation_kl
from Algorithm.PPD import PPD
from Algorithm.Rollout import Minibatch, Rollout
from Distillation.Utils import PPDExperiment
from Enviroment.My_wrapper import DictObservation, observation_space
from Enviroment.Tasks import TASKS, Task
from Enviroment.Utils import make_env
from Enviroment.World import Step
from Models.Base_Model import ActorCritic
from Models.Memory import FrameStack, Observation


class DefaultStudent(ActorCritic):
    """The student in default PyTorch: float32 and contiguous all the way, no autocast."""

    @classmethod
    def of(cls, task: Task, mode: str, device: torch.device) -> "DefaultStudent":
        """Return one on a device."""
        student = cls(**untrained_student(task, mode, device).arguments)
        return student.to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def features(self, obs: Observation) -> torch.Tensor:
        """Return the features."""
        vector = (obs[str(self._vector)] - self.vector_mean) / self.vector_std
        if not self.images:
            return vector
        (image,) = self.images
        seen = self.encoders[0].backbone((obs[image].float() - self.background(image)) / 64)
        return torch.cat([seen, self.lift(vector)], dim=1)


class StockFrames(gym.ObservationWrapper):
    """Adds `Frame` the usual way: Gymnasium renders the whole view, OpenCV crops, scales and grays it."""

    def __init__(self, env: gym.Env, task: Task):
        super().__init__(env)
        self._task = task
        state = env.observation_space["State"].shape  # type: ignore[index]
        self.observation_space = observation_space(task, state[0], frames=True)

    def observation(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add the frame."""
        (camera,) = self._task.seen.values()
        picture: Any = self.env.render()
        crop = picture[slice(*camera.rows), slice(*camera.columns)]
        small = cv2.resize(crop, camera.size[::-1], interpolation=cv2.INTER_AREA)
        return {**observation, "Frame": cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)}


class StockVectorEnv(gym.vector.SyncVectorEnv):
    """Stock environments with frames, one after the other."""

    def __init__(self, task: Task, num_envs: int):
        (camera,) = task.seen.values()
        view = {
            "distance": camera.distance,
            "lookat": np.array(camera.lookat),
            "azimuth": camera.azimuth,
            "elevation": camera.elevation,
            "trackbodyid": -1,
        }

        def make() -> gym.Env:
            env = gym.make(
                task.env_id, render_mode="rgb_array", width=camera.view, height=camera.view, default_camera_config=view
            )
            return StockFrames(DictObservation(env, task), task)

        super().__init__([make] * num_envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)


class StockWorld:
    """A `StockVectorEnv` with the part of a `World` that a rollout needs."""

    def __init__(self, task: Task, num_envs: int):
        self._env = StockVectorEnv(task, num_envs)
        self.spaces, self.action_space = self._env.single_observation_space, self._env.single_action_space
        self.num_envs, self.device = num_envs, torch.device("cpu")

    def reset(self, seeds: Sequence[int]) -> Observation:
        """Start a new episode in every environment."""
        return _tensors(self._env.reset(seed=list(seeds))[0])

    def step(self, actions: torch.Tensor) -> Step:
        """Step every environment."""
        obs, reward, terminated, truncated, info = self._env.step(actions.numpy())
        last = obs
        if "final_obs" in info:
            rows = [final or {key: value[0] for key, value in obs.items()} for final in info["final_obs"]]
            last = {key: np.stack([row[key] for row in rows]) for key in obs}
        ends = torch.from_numpy(terminated), torch.from_numpy(truncated)
        return Step(_tensors(obs), torch.from_numpy(reward), *ends, _tensors(last), {})

    def stagger(self, first: int, total: int) -> None:
        """Leave the episodes in step: it does not change what a step costs."""

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


def _tensors(arrays: dict[str, np.ndarray]) -> Observation:
    return {key: torch.from_numpy(values) for key, values in arrays.items()}


class StockRollout(Rollout):
    """Keeps every stack, in float32."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        shape = self.steps + 1, self.num_envs, self._stack.length
        self._kept = {
            key: torch.zeros((*shape, *frames.shape[2:]), device=self.device) for key, frames in self.frames.items()
        }

    def write_observation(self, t: int, obs: Observation, first: torch.Tensor) -> None:
        """Keep the stacks that step t begins with."""
        super().write_observation(t, obs, first)
        stacked = super().observation(t)
        for key, stacks in self._kept.items():
            stacks[t] = stacked[key].float()

    def observation(self, t: int) -> Observation:
        """Return the stacks kept."""
        return {key: kept[t] for key, kept in (self.vectors | self._kept).items()}

    def minibatch(self, indices: torch.Tensor) -> Minibatch:
        """Gather samples."""
        batch = super().minibatch(indices)
        for key, stacks in self._kept.items():
            batch.obs[key] = stacks.flatten(0, 1)[indices]
        return batch

    def carry_over(self) -> None:
        """Begin the next rollout where this one ended."""
        super().carry_over()
        for stacks in self._kept.values():
            stacks[0] = stacks[-1]


class StockPPD(PPD):
    """PPD over `StockRollout`, with plain Adam."""

    def __init__(self, *arguments: Any, **named: Any):
        with patch("Algorithm.PPO.Rollout", StockRollout):
            super().__init__(*arguments, **named)
        self.learner.optimizer = torch.optim.Adam(self.student.parameters(), lr=self.config.learning_rate, eps=1e-5)


def sb3_ppo(open_things: ExitStack, experiment: PPDExperiment) -> Callable[[], dict[str, Any]]:
    """Return what makes one rollout and its updates with Stable-Baselines3's PPO: same frames, network and batches."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    task, config = TASKS["Pusher"], experiment.method
    student = untrained_student(task, experiment.student.mode, torch.device("cpu"))
    env = DummyVecEnv([lambda: Stacked(make_env(task), task)] * config.num_envs)
    open_things.callback(env.close)
    hidden: int = student.arguments["hidden"]
    model = PPO(
        "MultiInputPolicy",
        env,
        n_steps=config.rollout_steps,
        batch_size=config.minibatch_size,
        n_epochs=config.epochs,
        clip_range=config.clip,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        device=experiment.place.device,
        policy_kwargs={
            "features_extractor_class": _sb3_features(student),
            "net_arch": [hidden, hidden],
            "activation_fn": torch.nn.SiLU,
        },
    )

    def call() -> dict[str, Any]:
        model.learn(config.rollout_steps * config.num_envs, reset_num_timesteps=False)
        return {}

    return call


def _sb3_features(student: ActorCritic) -> type:
    """Return a student's backbone and lift as Stable-Baselines3 wants them."""
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    backbone = student.encoders[0].backbone.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    class Features(BaseFeaturesExtractor):
        def __init__(self, space: gym.spaces.Dict):
            super().__init__(space, student.actor[0].in_features)  # type: ignore[arg-type]
            self.backbone, self.lift = backbone, student.lift

        def forward(self, obs: Observation) -> torch.Tensor:
            return torch.cat([self.backbone(obs["Frame"]), self.lift(obs["PartialState"])], dim=1)

    return Features


def dataloader_cloning(
    _: ExitStack, mode: str, device: str, folder: Path, minibatch_size: int, updates: int
) -> Callable[[], dict[str, Any]]:
    """Return what makes so many updates of cloning from stacked float32 tensors in a `DataLoader`."""
    task = TASKS["Pusher"]
    where = torch.device(device)
    data = open_dataset(folder).fields
    index = torch.arange(len(data["seed"]))
    rows = index[:, None] - FrameStack(task.stack, task.stack_stride).steps_back(episode_ages(data["episode_start"]))
    samples = torch.utils.data.TensorDataset(
        torch.from_numpy(data["frame"])[rows].float(),
        *(torch.from_numpy(data[name]) for name in ("proprioception", "mean", "log_std")),
    )
    loader = torch.utils.data.DataLoader(samples, minibatch_size, shuffle=True, drop_last=True)
    student = DefaultStudent.of(task, mode, where)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-4)
    batches = chain.from_iterable(repeat(loader))  # epoch after epoch

    def call() -> dict[str, Any]:
        for batch in islice(batches, updates):
            frame, proprioception, mean, log_std = (part.to(where) for part in batch)
            policy = student.distribution({"Frame": frame, "PartialState": proprioception})
            teacher = student.gaussian(mean, log_std)
            loss = distillation_kl(teacher, policy).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            loss.item()
        return {}

    return call
