"""Evaluate a student or a teacher on given seeds, beside the task's teacher and the zero action; film it, or watch it."""

import argparse
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Common.Command_line import OneLineParser, one_line_errors
from Common.Errors import BadInput, BadSetting
from Common.Files import check_output

if TYPE_CHECKING:  # the command line answers before PyTorch is loaded
    from Algorithm.Test_model import Recording
    from Enviroment.Task import Camera, Task
    from Models.Base_Model import GaussianPolicy

FILMED = 3  # episodes


def score(
    policy: "GaussianPolicy",
    teacher: "GaussianPolicy | None",
    task: "Task",
    seeds: Sequence[int],
    *,
    render_quality: Any = "fast",
    num_workers: int = 0,
    deterministic: bool = True,
    recording: "Recording | None" = None,
) -> tuple[dict[str, dict[str, float]], list[dict[str, float]]]:
    """Score a policy on one episode for each seed; `recording` takes its first ones.

    Returns:
        The figures `[policy, teacher or zero][figure]` (see `Test_model.figures`), of the policy also
        `action_accuracy_on_teacher_states`, of its mean actions; and the policy's episodes, first the furthest behind the
        teacher's. Without a teacher all that is about it is missing, and the lowest return comes first.
    """
    from Algorithm.Test_model import Baseline, evaluate, figures
    from Enviroment.Utils import make_world

    places = min(len(seeds), 20), num_workers, bool(policy.images), render_quality
    with closing(make_world(task, *places)) as world:
        own = evaluate(policy, world, task, seeds, teacher=teacher, deterministic=deterministic, recording=recording)
        zero = evaluate(Baseline(world.action_space), world, task, seeds)
        results = {"policy": own, "zero": zero}
        if teacher is not None:
            guided = evaluate(policy, world, task, seeds, teacher=teacher, driver=teacher)
            results = {"policy": own, "teacher": evaluate(teacher, world, task, seeds), "zero": zero}
    best = results.get("teacher")
    report = {name: figures(result, zero, best) for name, result in results.items()}
    columns: dict[str, Any] = {"seed": own.seeds, "return": own.returns}
    if best is not None:
        report["policy"]["action_accuracy_on_teacher_states"] = float(guided.action_accuracy.mean())
        columns["teacher_return"] = best.returns
    columns |= {"length": own.lengths, "success": own.success}
    columns |= {f"final_{name}": values for name, values in own.measures.items()}
    columns |= {"action_accuracy": own.action_accuracy}
    known = {name: np.asarray(column) for name, column in columns.items() if np.isfinite(column).all()}
    episodes = [dict(zip(known, row)) for row in zip(*(column.tolist() for column in known.values()))]
    return report, sorted(episodes, key=lambda episode: episode["return"] - episode.get("teacher_return", 0))


def watch(
    policy: "GaussianPolicy", task: "Task", seeds: Sequence[int], render_quality: Any, deterministic: bool
) -> None:
    """Show the episodes in MuJoCo's viewer, in real time, until its window is closed; `BadInput` without a display."""
    import glfw
    import mujoco.viewer

    from Enviroment.Snapshot import simulation
    from Enviroment.Utils import make_env

    others = set(threading.enumerate())
    glfw.ERROR_REPORTING = "ignore"
    if not glfw.init():
        raise BadInput("--window needs a display, and none can be opened here; --video writes a file instead")
    env = make_env(task, bool(policy.images), render_quality)
    model, data = simulation(env)  # type: ignore[misc]
    bare = {"show_left_ui": False, "show_right_ui": False}
    with mujoco.viewer.launch_passive(model, data, **bare) as viewer:
        _aim(viewer.cam, model, next(iter(task.cameras.values())))
        for seed in seeds:
            _watch_episode(policy, task, env, viewer, seed, deterministic)
            if not viewer.is_running():
                break
    for thread in set(threading.enumerate()) - others:
        thread.join(5)  # the viewer's thread may still be drawing
    env.close()


def _aim(camera: Any, model: Any, wanted: "Camera") -> None:
    import mujoco

    if wanted.name:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(wanted.name).id
        return
    if wanted.follow:
        camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, model.body(wanted.follow).id
    camera.lookat[:] = wanted.lookat
    camera.distance, camera.azimuth, camera.elevation = wanted.distance, wanted.azimuth, max(wanted.elevation, -50)


