"""What a camera knows: a small network learns to read entries of the state from the frames that a student would see."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from Algorithm.Dataset import Arrays, field
from Algorithm.Episodes import run_episodes
from Common.Machine import resolve_precision
from Enviroment.World import World
from Models.Base_Model import GaussianPolicy
from Models.Impoola import Impoola, head
from Models.Memory import FrameStack, Observation, is_image
from Models.Utils import screen

UPDATES, BATCH = 300, 64
CONSTANT = 1e-4  # an entry of a smaller standard deviation is not worth reading


@dataclass(frozen=True)
class Watched:
    """Steps of N environments that a policy drove.

    Attributes:
        frames: uint8 [T, N, ...] of each image.
        state: float32 [T, N, S].
        mean, log_std: of the policy, float32 [T, N, A].
        age: int [T, N], the steps since the episode's first.
    """

    frames: dict[str, torch.Tensor]
    state: torch.Tensor
    mean: torch.Tensor
    log_std: torch.Tensor
    age: torch.Tensor

    def stacks(self, image: str, t: torch.Tensor, n: torch.Tensor, stack: FrameStack) -> torch.Tensor:
        """Return an image's stacks uint8 [B, length, ...] of steps `t` int [B] in environments `n` int [B]."""
        return self.frames[image][t[:, None] - stack.steps_back(self.age[t, n]), n[:, None]]

    def fields(self, proprioception: Sequence[int]) -> Arrays:
        """Return them as the fields of a dataset, environment after environment."""
        n, state = self.age.shape[1], self.state.transpose(0, 1).flatten(0, 1)
        own = {field(image): frames for image, frames in self.frames.items()}
        own |= {"mean": self.mean, "log_std": self.log_std, "episode_start": self.age == 0}
        fields = {name: values.transpose(0, 1).flatten(0, 1).numpy() for name, values in own.items()}
        fields["episode_start"][:: len(self.age)] = True
        seeds = np.repeat(np.arange(n), len(self.age))
        return fields | {
            "state": state.numpy(),
            "proprioception": state[:, list(proprioception)].numpy(),
            "seed": seeds,
        }


@torch.no_grad()
def watch(world: World, policy: GaussianPolicy, steps: int, first_seed: int) -> Watched:
    """Let a policy's sampled actions drive the environments for some steps, episode after episode."""
    images = [key for key, space in world.spaces.items() if is_image(space)]
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in (*images, "state", "mean", "log_std", "age")}
    age = torch.full((world.num_envs,), -1)

    def act(obs: Observation, first: torch.Tensor) -> torch.Tensor:
        nonlocal age
        pi = policy.distribution(policy.to_tensors(obs))
        age = torch.where(first, 0, age + 1)
        now = {"state": obs["State"], "mean": pi.mean, "log_std": pi.log_std, "age": age}
        for name, values in (now | {image: obs[image] for image in images}).items():
            kept[name].append(values.cpu().clone())
        return pi.action(pi.sample()).cpu()

    seeds = range(first_seed, first_seed + world.num_envs * steps)  # enough, even for episodes of one step
    with torch.random.fork_rng():
        torch.manual_seed(first_seed)
        for _ in run_episodes(world, seeds, act):
            if len(kept["age"]) == steps:
                break
    stacked = {name: torch.stack(values) for name, values in kept.items()}
    return Watched({image: stacked.pop(image) for image in images}, **stacked)


def read_states(watched: Watched, image: str, entries: Sequence[int], stack: FrameStack) -> dict[int, float]:
    """Return how much of each entry of the state a probe reads from an image's stacks: R^2 on held-out episodes.

    The probe is a small Impoola network, trained on three quarters of the environments for 300 updates of 64 samples. R^2 is
    1 for an entry that it reads exactly, and 0 or less for one of which it knows no more than the mean. Entries that do not
    move are left out.
    """
    values = watched.state[..., list(entries)]
    n = values.shape[1]
    tested = max(1, n // 4)
    known, held_out = values[:, tested:].flatten(0, 1), values[:, :tested].flatten(0, 1)
    mean, std = known.mean(0), known.std(0)
    moving = (std > CONSTANT) & (held_out.std(0) > CONSTANT)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        read = _train(watched, image, (values - mean) / std.clamp(min=CONSTANT), moving, stack, tested)
    t, e = (index.flatten() for index in torch.meshgrid(torch.arange(len(values)), torch.arange(tested), indexing="ij"))
    guesses = torch.cat([read(t[part], e[part]) for part in torch.arange(len(t)).split(256)])
    wanted = (held_out - mean) / std.clamp(min=CONSTANT)
    r2 = 1 - (guesses - wanted).square().sum(0) / (wanted - wanted.mean(0)).square().sum(0)
    return {entry: float(score) for entry, score, moves in zip(entries, r2, moving) if moves}


def _train(
    watched: Watched, image: str, targets: torch.Tensor, moving: torch.Tensor, stack: FrameStack, tested: int
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function that reads standardized targets [B, K] at steps and environments int [B] each."""
    steps, n, outputs = targets.shape
    frames = watched.frames[image]
    backbone = Impoola(stack.length * math.prod(frames.shape[2:-2]), (16, 32), (4, 8))
    probe = nn.Sequential(backbone, head(backbone.out_features, 128, outputs, gain=1.0))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=UPDATES)
    background = frames[::7].flatten(0, 1)[::3].float().median(0).values
    dtype = torch.bfloat16 if resolve_precision("auto", torch.device("cpu")) == "bf16" else torch.float32

    def read(t: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return probe(screen(watched.stacks(image, t, e, stack), background, dtype)).float()

    for _ in range(UPDATES):
        t, e = torch.randint(steps, (BATCH,)), torch.randint(tested, n, (BATCH,))
        loss = (read(t, e) - targets[t, e])[:, moving].square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return torch.no_grad()(read)
