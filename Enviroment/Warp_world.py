"""`WarpWorld`: N environments of a task on one device, stepped and rendered by MuJoCo Warp."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp

from Common.Errors import BadSetting, NonFinite, RunError
from Enviroment.My_wrapper import observation_space
from Enviroment.On_tensors import OnTensors, on_tensors
from Enviroment.Snapshot import time_limit
from Enviroment.Starts import SIMULATED, Starts
from Enviroment.Task import Task
from Enviroment.Warp_render import WarpRenderer, initialize, samples, with_cameras
from Enviroment.World import Step

STARTS = 4096  # episodes of an endless world that begin differently, on a GPU; at least two for each world
CONTACTS = 4  # times as many contacts as the most that were seen at first states have room, and at least
LEAST_CONTACTS = 24
_LOST_CONTACTS = int(mjw.OverflowType.NEFC | mjw.OverflowType.BROADPHASE | mjw.OverflowType.NARROWPHASE)
MEMORY = 0.9  # of a GPU's free memory that all worlds may take
RENDERED = 24  # bytes of a pixel: its ray's result, and the boxes around what rays may meet
SUMMED = 12  # and where it has several rays, the sum of their colours


def _bytes(held: Any) -> int:
    """Return the bytes of the Warp arrays that an object holds."""
    if isinstance(held, wp.array):
        return held.capacity
    return sum(_bytes(getattr(held, field.name)) for field in fields(held)) if is_dataclass(held) else 0


def check_memory(num_envs: int, each: float, free: int) -> None:
    """Raise `BadSetting` unless so many worlds of `each` so many bytes fit into a GPU's free bytes."""
    if num_envs * each > MEMORY * free:
        needed = f"num_envs {num_envs}: {num_envs * each / 2**30:.1f} GiB of the GPU's memory are needed"
        raise BadSetting(f"{needed} and {free / 2**30:.1f} GiB are free; {int(MEMORY * free / each)} fit")


