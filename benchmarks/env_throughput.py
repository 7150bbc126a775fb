"""Environment steps a second: with frames and without, against Gymnasium's vector environments, and what a step consists of.

With frames: stock Gymnasium (480x480 rendered, cropped, scaled, grayed, in a `SyncVectorEnv`), Gymnasium's `AsyncVectorEnv` with
our renderer, and ours; all end with the same [N, 64, 128] frames. Without: `SyncVectorEnv`, `AsyncVectorEnv` and ours. Then
ours with frames in gray, colour and depth, of one camera and of two, and under views. Then ours alone over numbers of
environments and workers, and the parts of a step. Prints JSON; run it on an otherwise idle machine.
"""

import argparse
import functools
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from baselines import StockVectorEnv
from common import in_turn, machine

from Common.Machine import cores
from Enviroment.GL import choose_gl_backend
from Enviroment.Renderer import FrameRenderer
from Enviroment.Task import KINDS
from Enviroment.Tasks import Task, find_task
from Enviroment.Utils import make_env, make_vector_env
from Enviroment.Views import VIEWS


def stepper(env: Any, steps: int) -> Callable[[], None]:
    """Return what makes so many steps."""
    random = np.random.default_rng(0)
    env.reset(seed=0)
    actions = [random.uniform(-1, 1, env.action_space.shape).astype(np.float32) for _ in range(steps)]

    def call() -> None:
        for action in actions:
            env.step(action)

    return call


def rates(envs: dict[str, Any], steps: Mapping[str, int], repeats: int) -> dict[str, float]:
    """Return environment steps a second of each vector environment, and close it."""
    with ExitStack() as open_things:
        for env in envs.values():
            open_things.callback(env.close)
        seconds = in_turn({name: stepper(env, steps[name]) for name, env in envs.items()}, repeats)
        return {name: round(steps[name] * env.num_envs / seconds[name], 1) for name, env in envs.items()}


def with_frames(task: Task, n: int, repeats: int, quick: bool) -> dict[str, float]:
    """Return the rates of n environments with frames."""
    envs = {
        "stock": StockVectorEnv(task, n),
        "async": gym.vector.AsyncVectorEnv([functools.partial(make_env, task)] * n, context="spawn"),
        "ours": make_vector_env(task, n),
    }
    return rates(envs, dict(zip(envs, (3, 60, 120) if quick else (10, 200, 400))), repeats)


def state_only(task: Task, n: int, repeats: int, quick: bool) -> dict[str, float]:
    """Return the rates of n environments without frames."""
    plain = functools.partial(gym.make, task.env_id, disable_env_checker=True)
    envs: dict[str, Any] = {
        "sync": gym.vector.SyncVectorEnv([plain] * n),
        "ours": make_vector_env(task, n, frames=False),
    }
    if not quick:
        envs["async"] = gym.vector.AsyncVectorEnv([plain] * n, context="spawn")
    return rates(envs, dict.fromkeys(envs, 200 if quick else 1_000), repeats)


def kinds(task: Task, n: int, repeats: int, quick: bool) -> dict[str, float]:
    """Return our rates of n environments with frames of each kind, with two cameras if the task has them, and under views."""
    tasks = {kind: task.seen_by(frames=kind) for kind in KINDS}
    if len(task.cameras) > 1:
        two = tuple(task.cameras)[:2]
        tasks |= {f"two cameras, {kind}": task.seen_by(two, kind) for kind in KINDS}
    tasks |= {f"views {name}": replace(task, views=views) for name, views in VIEWS.items() if views.table()}
    envs = {name: make_vector_env(seen, n) for name, seen in tasks.items()}
    return rates(envs, dict.fromkeys(envs, 120 if quick else 400), repeats)


def scaling(task: Task, n: int, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Return our rates, with frames and without, over numbers of environments and workers."""
    every = [(count, workers) for workers in sorted({1, cores(), 2 * cores()}) for count in (1, n, 64, 256)]
    rows = []
    for count, workers in [(64, cores())] if quick else every:
        if workers > count:
            continue
        row: dict[str, Any] = {"num_envs": count, "num_workers": workers}
        for name, frames in (("frames", True), ("state", False)):
            env = make_vector_env(task, count, workers, frames=frames)
            row |= rates({name: env}, {name: max(10, (2_000 if quick else 8_000) // count)}, repeats)
        rows.append(row)
    return rows


def parts(task: Task, num_envs: int, steps_per_s: dict[str, float], repeats: int) -> dict[str, float]:
    """Return what a step with a frame consists of, in microseconds of a core, given the rates with and without frames."""
    random = np.random.default_rng(0)
    with ExitStack() as open_things:
        env = open_things.enter_context(closing(task.make()))
        env.reset(seed=0)
        simulation: Any = env.unwrapped
        renderer = FrameRenderer(next(iter(task.seen.values())))
        open_things.callback(renderer.close)

        def action() -> np.ndarray:
            return random.uniform(-1, 1, env.action_space.shape or ())

        candidates: dict[str, Callable[[], Any]] = {
            "nothing": action,
            "physics": lambda: simulation.do_simulation(action(), simulation.frame_skip),
            "step": lambda: simulation.step(action()),
            "render": lambda: (simulation.step(action()), renderer.frame(simulation.model, simulation.data)),
        }
        seconds = in_turn(candidates, repeats, 500)
    step = seconds["step"] - seconds["nothing"]
    rendered = seconds["render"] - seconds["step"]
    workers = min(num_envs, cores())
    microseconds = {
        "physics": seconds["physics"] - seconds["nothing"],
        "observation, reward": seconds["step"] - seconds["physics"],
        "render": rendered,
        "wrappers, copies, resets, waiting": workers / steps_per_s["frames"] - step - rendered,
        "the same without frames": workers / steps_per_s["state"] - step,
    }
    return {name: round(1e6 * value, 1) for name, value in microseconds.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="Pusher")
    parser.add_argument("--num_envs", type=int, default=18)
    parser.add_argument("--quick", action="store_true", help="fewer steps and sizes, under a minute")
    arguments = parser.parse_args()
    gl = choose_gl_backend()
    task, n, quick = find_task(arguments.task), arguments.num_envs, arguments.quick
    repeats = 1 if quick else 3
    frames, state = with_frames(task, n, repeats, quick), state_only(task, n, repeats, quick)
    by_kind = kinds(task, n, repeats, quick)
    result = {
        "what": f"environment steps a second, {task.env_id}, {n} environments",
        "machine": machine(),
        "gl": gl,
        "frames": frames,
        "frames_over": {name: round(frames["ours"] / frames[name], 2) for name in frames if name != "ours"},
        "state_only": state,
        "state_only_over": {name: round(state["ours"] / state[name], 2) for name in state if name != "ours"},
        "kinds": by_kind,
        "kinds_over_gray": {name: round(rate / by_kind["gray"], 2) for name, rate in by_kind.items()},
        "scaling": scaling(task, n, repeats, quick),
        "microseconds_of_a_core": parts(task, n, {"frames": frames["ours"], "state": state["ours"]}, repeats),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
