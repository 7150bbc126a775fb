"""How episodes begin: Gymnasium's own first states by their seeds, and their views, as tensors on a device."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from Enviroment.On_tensors import OnTensors
from Enviroment.Snapshot import simulation
from Enviroment.Task import Camera, Task
from Enviroment.Viewed import Viewed
from Enviroment.Views import View
from Enviroment.Warp_render import pose

SIMULATED = ("qpos", "qvel", "act", "qacc_warmstart")
# Arrays of the model that views shift, and those that MuJoCo computes of masses.
VARIED = (
    *("light_ambient", "light_diffuse", "light_specular", "light_dir", "geom_rgba", "mat_rgba"),
    *("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_invweight0"),
    *("geom_friction", "dof_damping", "dof_dampingpoly"),
)


class Starts:
    """The first moments of episodes, one row for each seed.

    An episode's seed decides its first state, as in Gymnasium, and its view, as in `Viewed`.

    Args:
        task: of an environment whose first state is all that its reset decides.
        on_tensors: its observation on tensors.
        device: of the rows.

    Attributes:
        wrapped: the environment that is reset, and `env` the same unwrapped.
        varied: the arrays of the model that differ from row to row.
        first: float32 [R, ...] by name: fields of the simulation, `State`, `before` if the task's outcome needs something of
            the state before a step, and for each of `varied` an array of the model.
        seeds: int64 [R].
        looks: float32 [R] by name: how frames are altered.
        eyes: the place [R, 3] and axes [R, 3, 3] of each free camera, by its name.
    """

    def __init__(self, task: Task, on_tensors: OnTensors, device: torch.device):
        self.wrapped: Any = task.make()
        self._on, self._device = on_tensors, device
        self._cameras = {name: camera for name, camera in task.seen.items() if not camera.name}
        self.env: Any = self.wrapped.unwrapped
        model, _ = simulation(self.wrapped)  # type: ignore[misc]
        views = task.views
        picture = ("light", "light_colour", "light_direction", "colour")
        shifted = [*picture, "mass", "friction", "damping"]
        wanted = set(VARIED) if any(getattr(views, name) for name in shifted) else set()
        if not any(getattr(views, name) for name in shifted[4:]):
            wanted &= set(VARIED[:6])
        self.varied = tuple(name for name in VARIED if name in wanted and getattr(model, name).size)
        self.seeds = torch.zeros(0, dtype=torch.int64, device=device)
        self.first: dict[str, torch.Tensor] = {}
        self.looks: dict[str, torch.Tensor] = {}
        self.eyes: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def draw(self, seeds: Sequence[int]) -> None:
        """Make the rows of some seeds."""
        rows = [self._row(int(seed)) for seed in seeds]
        self.seeds = torch.tensor(list(seeds), dtype=torch.int64, device=self._device)

        def stacked(key: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([row[key] for row in rows])).to(self._device, torch.float32)

        self.first = {key: stacked(key) for key in (*SIMULATED, "State", *self.varied)}
        if self._on.before is not None:
            data: Any = SimpleNamespace(**{name: stacked(name) for name in self._on.fields})
            self.first["before"] = self._on.before(self.env, data)
        self.looks = {key: stacked(key) for key in ("gain", "offset", "noise")}
        self.eyes = {name: (stacked(name), stacked(name + " axes")) for name in self._cameras}

    def _row(self, seed: int) -> dict[str, Any]:
        state, _ = self.wrapped.reset(seed=seed)
        model, data = simulation(self.wrapped)  # type: ignore[misc]
        row = {name: getattr(data, name).copy() for name in {*SIMULATED, *self._on.fields}}
        row |= {name: self._with_headlight(model, name) for name in self.varied}
        view = self.wrapped.view if isinstance(self.wrapped, Viewed) else None
        look = (view.contrast, view.brightness, view.noise) if view else (1.0, 0.0, 0.0)
        row |= {"State": state, **dict(zip(("gain", "offset", "noise"), look))}
        for name, camera in self._cameras.items():
            row[name], row[name + " axes"] = self._seen(camera, view)
        return row

    @staticmethod
    def _with_headlight(model: Any, name: str) -> np.ndarray:
        """Return an array of the model; of lights, with the headlight as the last."""
        value = getattr(model, name).copy()
        if name == "light_dir":
            return np.concatenate([value, [(0.0, 0.0, -1.0)]])
        if name.startswith("light_"):
            return np.concatenate([value, getattr(model.vis.headlight, name.removeprefix("light_"))[None]])
        return value

    @staticmethod
    def _seen(camera: Camera, view: View | None) -> tuple[np.ndarray, np.ndarray]:
        return pose(camera if view is None else view.pose(camera))

    def contacts(self, seeds: int = 32) -> int:
        """Return the most contacts that some episodes begin with."""
        most = 0
        for seed in range(seeds):
            self.wrapped.reset(seed=seed)
            most = max(most, simulation(self.wrapped)[1].ncon)  # type: ignore[index]
        return most

    def close(self) -> None:
        """Close the environment."""
        self.wrapped.close()
