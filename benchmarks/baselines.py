"""The same work as one writes it first: what the benchmarks compare with."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import Algorithm  # noqa: F401, isort: skip  # settles how threads wait before PyTorch is loaded
import cv2
import gymnasium as gym
import numpy as np
import torch

from Algorithm.Losses import distillation_kl
from Algorithm.PPD import PPD
from Algorithm.Rollout import Minibatch, Rollout
from Algorithm.Utils import episode_ages, open_dataset
from Common.Machine import resolve_precision
from Distillation import Utils
from Enviroment.My_wrapper import DictObservation, observation_space
from Enviroment.Tasks import TASKS, Task
from Enviroment.Utils import make_env
from Models.Base_Model import ActorCritic, Observation, SquashedGaussian
from Models.Model_Pusher import get_Teacher_model, make_student
from Models.Utils import FrameStacker, stack_ages


def untrained_student(task: Task, mode: str, device: torch.device) -> ActorCritic:
    """Return a student on a device, in the precision it trains in there."""
    teacher = get_Teacher_model()
    with gym.make(task.env_id) as env:
        state, actions = env.observation_space.shape, env.action_space
    assert state is not None
    assert isinstance(actions, gym.spaces.Box)
    space = observation_space(task, state[0], frames=mode != "State")
    student = make_student(mode, space, actions, task.proprioception, teacher.statistics, task.stack).to(device)
    student.precision = resolve_precision("auto", device)
    return student


class DefaultStudent(ActorCritic):
    """The student in default PyTorch: float32 and contiguous all the way, no autocast."""

    @classmethod
    def of(cls, task: Task, mode: str, device: torch.device) -> "DefaultStudent":
        """Return one on a device."""
        student = cls(**untrained_student(task, mode, device).arguments)
        return student.to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def features(self, obs: Observation) -> torch.Tensor:
        """Return the features."""
        vector = (obs[self._vector] - self.vector_mean) / self.vector_std
        if self.backbone is None:
            return vector
        seen = self.backbone((obs["Frame"].float() - self.background) / 64)
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
        camera = self._task.camera
        picture: Any = self.env.render()
        crop = picture[slice(*camera.rows), slice(*camera.columns)]
        small = cv2.resize(crop, self._task.frame_size[::-1], interpolation=cv2.INTER_AREA)
        return {**observation, "Frame": cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)}


class StockVectorEnv(gym.vector.SyncVectorEnv):
    """Stock environments one after the other, and what PPO asks of a vector environment."""

    def __init__(self, task: Task, num_envs: int):
        camera = task.camera
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

    def step(self, actions: np.ndarray) -> Any:
        """Step; `final_obs` as a dictionary of arrays."""
        obs, reward, terminated, truncated, info = super().step(actions)
        if "final_obs" in info:
            last = [final or {key: value[0] for key, value in obs.items()} for final in info["final_obs"]]
            info["final_obs"] = {key: np.stack([final[key] for final in last]) for key in obs}
        return obs, reward, terminated, truncated, info

    def stagger(self, first: int, total: int) -> None:
        """Leave the episodes in step: it does not change what a step costs."""


class StockRollout(Rollout):
    """Keeps every stack, in float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.frames is not None
        shape = (self.steps + 1, self.num_envs, self.stack, *self.frames.shape[2:])
        self.stacks = torch.zeros(shape, device=self.device)

    def write_observation(self, t: int, obs: dict[str, np.ndarray], first: np.ndarray) -> None:
        """Keep the stacks that step t begins with."""
        super().write_observation(t, obs, first)
        self.stacks[t] = super().observation(t)["Frame"].float()

    def observation(self, t: int) -> Observation:
        """Return the stacks kept."""
        return {key: vector[t] for key, vector in self.vectors.items()} | {"Frame": self.stacks[t]}

    def minibatch(self, indices: torch.Tensor) -> Minibatch:
        """Gather samples."""
        batch = super().minibatch(indices)
        batch.obs["Frame"] = self.stacks.flatten(0, 1)[indices]
        return batch

    def carry_over(self) -> None:
        """Begin the next rollout where this one ended."""
        super().carry_over()
        self.stacks[0] = self.stacks[-1]


