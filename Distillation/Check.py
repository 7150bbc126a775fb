"""Look at a task, and at its teacher if there is one, before training: can a student see enough, and how long will it take?

It takes about two minutes on two cores, and names a remedy for every problem it finds.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Common.Command_line import OneLineParser, one_line_errors
from Common.Files import RESULTS, check_output, read_json, write_json
from Enviroment.Task import KINDS

if TYPE_CHECKING:  # the command line answers before PyTorch is loaded
    from Distillation.Inspection import Report
    from Enviroment.Task import Task

CHECK, SHEET = "check{}.json", "check{}.png"  # in `Results/<task>/Teacher`, with the selection of cameras
CALLED = {"teacher": "the teacher", "zero": "the zero action", "random": "random actions"}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--task", default="Pusher", help="a task's name, package.module:NAME, or path/to/file.py:NAME")
    teacher = (
        "teacher file, package.module:function or file.py:function; Results/<task>/Teacher/teacher.pt unless given"
    )
    parser.add_argument("--teacher", help=teacher)
    parser.add_argument(
        "--output", type=Path, help="folder of check.json and check.png; Results/<task>/Teacher unless given"
    )
    parser.add_argument("--cameras", nargs="+", default=[], metavar="NAME", help="the task's first unless given")
    kinds = ", ".join(("own", *KINDS))
    parser.add_argument("--frames", default="own", choices=("own", *KINDS), help=f"{kinds} (default: own)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments = parser.parse_args(argv)
    with one_line_errors(parser.prog):
        from Enviroment.GL import choose_gl_backend
        from Enviroment.Tasks import find_task

        choose_gl_backend()
        task = find_task(arguments.task).seen_by(arguments.cameras, arguments.frames)
        check(task, arguments.teacher, arguments.output or RESULTS / task.name / "Teacher", arguments.json)


def check(task: "Task", reference: str | None, folder: Path, as_json: bool) -> None:
    """Inspect a task and a teacher, print the findings, and write them and a sheet of frames to `folder`."""
    from Algorithm.Policies import open_teacher
    from Algorithm.Teacher_source import teacher_source
    from Distillation.Inspection import inspect

    sheet, findings = (folder / name.format(task.selection) for name in (SHEET, CHECK))
    check_output(sheet)
    source = teacher_source(reference, task)
    known = reference is not None or source.is_file()
    teacher = open_teacher(reference, task) if known else None
    if not as_json:
        print(f"checking {task.name}: about two minutes", file=sys.stderr, flush=True)
    report = inspect(task, teacher, source, sheet)
    content: dict[str, Any] = {"of": identity(task, reference, known), **report.facts}
    content["problems"] = report.problems
    write_json(findings, content)
    print(json.dumps(content, indent=2) if as_json else words(report, task, sheet))


def identity(task: "Task", reference: str | None, has_teacher: bool = True) -> dict[str, Any]:
    """Return what a check is of: the task, what its cameras show, and the teacher."""
    from Algorithm.Teacher_source import teacher_hash

    shown = {name: value for name, value in task.rendering("").items() if name != "quality"}
    return {"task": task.reference, "shown": shown, "teacher": teacher_hash(reference, task) if has_teacher else None}


def unchecked(task: "Task", reference: str | None) -> str:
    """Return a warning unless this task and teacher were checked as they are now; empty if they were."""
    path = RESULTS / task.name / "Teacher" / CHECK.format(task.selection)
    if path.is_file() and read_json(path).get("of") == identity(task, reference):
        return ""
    given = f"--teacher {shlex.quote(reference)} " if reference else ""
    return (
        f"warning: {task.name} was never checked with this camera and teacher; in two minutes "
        f"Distillation/Check.py --task {shlex.quote(task.reference)} {given}{task.flags}tells whether it can work"
    )


def words(report: "Report", task: "Task", sheet: Path) -> str:
    """Lay out the findings for people."""
    from Distillation.Inspection import READ, ranges

    facts = report.facts
    env, camera = facts["environment"], facts["camera"]
    bounds = {f"[{low:g}, {high:g}]" for low, high in zip(env["action_low"], env["action_high"])}
    early = ", ".join(f"{share:.0%} with {CALLED[who]}" for who, share in env["ends_early"].items() if share)
    lines = [
        (
            "environment",
            f"{env['id']}, at most {env['max_episode_steps']} steps; episodes that end early: {early or 'none'}",
        ),
        ("", f"{env['state']} numbers of state, {env['proprioception']} of them proprioception"),
        ("", f"{len(env['action_low'])} actions in {' '.join(sorted(bounds))}"),
        ("", f"resuming is {'exact' if env['exact_resume'] else 'not exact'}"),
    ]
    for who, row in facts["returns"].items():
        success = f", success {row['success']:.2f}" if "success" in row else ""
        lines.append(
            (who, f"return {row['return']:.2f} ± {row['return_std']:.2f} in {row['length']:.0f} steps{success}")
        )
    lines.append(("", f"(mean ± standard deviation of {facts['episodes']['number']} episodes)"))
    if original := facts.get("original"):
        recorded = "no record of it in the teacher's file"
        if original["recorded"]:
            recorded = f"return {original['return']:.2f} ± {original['return_std']:.2f} when it was taken over ({original['algorithm']}); actions "
            recorded += f"differ by at most {original['action_difference']:.1e} of half their range"
        lines.append(("original", recorded))
    if teacher := facts.get("teacher"):
        lines.append(("saturated", f"{teacher['saturated']:.1%} of the teacher's actions"))
    for name, read in camera["read"].items():
        whose = f" of {name}" if len(camera["read"]) > 1 else ""
        told = "tell of the state beside proprioception: a probe's R² on held-out episodes, at most 1"
        lines.append(("camera", f"what {task.stack} frames{whose} {told}"))
        seen = {entry: score for entry, score in read.items() if score >= READ}
        lines += [("", f"state[{entry}]  {score:.2f}") for entry, score in seen.items()]
        if unseen := {entry: score for entry, score in read.items() if entry not in seen}:
            lines.append(("", f"state[{ranges(unseen)}]  {max(unseen.values()):.2f} or less: not seen"))
    if camera["constant"]:
        lines.append(("", f"state[{ranges(camera['constant'])}] did not move"))
    hours, updates = facts["time"]["hours"], facts["time"]["updates"]
    lines.append(
        (
            "time now",
            f"{updates:,} updates of {facts['time']['mode']}: " + ", ".join(f"{k} {v:.1f} h" for k, v in hours.items()),
        )
    )
    lines.append(("picture", str(sheet)))
    problems = report.problems or ["none found"]
    lines += [
        ("problems" if i == 0 else "", f"{'- ' if report.problems else ''}{problem}")
        for i, problem in enumerate(problems)
    ]
    return "\n".join(f"{name:<13}{text}" for name, text in lines)


if __name__ == "__main__":
    main()
