"""The video of episodes: the student's scene beside its teacher's, and below them the frames that the student sees."""

import dataclasses
import errno
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from PIL import Image

from Algorithm.Test_model import Policy, Recording
from Enviroment.Renderer import FrameRenderer
from Enviroment.Snapshot import frames_per_second, simulation
from Enviroment.Task import Camera, Task
from Enviroment.Views import Views

MARGIN = 70  # pixels of the camera's view that are shown around what a student sees of it
WHITE, GREEN = (235, 235, 235), (120, 230, 120)  # green: it would be a success if it ended here
STRIP = 28  # rows for a line of text
FASTEST, LONGEST = 30, 200  # pictures a second, and of an episode
GIF_BYTES = 1_000_000
GIF_WIDTHS = (800, 640, 480, 320)  # the first that stays below GIF_BYTES


def write_video(
    path: Path,
    task: Task,
    seeds: Sequence[int],
    recordings: Mapping[str, Recording],
    *,
    teacher: Policy | None = None,
    first: int = 0,
    episodes: int = 3,
) -> None:
    """Write `episodes` of the recorded episodes, from number `first` on: an mp4, or a GIF of less than 1 MB.

    The environments are stepped again with the recorded actions, which repeats the episodes exactly, and drawn in full
    quality without shadows, in real time, at most 30 pictures a second. Of a long episode the first 200 pictures are shown.

    Args:
        path: a file whose name ends in `.mp4` or `.gif`; its folder is made.
        seeds: of the recorded episodes, in their order.
        recordings: from `evaluate`, by the names of their policies, which are shown beside one another; raises `ValueError`
            if one holds none of these episodes.
        teacher: is shown beside each of them, on the same seeds.
    """
    last = min(first + episodes, len(seeds), *(len(r.actions[0]) if r.actions else 0 for r in recordings.values()))
    if last <= first:
        raise ValueError(f"no episode to show in {path}: nothing was recorded")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"writing_{path.name}")
    others = [] if teacher is None else ["teacher"]
    envs: dict[str, dict[str, Any]] = {name: {who: task.make() for who in [name, *others]} for name in recordings}
    every_env = [env for own in envs.values() for env in own.values()]
    every = math.ceil(frames_per_second(every_env[0]) / FASTEST)
    fps = round(frames_per_second(every_env[0]) / every)
    renderer = FrameRenderer(_surroundings(next(iter(task.cameras.values()))), "full")
    for env in every_env:
        simulation(env)[0].light_castshadow[:] = 0  # type: ignore[index]  # four fifths of the time that a frame takes

    def shown(n: int) -> Iterator[np.ndarray]:
        how = (n, seeds[n], renderer, task)
        return _beside([_episode(envs[name], *how, own, teacher, every) for name, own in recordings.items()])

    pictures = itertools.chain.from_iterable(itertools.islice(shown(n), LONGEST) for n in range(first, last))
    try:
        _write(temporary, pictures, fps)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        renderer.close()
        for env in every_env:
            env.close()