def _watch_episode(
    policy: "GaussianPolicy", task: "Task", env: Any, viewer: Any, seed: int, deterministic: bool
) -> None:
    import torch

    from Enviroment.Snapshot import frames_per_second

    memory = policy.memory(1)
    obs, info = env.reset(seed=seed)
    total, done, first = 0.0, False, True
    while not done and viewer.is_running():
        started = time.monotonic()
        batch = {key: torch.as_tensor(value)[None] for key, value in obs.items()}
        action = policy.act(memory.see(batch, torch.tensor([first])), deterministic)[0]
        obs, reward, terminated, truncated, info = env.step(action)
        total, done, first = total + float(reward), terminated or truncated, False
        viewer.sync()
        time.sleep(max(0.0, 1 / frames_per_second(env) - (time.monotonic() - started)))
    if viewer.is_running():
        print(f"seed {seed}  return {total:.2f}{task.caption(obs['State'], info)}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="a teacher, a student, or a run's folder")
    seeds = "for example 1900-1999 or 1900,1907 (default: 1900-1999, with --views all 1900-1939)"
    parser.add_argument("--seeds", help=seeds)
    video = "film the first episodes beside the teacher's: an .mp4, or a .gif below 1 MB"
    parser.add_argument("--video", type=Path, help=video)
    parser.add_argument("--window", action="store_true", help="watch the episodes in MuJoCo's viewer instead")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the mean")
    beside = "film this student in the teacher's place: a student, or a run's folder"
    parser.add_argument("--beside", type=Path, metavar="STUDENT", help=beside)
    views = "what differs from episode to episode: small, large, or a .toml file of ranges, or none (default: none); "
    views += "all: a report of robustness, under each shift alone"
    parser.add_argument("--views", default="none", help=views)
    plot = "plot of --views all, a .png, .pdf or .svg (default: robustness_all.png in the run's folder, or beside the file)"
    parser.add_argument("--plot", type=Path, help=plot)
    parser.add_argument("--teacher", help="teacher to compare with, a file or a function (default: the task's own)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes; 0: one for each core (default: 0)")
    arguments = parser.parse_args(argv)
    with one_line_errors(parser.prog):
        evaluate_command(arguments)


def check_arguments(arguments: argparse.Namespace) -> Sequence[int]:
    """Return the seeds; raises `BadInput` where a value or a combination of the command line is wrong."""
    from Algorithm.Test_model import parse_seeds

    if arguments.num_workers < 0:
        raise BadSetting(f"num_workers {arguments.num_workers}: 0 (one for each core) or more is needed")
    if arguments.video is not None and arguments.video.suffix not in (".mp4", ".gif"):
        raise BadSetting(f"video {arguments.video}: a file name ending in .mp4 or .gif is needed")
    if arguments.window and (arguments.video or arguments.json):
        raise BadInput("--window shows episodes and neither films nor scores them: leave out --video and --json")
    if arguments.beside and not arguments.video:
        raise BadInput("--beside is for films: give --video a file name, too")
    every = arguments.views == "all"
    if every and (arguments.window or arguments.video or arguments.stochastic):
        raise BadInput(
            "--views all scores mean actions and shows nothing: leave out --window, --video and --stochastic"
        )
    if arguments.plot is not None and not every:
        raise BadInput("--plot is the plot of --views all")
    if arguments.plot is not None and arguments.plot.suffix not in (".png", ".pdf", ".svg"):
        raise BadSetting(f"plot {arguments.plot}: a file name ending in .png, .pdf or .svg is needed")
    for output in (arguments.video, arguments.plot):
        if output is not None:
            check_output(output)
    arguments.seeds = arguments.seeds or ("1900-1939" if every else "1900-1999")
    seeds = parse_seeds(arguments.seeds)
    if every and len(seeds) < 2:
        raise BadSetting(
            f"seeds {arguments.seeds}: --views all needs two or more, since it swaps frames between episodes"
        )
    return seeds


def its_teacher(path: Path, card: dict[str, Any], task: "Task") -> str | Path | None:
    """Return the teacher to compare a policy with: the one that it learned from if that is here, else the task's, if that is.

    A teacher whose task has no other is compared with itself.
    """
    from Algorithm.Teacher_source import teacher_hash, teacher_source
    from Common.Files import read_json

    config = (path if path.is_dir() else path.parent.parent) / "config.json"  # of a run; a card names no place
    own = read_json(config).get("teacher") if config.is_file() else None
    if own and teacher_source(own, task).is_file():
        return own
    usual = teacher_source(None, task)
    if not usual.is_file():
        return path if card.get("mode") == "teacher" else None
    if card.get("mode") != "teacher" and card.get("teacher_sha256") != teacher_hash(None, task):
        print("warning: compared with another teacher than it learned from; --teacher names that one", file=sys.stderr)
    return usual


def evaluate_command(arguments: argparse.Namespace) -> None:
    """Evaluate, film or show a policy as the command line asks."""
    from Enviroment.GL import choose_gl_backend, find_gl_backend

    find_gl_backend()
    from Algorithm.Policies import open_policy, open_teacher
    from Algorithm.Test_model import Recording
    from Algorithm.Video import write_video
    from Common.Machine import resolve_device
    from Enviroment.Views import find_views

    seeds = check_arguments(arguments)
    views = find_views("none" if arguments.views == "all" else arguments.views)
    device = resolve_device(arguments.device)
    policy, card, task = open_policy(arguments.checkpoint, device)
    if policy.images or arguments.video:
        choose_gl_backend()  # or fail before time is spent
    task = dataclasses.replace(task, views=views)
    reference = arguments.teacher or its_teacher(arguments.checkpoint, card, task)
    quality = card["render"]["quality"] if policy.images else "fast"
    if arguments.views == "all":  # each of its figures is relative to a teacher's
        examine(arguments, policy, open_teacher(reference, task, device), task, seeds, quality)
        return
    teacher = open_teacher(reference, task, device) if reference else None
    if teacher is None:
        print(f"warning: {task.name} has no teacher here to compare with; --teacher names one", file=sys.stderr)
    if arguments.window:
        watch(policy, task, seeds, quality, not arguments.stochastic)
        return
    if arguments.beside:
        other, others_card, others_task = open_policy(arguments.beside, device)
        if others_task.name != task.name:
            raise BadInput(f"--beside {arguments.beside}: a policy of {others_task.name}, not of {task.name}")
    recording = Recording() if arguments.video else None
    how = {"render_quality": quality, "num_workers": arguments.num_workers, "deterministic": not arguments.stochastic}
    report, episodes = score(policy, teacher, task, seeds, recording=recording, **how)
    if recording is not None:
        alone = card.get("mode") == "teacher"
        recordings = {"teacher" if alone else "student": recording}
        if arguments.beside:
            name, others_name = (file.name.removesuffix(".pt") for file in (arguments.checkpoint, arguments.beside))
            others_task = dataclasses.replace(others_task, views=views)
            others = record(other, others_card, others_task, seeds[:FILMED], not arguments.stochastic)
            recordings = {name: recording, others_name if others_name != name else f"{name} #2": others}
        shown = None if alone or arguments.beside else teacher
        write_video(arguments.video, task, seeds, recordings, teacher=shown, episodes=FILMED)
    if arguments.json:
        views_shown = {"view_ranges": views.table()} if arguments.views != "none" else {}
        print(json.dumps({"seeds": arguments.seeds, **views_shown, **report, "episodes": episodes}, indent=2))
    else:
        print_scores(arguments, task, report, episodes)


def record(
    policy: "GaussianPolicy", card: dict[str, Any], task: "Task", seeds: Sequence[int], deterministic: bool
) -> "Recording":
    """Run a policy on some seeds, all at once, and return what it did."""
    from Algorithm.Test_model import Recording, evaluate
    from Enviroment.Utils import make_world

    recording = Recording()
    quality: Any = card["render"]["quality"] if policy.images else "fast"
    with closing(make_world(task, len(seeds), 1, bool(policy.images), quality)) as world:
        evaluate(policy, world, task, seeds, deterministic=deterministic, recording=recording)
    return recording


def examine(
    arguments: argparse.Namespace,
    policy: "GaussianPolicy",
    teacher: "GaussianPolicy",
    task: "Task",
    seeds: Sequence[int],
    render_quality: Any,
) -> None:
    """Make a policy's report of robustness: print it as a table or as JSON, and draw it."""
    from Algorithm.Robustness import robustness
    from Distillation.Reports.Robustness import NOTE, draw_robustness, robustness_table, verdict
    from Distillation.Reports.Tables import markdown

    file = arguments.checkpoint
    beside = file / "robustness_all.png" if file.is_dir() else file.with_name(f"{file.stem}_robustness.png")
    how = {"render_quality": render_quality, "num_workers": arguments.num_workers}
    report = robustness(policy, teacher, task, seeds, **how)
    plot = draw_robustness(report, arguments.plot or beside)
    if arguments.json:
        print(json.dumps({"seeds": arguments.seeds, **report}, indent=2))
        return
    print(f"{NOTE}. {len(seeds)} episodes each.\n\n{markdown(robustness_table(report))}\n")
    if "camera_use" in report:
        print(verdict(report))
    print(f"plot {plot}")


def print_scores(
    arguments: argparse.Namespace, task: "Task", report: dict[str, dict[str, float]], episodes: list[dict[str, float]]
) -> None:
    """Print a `score` as a table for people."""
    from Algorithm.Test_model import table

    how = "stochastic" if arguments.stochastic else "deterministic"
    views = "" if arguments.views == "none" else f", views {arguments.views}"
    print(f"{len(episodes)} episode{'s' * (len(episodes) > 1)}, {how}{views}\n{table(report, task)}")
    row = report["policy"]
    entropy = f"entropy {row['entropy']:.2f} nats"
    if "teacher" not in report:
        print(entropy)
        returns = (f"{one['seed']} ({one['return']:.1f})" for one in episodes[:3])
        print(f"lowest returns: seeds {', '.join(returns)}")
    else:
        print(
            f"action accuracy {row['action_accuracy']:.4f} on the states it visits, "
            f"{row['action_accuracy_on_teacher_states']:.4f} on the teacher's; {entropy}"
        )
        worst = [one for one in episodes[:3] if one["return"] < one["teacher_return"]]
        if worst:
            returns = (f"{one['seed']} ({one['return']:.1f}, teacher {one['teacher_return']:.1f})" for one in worst)
            print(f"furthest behind the teacher: seeds {', '.join(returns)}")
    if arguments.video:
        print(f"video {arguments.video}")


if __name__ == "__main__":
    main()
