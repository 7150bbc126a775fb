"""Distil a teacher into a student: one command line, one experiment, one folder."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Algorithm import Teacher_source
from Common.Command_line import OneLineParser, add_flag, one_line_errors, setting_as_flag
from Common.Errors import BadInput
from Distillation.Utils import JOBS, Job, task_of
from Enviroment import Views


def parse(
    argv: Sequence[str] | None = None, parser_type: type[OneLineParser] = OneLineParser
) -> tuple[Job, argparse.Namespace]:
    """Read the command line; bad input ends in the parser's `error`, by default with one line and status 2."""
    usage = "%(prog)s --METHOD [settings]"
    parser = parser_type(description=__doc__, usage=usage, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    method = parser.add_argument_group("method (exactly one)").add_mutually_exclusive_group(required=True)
    having: dict[str, dict[str, dataclasses.Field]] = {}  # [setting][method]
    for name, job_type in JOBS.items():
        method.add_argument(f"--{name}", dest="method", action="store_const", const=name, help=job_type.title)
        for setting, field in job_type.flags().items():
            having.setdefault(setting, {})[name] = field
    groups: dict[str, Any] = {}
    for name, fields in having.items():
        who = "every method" if len(fields) == len(JOBS) else " ".join(f"--{method}" for method in fields)
        if who not in groups:
            groups[who] = parser.add_argument_group(f"settings of {who}")
        add_flag(groups[who], [f"--{name}"], fields)
    parser.add_argument("--resume", action="store_true", default=False, help="continue the run where it was cut off")
    parser.add_argument(
        "--overwrite", action="store_true", default=False, help="replace the run (or dataset) if there is one"
    )
    arguments = parser.parse_args(argv)
    given = {name: value for name, value in vars(arguments).items() if name in having}
    for name in given:
        if arguments.method not in having[name]:
            parser.error(f"--{name} is no setting of --{arguments.method}, but of {', '.join(having[name])}")
    job = JOBS[arguments.method].of(given)
    try:
        job.check()
        task = task_of(job)
        if "stack" in job.flags() and "stack" not in given and job.flat()["mode"] != "State":
            job = job.replace(stack=task.stack)
        world = {"task": task.reference, "cameras": task.chosen, "frames": task.frames}
        whole = {
            "views": Views.whole_reference(job.world.views),
            "teacher": Teacher_source.whole_reference(job.place.teacher),
        }
        return job.replace(**world, **whole), arguments
    except BadInput as error:
        parser.error(setting_as_flag(error))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    words = sys.argv[1:] if argv is None else argv
    changes = [" with --resume"] * ("--C_data" not in words) + [" without --overwrite"] * ("--overwrite" in words)
    with one_line_errors("Pusher.py", f"the same command{' and'.join(changes)} continues it"):
        job, arguments = parse(argv)
        from Enviroment.GL import choose_gl_backend, find_gl_backend

        settings = job.flat()
        renders = settings.get("mode") != "State" or settings.get("collect", False)
        (choose_gl_backend if renders else find_gl_backend)()  # else only the videos are left out
        # Imported late: bad flags are answered at once, and environment workers, which import this file, stay small.
        from Distillation.Experiment import run

        run(job, arguments.resume, arguments.overwrite)


if __name__ == "__main__":
    main()