def _write(path: Path, pictures: Iterable[np.ndarray], fps: int) -> None:
    if path.suffix == ".gif":
        _write_gif(path, list(pictures)[::2], 2000 // fps)
        return
    with imageio.get_writer(path, fps=fps, macro_block_size=2) as video:
        for picture in pictures:
            video.append_data(picture)  # type: ignore[attr-defined]
    try:
        imageio_ffmpeg.count_frames_and_secs(path)
    except RuntimeError:  # ffmpeg does not say that the disk is full
        raise OSError(errno.ENOSPC, "the video could not be written whole, as on a full disk", path) from None


def _beside(films: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Put films of uint8 [rows, columns, 3] beside one another. One that has ended stands still."""
    latest: Sequence[np.ndarray] = ()
    for pictures in itertools.zip_longest(*films):
        latest = [old if new is None else new for new, old in zip(pictures, latest or pictures)]
        rows = max(map(len, latest))
        yield np.concatenate([np.pad(p, ((0, rows - len(p)), (0, 0), (0, 0))) for p in latest], axis=1)


def _surroundings(camera: Camera) -> Camera:
    spans = camera.rows, camera.columns
    rows, columns = ((max(low - MARGIN, 0), min(high + MARGIN, camera.view)) for low, high in spans)
    return dataclasses.replace(camera, rows=rows, columns=columns, size=(rows[1] - rows[0], columns[1] - columns[0]))


def _episode(
    envs: dict[str, Any],
    n: int,
    seed: int,
    renderer: FrameRenderer,
    task: Task,
    recording: Recording,
    teacher: Policy | None,
    every: int,
) -> Iterator[np.ndarray]:
    """Step the recorded episode `n`, and the teacher's beside it, and draw some of its steps as uint8 [rows, columns, 3].

    The picture of an episode that ends before the other stands still.
    """
    runs = [_Run(env, name, seed) for name, env in envs.items()]
    seen: dict[str, np.ndarray] = {}  # the student's latest stacks
    for t, recorded in enumerate(recording.actions):
        if all(run.done for run in runs):
            return
        if recording.stacks and not runs[0].done:
            seen = {image: stacks[n] for image, stacks in recording.stacks[t].items()}
        if t % every == 0:
            picture = np.concatenate([run.draw(renderer, task) for run in runs], axis=1)
            text = f"seed {seed}   step {t}" + ("   what the student sees, oldest to newest:" if seen else "")
            stacks = [draw_stacks(seen, picture.shape[1])] if seen else []
            yield np.concatenate([picture, text_strip(text, picture.shape[1]), *stacks])
        for run in runs:
            action = recorded[n]
            if run is not runs[0] and teacher is not None:  # the teacher was not recorded
                action = teacher.act({"State": run.state[None].astype(np.float32)})[0]
            run.step(action)


class _Run:
    """An episode that is stepped and drawn."""

    def __init__(self, env: Any, name: str, seed: int):
        self._env, self._name = env, name
        self.state, self._info = env.reset(seed=seed)
        self._total, self.done = 0.0, False
        self._picture = np.empty(0)

    def draw(self, renderer: FrameRenderer, task: Task) -> np.ndarray:
        """Return the scene below a line of text."""
        if not self.done:
            text = f"{self._name}   return {self._total:6.1f}{task.caption(self.state, self._info)}"
            view = None if task.views == Views() else self._env.view
            scene = renderer.rgb(*simulation(self._env), view=view)  # type: ignore[misc]
            colour = GREEN if task.measured(self.state, self._info).get("success") else WHITE
            self._picture = np.concatenate([text_strip(text, scene.shape[1], colour), scene])
        return self._picture

    def step(self, action: np.ndarray) -> None:
        """Make a step, unless the episode has ended."""
        if not self.done:
            self.state, reward, terminated, truncated, self._info = self._env.step(action)
            self._total, self.done = self._total + float(reward), terminated or truncated


def text_strip(text: str, width: int, colour: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Draw a line of text as RGB uint8 [STRIP, width, 3]."""
    strip = np.full((STRIP, width, 3), 24, np.uint8)
    cv2.putText(strip, text, (10, STRIP - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    return strip


def draw_stacks(stacks: Mapping[str, np.ndarray], width: int) -> np.ndarray:
    """Draw the stacks of several images side by side, as RGB of a given width; the names are above them if there are several."""
    share = width // len(stacks)
    pictures = [draw_stack(stack, share) for stack in stacks.values()]
    if len(stacks) > 1:
        pictures = [np.concatenate([text_strip(name, share), picture]) for name, picture in zip(stacks, pictures)]
    rows = max(map(len, pictures))
    pictures = [np.pad(picture, ((0, rows - len(picture)), (0, 0), (0, 0))) for picture in pictures]
    return np.pad(np.concatenate(pictures, axis=1), ((0, 0), (0, width - share * len(stacks)), (0, 0)))


def draw_stack(stack: np.ndarray, width: int) -> np.ndarray:
    """Draw a stack uint8 [stack, rows, columns] or [stack, 3, rows, columns] side by side, as RGB of a given width."""
    colours = np.moveaxis(stack, 1, -1) if stack.ndim == 4 else np.repeat(stack[..., None], 3, axis=-1)
    columns = width // len(stack)
    rows = columns * colours.shape[1] // colours.shape[2]
    resized = (cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_NEAREST) for frame in colours)
    frames = list(map(np.ascontiguousarray, resized))
    for frame in frames[:-1]:
        frame[:, -1] = 24
    picture = np.concatenate(frames, axis=1)
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)))


def _write_gif(path: Path, pictures: Sequence[np.ndarray], milliseconds: int) -> None:
    for width in GIF_WIDTHS:
        small = [Image.fromarray(p).resize((width, p.shape[0] * width // p.shape[1])) for p in pictures]
        # Of the whole film, for the text turns green late: the grays of most of it, and the few other colours.
        mosaic = Image.fromarray(np.concatenate([np.asarray(image) for image in small[:: len(small) // 8 + 1]]))
        palette = Image.new("P", (1, 1))
        colours: list[int] = []
        for count, method in ((28, Image.Quantize.MEDIANCUT), (36, Image.Quantize.MAXCOVERAGE)):
            colours += (mosaic.quantize(count, method).getpalette() or [])[: 3 * count]
        palette.putpalette(colours)
        frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in small]
        frames[0].save(
            path, "gif", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=True
        )
        if path.stat().st_size < GIF_BYTES:
            return