class WarpWorld:
    """A `World` whose N simulations, frames, rewards and ends are on one device.

    An endless world begins its episodes from a table of first states, one after the other, and again from its first row when
    it has come to its end. All frames of a table's rows are drawn once. `World` describes the methods.

    Args:
        task: one that Warp can simulate, which `find_backend` tells.
        num_envs: N.
        frames: whether to render.
        device: a GPU, or the CPU, on which it is slow.
        starts: how many rows an endless world's table has; at least N.

    Raises:
        BadSetting: N worlds do not fit into the GPU's free memory.

    Attributes:
        resting: bool [N], the environments for which there is no seed left.
    """

    def __init__(self, task: Task, num_envs: int, frames: bool, device: torch.device, starts: int | None = None):
        if num_envs < 1:
            raise ValueError(f"{num_envs=}: at least 1 environment")
        task.check()
        self.task, self.num_envs = task, num_envs
        self.device = torch.zeros(0, device=device).device  # with its number
        self._on: OnTensors = on_tensors(task)  # type: ignore[assignment]
        initialize()
        self._wp_device = wp.device_from_torch(self.device)
        self._starts = Starts(task, self._on, self.device)
        env = self._env = self._starts.env
        self.max_episode_steps: int = time_limit(self._starts.wrapped)._max_episode_steps  # type: ignore[union-attr]
        self.spaces = observation_space(task, env.observation_space.shape[0], frames)
        self.action_space = env.action_space
        self._table_size = max(
            num_envs, starts or (max(STARTS, 2 * num_envs) if self.device.type == "cuda" else 2 * num_envs)
        )
        self._rendering, self.closed = True, False
        self._graphs: dict[str, Any] = {}
        self._seen = task.seen if frames else {}
        self._allocate(task)

    def _allocate(self, task: Task) -> None:
        """Put N copies of the model onto the device, and what is kept of each."""
        n, device = self.num_envs, self.device
        model = with_cameras(self._env.fullpath, self._env.model, tuple(task.seen))
        contacts = max(LEAST_CONTACTS, CONTACTS * self._starts.contacts())
        room = {"nconmax": contacts, "njmax": 4 * contacts + model.nv + 2 * model.njnt}
        with wp.ScopedDevice(self._wp_device):
            self._model = mjw.put_model(model, batch_sizes={name: n for name in self._starts.varied})
            # On a GPU it costs 17 times the physics, and nothing else in training is the same in every bit there.
            deterministic = mjw.DeterminismType.ALL if self.device.type == "cpu" else mjw.DeterminismType.NONE
            self._model.opt.deterministic = deterministic
            self._model.opt.warn_overflow = False
            if self.device.type == "cuda":
                free = torch.cuda.mem_get_info(self.device)[0]
                check_memory(n, self._bytes_of_a_world(model, room), free)
            self._data = mjw.make_data(model, nworld=n, **room)
            self._cameras = {
                name: WarpRenderer(name, camera, model, self._model, self._data) for name, camera in self._seen.items()
            }
        names = {*SIMULATED, *self._on.fields}
        self._fields: Any = SimpleNamespace(**{name: wp.to_torch(getattr(self._data, name)) for name in names})
        self._varied = {name: wp.to_torch(getattr(self._model, name)) for name in self._starts.varied}
        self._ctrl, self._overflow = wp.to_torch(self._data.ctrl), wp.to_torch(self._data.overflow)
        self._proprioception = torch.tensor(task.proprioception, dtype=torch.int64, device=device)
        self._look = {key: torch.zeros(n, device=device) for key in ("gain", "offset", "noise")}
        self._noise_seed = torch.zeros(n, dtype=torch.int32, device=device)
        looks = self._look | {"seed": self._noise_seed}
        self._warp_look = SimpleNamespace(**{key: wp.from_torch(value) for key, value in looks.items()})
        self._row, self._elapsed = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(2))
        self.resting = torch.zeros(n, dtype=torch.bool, device=device)
        self._before: torch.Tensor | None = None
        self._first_frames: dict[str, torch.Tensor] = {}
        self._seeds: list[int] = []
        self._next, self._endless = torch.zeros((), dtype=torch.int64, device=device), True

    def _bytes_of_a_world(self, model: Any, room: dict[str, int]) -> float:
        """Return what one of the N worlds takes of the device's memory, its share of the first frames among it."""
        shapes = {key: self.spaces[key].shape or () for key in self._seen}
        pixels = sum(shape[-1] * shape[-2] for shape in shapes.values())
        frames = sum(map(math.prod, shapes.values()))
        one = mjw.make_data(model, nworld=1, **room)
        rendered = RENDERED + (SUMMED if samples(model) > 1 else 0)
        return _bytes(one) + rendered * pixels + frames * (4 + self._table_size / self.num_envs)

    def reset(self, seeds: Sequence[int | None]) -> dict[str, torch.Tensor]:
        """Start endless episodes in every environment."""
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments: give one for each")
        random = np.random.default_rng(next((seed for seed in seeds if seed is not None), None))
        drawn = iter(random.integers(2**31, size=self._table_size + self.num_envs).tolist())
        given = [int(next(drawn)) if seed is None else int(seed) for seed in seeds]
        self._tabulate(given + [next(drawn) for _ in range(self._table_size - self.num_envs)])
        return self._begin(endless=True)

    def start(self, seeds: Sequence[int]) -> dict[str, torch.Tensor]:
        """Start one episode for each seed."""
        self._tabulate(list(map(int, seeds)))
        return self._begin(endless=False)

    def _tabulate(self, seeds: list[int]) -> None:
        """Make the table of first states, and draw their frames."""
        self._seeds = seeds
        self._starts.draw(seeds or [0])
        rows = len(self._seeds) or 1
        self._first_frames = {
            name: torch.empty((rows, *camera.frames.shape[1:]), dtype=torch.uint8, device=self.device)
            for name, camera in self._cameras.items()
        }
        for first in range(0, rows, self.num_envs) if self._cameras and self._rendering else ():
            index = torch.arange(first, first + self.num_envs, device=self.device).clamp(max=rows - 1)
            self._elapsed.zero_()
            self._place(torch.ones_like(self.resting), index)
            self._kinematics()
            self._draw()
            for name, camera in self._cameras.items():
                self._first_frames[name][first : first + self.num_envs] = camera.frames[: rows - first]

    def _begin(self, endless: bool) -> dict[str, torch.Tensor]:
        """Start the table's first episodes; returns their observations."""
        n, rows, self._endless = self.num_envs, len(self._seeds), endless
        index = torch.arange(n, device=self.device)
        self._next.fill_(min(n, rows))
        self.resting[:] = index >= rows
        self._elapsed.zero_()
        self._place(torch.ones_like(self.resting), index.clamp(max=max(rows - 1, 0)))
        return self._first_observations()

    def _first_observations(self) -> dict[str, torch.Tensor]:
        first = {name: frames[self._row] for name, frames in self._first_frames.items()}
        return self._observation(self._starts.first["State"][self._row], first)

    def _place(self, where: torch.Tensor, rows: torch.Tensor) -> None:
        """Put the episodes of the table's `rows` int [N] into the environments `where` bool [N]."""
        starts = self._starts

        def put(own: torch.Tensor, first: torch.Tensor) -> None:
            chosen = where.reshape(-1, *[1] * (own.ndim - 1))
            own.copy_(torch.where(chosen, first[rows].reshape(own.shape), own))

        for name in SIMULATED:
            put(getattr(self._fields, name), starts.first[name])
        for name, own in self._varied.items():
            put(own, starts.first[name])
        for name, own in self._look.items():
            put(own, starts.looks[name])
        for name, (eyes, axes) in starts.eyes.items():
            if name in self._cameras:
                put(self._cameras[name].eye, eyes)
                put(self._cameras[name].axes, axes)
        self._row = torch.where(where, rows, self._row)
        if "before" in starts.first:
            before = starts.first["before"][rows]
            self._before = before if self._before is None else torch.where(where[:, None], before, self._before)

    def step(self, actions: torch.Tensor) -> Step:
        """Step every environment with its action."""
        if actions.shape != self._ctrl.shape:
            raise ValueError(f"actions have shape {list(actions.shape)}: {list(self._ctrl.shape)} is needed")
        actions = actions.detach().to(self._ctrl)
        self._ctrl.copy_(actions)
        self._launch("physics", self._physics)
        state = self._on.observe(self._env, self._fields)
        outcome = self._on.outcome(self._env, self._fields, self._before, actions)
        if self._on.before is not None:
            self._before = self._on.before(self._env, self._fields)
        running = ~self.resting
        self._check_finite(action=actions, reward=outcome.reward, State=state, running=running)
        self._elapsed += 1
        terminated = outcome.terminated & running
        truncated = (self._elapsed >= self.max_episode_steps) & running
        if self._rendering and self._cameras:
            self._draw()
        last = {name: camera.frames.clone() for name, camera in self._cameras.items()}
        last_obs = self._observation(state, last)
        obs = self._restart(terminated | truncated, last_obs)
        info = {key: outcome.info[key].double() for key in self.task.info_keys}
        reward = torch.where(running, outcome.reward, 0).double()
        return Step(obs, reward, terminated, truncated, last_obs, info)

    def _restart(self, done: torch.Tensor, last_obs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Start the next episodes where some are `done`; returns all observations."""
        order = self._next + done.cumsum(0) - 1  # of the episodes that begin, in the order of their environments
        begins = done if self._endless else done & (order < len(self._seeds))
        self.resting |= done & ~begins
        self._next += begins.sum()
        self._elapsed.masked_fill_(begins, 0)
        self._place(begins, torch.where(begins, order % max(len(self._seeds), 1), self._row))
        first = self._first_observations()
        return {
            key: torch.where(begins.reshape(-1, *[1] * (last.ndim - 1)), first[key], last)
            for key, last in last_obs.items()
        }

    def _observation(self, state: torch.Tensor, frames: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        state = state.float()
        return {"State": state, "PartialState": state[:, self._proprioception], **frames}

    def _check_finite(self, running: torch.Tensor, **values: torch.Tensor) -> None:
        crowded = (self._overflow & _LOST_CONTACTS) != 0
        odd = torch.stack([~value.isfinite().reshape(self.num_envs, -1).all(1) & running for value in values.values()])
        if (odd.any() | crowded.any()).item():  # the CPU waits for the device
            if crowded.any():
                raise RunError(
                    f"environment {int(crowded.nonzero()[0])} has more contacts than Warp was given room for"
                )
            what, n = (int(index[0]) for index in odd.nonzero(as_tuple=True))
            raise NonFinite(f"{list(values)[what]} of environment {n} is not finite")

    def _physics(self) -> None:
        for _ in range(self._env.frame_skip):
            mjw.step(self._model, self._data)
        if "cfrc_ext" in self._on.fields:
            mjw.rne_postconstraint(self._model, self._data)
        if self._on.renewed:
            mjw.step1(self._model, self._data)

    def _kinematics(self) -> None:
        for function in (mjw.kinematics, mjw.com_pos, mjw.camlight):
            with wp.ScopedDevice(self._wp_device), self._stream():
                function(self._model, self._data)

    def _draw(self) -> None:
        """Write every camera's frames."""
        self._noise_seed.copy_((self._starts.seeds[self._row] * 7919 + self._elapsed) % 2**31)
        for name, camera in self._cameras.items():
            camera.aim()
            self._launch(name, partial(camera.draw, self._warp_look))

    def _stream(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which Warp launches in PyTorch's order."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(self.device)))

    def _launch(self, name: str, function: Callable[[], None]) -> None:
        """Call a function of Warp's launches, on a GPU as a graph that is recorded at its second call."""
        with wp.ScopedDevice(self._wp_device):
            if self.device.type == "cuda" and name in self._graphs:
                if self._graphs[name] is None:
                    with wp.ScopedCapture() as capture:
                        function()
                    self._graphs[name] = capture.graph
                wp.capture_launch(self._graphs[name], wp.stream_from_torch(torch.cuda.current_stream(self.device)))
                return
            with self._stream():
                function()
            self._graphs[name] = None

    def state(self) -> list[Any]:
        """Return one snapshot of all environments, as tensors on the CPU and plain values."""
        tensors = {name: getattr(self._fields, name) for name in {*SIMULATED, *self._on.fields}}
        tensors |= {"row": self._row, "elapsed": self._elapsed, "next": self._next}
        if self._before is not None:
            tensors["before"] = self._before
        saved = {name: value.to("cpu", copy=True) for name, value in tensors.items()}
        return [{"warp": saved, "seeds": list(self._seeds)}]

    def restore(self, state: Sequence[Any]) -> None:
        """Put every environment back where `state` found it."""
        saved = state[0] if len(state) == 1 and isinstance(state[0], dict) else {}
        found = len(saved.get("warp", {}).get("row", ()))
        if found != self.num_envs:
            raise ValueError(f"a snapshot of {found} environments of Warp for {self.num_envs}")
        self._tabulate(saved["seeds"])
        self._begin(endless=True)
        own = {name: value.to(self.device) for name, value in saved["warp"].items()}
        self._place(torch.ones_like(self.resting), own.pop("row"))
        self._elapsed.copy_(own.pop("elapsed"))
        self._next.copy_(own.pop("next"))
        self._before = own.pop("before", None)
        for name, value in own.items():
            getattr(self._fields, name).copy_(value)

    def stagger(self, first: int = 0, total: int | None = None) -> None:
        """Spread the ends of the running episodes evenly over the time limit."""
        number = torch.arange(self.num_envs, device=self.device) + first
        self._elapsed.copy_(number * self.max_episode_steps // (total or self.num_envs))

    @contextlib.contextmanager
    def rendering(self, wanted: bool) -> Iterator[None]:
        """Render no frames in here unless they are `wanted`."""
        self._rendering = wanted
        try:
            yield
        finally:
            self._rendering = True

    def close(self) -> None:
        """Free everything."""
        if not self.closed:
            self._starts.close()
        self.closed, self._graphs = True, {}
