"""The video of episodes: the scene in full quality beside what the student sees."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import imageio.v2 as imageio
import numpy as np

from Algorithm.Test_model import Recording
from Enviroment.Renderer import FrameRenderer
from Enviroment.Tasks import Task

SIZE = 480  # rows and columns of the scene; the student's frames stand beside it, as high together


def write_video(
    path: Path, task: Task, seeds: Sequence[int], recording: Recording, first: int = 0, episodes: int = 3
) -> None:
    """Write an mp4 of `episodes` of the recorded episodes, from number `first` on.

    The environments are stepped again with the recorded actions, which repeats the episodes exactly, and drawn in full
    quality, but for shadows, as they go.

    Args:
        path: file to write; its folder is made.
        task: the task.
        seeds: of the recorded episodes, in their order.
        recording: from `evaluate`.
        first: number of the first episode shown.
        episodes: how many.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    env = gym.make(task.env_id, disable_env_checker=True)
    simulation: Any = env.unwrapped
    simulation.model.light_castshadow[:] = 0  # four fifths of the time that a frame takes in software
    whole = (0, task.camera.view)
    camera = dataclasses.replace(task.camera, rows=whole, columns=whole)
    renderer = FrameRenderer(simulation.model, camera, (SIZE, SIZE), "full")
    temporary = path.with_name(f"writing_{path.name}")
    with imageio.get_writer(temporary, fps=simulation.metadata["render_fps"], macro_block_size=None) as video:
        for n in range(first, min(first + episodes, len(seeds), len(recording.actions[0]))):
            state, _ = env.reset(seed=seeds[n])
            total, done, t = 0.0, False, 0
            while not done and t < len(recording.actions):
                scene = renderer.rgb(simulation.data).copy()
                caption = f"seed {seeds[n]}  return {total:6.1f}  distance {task.success_distance(state):.2f} m"
                cv2.putText(
                    scene, caption, (10, SIZE - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA
                )
                seen = [scene]
                if recording.stacks:
                    seen.append(_stack_picture(recording.stacks[t][n]))
                video.append_data(np.concatenate(seen, axis=1))  # type: ignore[attr-defined]
                state, reward, terminated, truncated, _ = env.step(recording.actions[t][n])
                total, done, t = total + float(reward), terminated or truncated, t + 1
    temporary.replace(path)
    renderer.close()
    env.close()


def _stack_picture(stack: np.ndarray) -> np.ndarray:
    """Draw a stack, newest frame on top, as RGB of the scene's height."""
    height = SIZE // len(stack)
    width = 2 * (height * stack.shape[2] // stack.shape[1] // 2)
    frames = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST) for frame in stack[::-1]]
    picture = np.concatenate(frames)
    picture = np.pad(picture, ((0, SIZE - len(picture)), (0, 0)))
    return np.repeat(picture[:, :, None], 3, axis=2)
