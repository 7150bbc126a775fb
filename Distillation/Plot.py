"""Draw and compare runs: return and success against updates, samples and time, and a table of final scores.

Runs that differ only in their seeds are one curve: the interquartile mean over the runs and its 95 % bootstrap interval.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Common.Command_line import OneLineParser, one_line_errors
from Common.Files import write_text
from Distillation.Reports.Curves import WHAT, draw
from Distillation.Reports.Page import write_page
from Distillation.Reports.Runs import Run, find_runs, references
from Distillation.Reports.Tables import tables


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or with runs below")
    parser.add_argument("--what", choices=WHAT, default="return", help="what to draw (default: return, and success)")
    output = "files to write, without the ending (default: curve in the folder given, or here)"
    parser.add_argument("--output", type=Path, help=output)
    parser.add_argument("--html", type=Path, metavar="PAGE", help="also write one page that holds everything")
    arguments = parser.parse_args(argv)
    folder = arguments.runs[0] if len(arguments.runs) == 1 else Path()
    base = arguments.output or folder / ("curve" if arguments.what == "return" else arguments.what)
    base = base.with_suffix("") if base.suffix in (".png", ".svg", ".md") else base
    with one_line_errors(parser.prog):
        runs = find_runs(arguments.runs)
        picture = draw(runs, base, arguments.what)
        table = tables(runs)
        write_text(Path(f"{base}.md"), table + "\n")
        pages = [write_page(runs, arguments.html)] if arguments.html else []
        if references(runs, Run.score) is None:
            print("no common teacher: these runs were scored on different episodes or tasks", file=sys.stderr)
        print(f"{table}\n", picture, picture.with_suffix(".svg"), f"{base}.md", *pages, sep="\n")


if __name__ == "__main__":
    main()
