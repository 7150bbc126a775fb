"""Distil a teacher into a student, Pusher's unless told otherwise: one command line, one experiment, one folder."""

import argparse
import dataclasses
from typing import Any

from Common.Command_line import OneLineParser, add_flag, one_line_errors, setting_as_flag
from Common.Errors import BadInput
from Distillation.Utils import METHODS, CommonConfig

GO_ON = "the same command goes on with a collection, and with a run with --resume (and without --overwrite)"


def parse(
    argv: list[str] | None = None, parser_type: type[OneLineParser] = OneLineParser
) -> tuple[CommonConfig, argparse.Namespace]:
    """Read the command line; bad input leaves with one line and status 2, unless the parser does something else."""
    parser = parser_type(
        description=__doc__,
        usage="%(prog)s --METHOD [settings]",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    method = parser.add_argument_group("method (exactly one)").add_mutually_exclusive_group(required=True)
    having: dict[str, dict[str, dataclasses.Field]] = {}  # [flag][method]
    for name, config_type in METHODS.items():
        method.add_argument(f"--{name}", dest="method", action="store_const", const=name, help=config_type.title)
        for field in dataclasses.fields(config_type):
            if field.name not in config_type.inherited:
                having.setdefault(field.name, {})[name] = field
    groups: dict[str, Any] = {}
    for name, fields in having.items():
        who = "every method" if len(fields) == len(METHODS) else " ".join(f"--{method}" for method in fields)
        if who not in groups:
            groups[who] = parser.add_argument_group(f"settings of {who}")
        add_flag(groups[who], [f"--{name}"], fields)
    parser.add_argument("--resume", action="store_true", default=False, help="continue the run where it was cut off")
    parser.add_argument(
        "--overwrite", action="store_true", default=False, help="replace the run (or dataset) if there is one"
    )
    arguments = parser.parse_args(argv)
    given = {name: value for name, value in vars(arguments).items() if name in having}
    try:
        for name in given:
            if arguments.method not in having[name]:
                raise BadInput(f"--{name} is no setting of --{arguments.method}, but of {', '.join(having[name])}")
        config = METHODS[arguments.method](**given)
        config.check()
    except BadInput as error:
        parser.error(setting_as_flag(error))
    return config, arguments


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    with one_line_errors("Pusher.py", GO_ON):
        config, arguments = parse(argv)
        from Enviroment.GL import choose_gl_backend

        choose_gl_backend()
        # Imported late: bad flags answer at once, and environment workers, which import this file, stay small.
        from Distillation.Experiment import run
        from Enviroment.Tasks import TASKS

        run(config, TASKS[config.task], arguments.resume, arguments.overwrite)


if __name__ == "__main__":
    main()