class StockPPD(PPD):
    """PPD over `StockRollout`, with plain Adam."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        old = self.rollout
        self.rollout = StockRollout(
            old.space, old.action_size, old.steps, old.num_envs, old.stack, old.stride, old.device
        )
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=self.config.learning_rate, eps=1e-5)


def sb3_ppo(open_things: ExitStack, config: Utils.PPD) -> Callable[[], dict[str, Any]]:
    """Return what makes one rollout and its updates with Stable-Baselines3's PPO: same frames, network and batches."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import DummyVecEnv

    task = TASKS["Pusher"]
    student = untrained_student(task, config.mode, torch.device("cpu"))
    assert student.backbone is not None

    class Seen(gym.Wrapper):
        """What the student sees, stacked."""

        def __init__(self, env: gym.Env):
            super().__init__(env)
            self._stacker = FrameStacker(task.stack, task.stack_stride)
            spaces = env.observation_space
            frame = gym.spaces.Box(0, 255, (task.stack, *task.frame_size), np.uint8)
            self.observation_space = gym.spaces.Dict({"PartialState": spaces["PartialState"], "Frame": frame})  # type: ignore[index]

        def reset(self, **named: Any) -> Any:
            obs, info = self.env.reset(**named)
            return self._seen(obs, self._stacker.reset(obs["Frame"][None])), info

        def step(self, action: np.ndarray) -> Any:
            obs, *rest = self.env.step(action)
            return self._seen(obs, self._stacker.push(obs["Frame"][None], np.zeros(1, bool))), *rest

        @staticmethod
        def _seen(obs: dict[str, np.ndarray], stack: np.ndarray) -> dict[str, np.ndarray]:
            return {"PartialState": obs["PartialState"], "Frame": stack[0]}

    class Features(BaseFeaturesExtractor):
        """The student's backbone and lift."""

        def __init__(self, space: gym.spaces.Dict):
            super().__init__(space, student.actor[0].in_features)  # type: ignore[arg-type]
            self.backbone = student.backbone.to(memory_format=torch.contiguous_format)  # type: ignore[union-attr, call-overload]
            self.lift = student.lift

        def forward(self, obs: Observation) -> torch.Tensor:
            return torch.cat([self.backbone(obs["Frame"]), self.lift(obs["PartialState"])], dim=1)

    env = DummyVecEnv([lambda: Seen(make_env(task))] * config.num_envs)
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
        device=config.device,
        policy_kwargs={
            "features_extractor_class": Features,
            "net_arch": [hidden, hidden],
            "activation_fn": torch.nn.SiLU,
        },
    )

    def call() -> dict[str, Any]:
        model.learn(config.rollout_steps * config.num_envs, reset_num_timesteps=False)
        return {}

    return call


def dataloader_cloning(
    _: ExitStack, mode: str, device: str, folder: Path, minibatch_size: int, updates: int
) -> Callable[[], dict[str, Any]]:
    """Return what makes so many updates of cloning from stacked float32 tensors in a `DataLoader`."""
    task = TASKS["Pusher"]
    where = torch.device(device)
    data = open_dataset(folder).fields
    index = torch.arange(len(data["seed"]))
    rows = index[:, None] - stack_ages(episode_ages(data["episode_start"]), task.stack, task.stack_stride)
    samples = torch.utils.data.TensorDataset(
        torch.from_numpy(data["frame"])[rows].float(),
        *(torch.from_numpy(data[name]) for name in ("proprioception", "mean", "log_std")),
    )
    loader = torch.utils.data.DataLoader(samples, minibatch_size, shuffle=True, drop_last=True)
    student = DefaultStudent.of(task, mode, where)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-4)
    batches = iter(loader)

    def call() -> dict[str, Any]:
        nonlocal batches
        for _ in range(updates):
            try:
                batch = next(batches)
            except StopIteration:
                batches = iter(loader)
                batch = next(batches)
            frame, proprioception, mean, log_std = (part.to(where) for part in batch)
            policy = student.distribution({"Frame": frame, "PartialState": proprioception})
            teacher = SquashedGaussian(mean, log_std, student.scale, student.shift)
            loss = distillation_kl(teacher, policy).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            loss.item()
        return {}

    return call
