"""Run a study, a file of experiments: make the runs that are missing, then its table and plots. It can be stopped at any
time, and the same command continues it.

The file has settings of all runs in `[common]`, of which each takes those that its method has, and experiments in `[[runs]]`:
a `method` (a flag of Pusher.py, without the dashes), a `name`, its own settings, and `run_index`, a list ([0] unless given,
also in common). Any other list is a grid, an experiment for each value, such as one for each `task`. Every experiment is made
once in each of `[[groups]]`, if there are any, with the group's settings added to the common ones. DAgger has a `parent`: the
name of the experiment of cloning, further up, that it continues, index by index, and where that has lists, value by value.
PPD and the other methods by rollouts may have one of any method, which they begin with, or a student's file, `start_from`.
Paths are relative to the repository. Beside the picture of all experiments, `[pictures]` asks for pictures of a few:
`methods = ["PPD", "DAgger-*"]` is drawn as methods.png.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Common.Command_line import OneLineParser, one_line_errors
from Common.Errors import STOPS, BadInput, decoration
from Common.Files import ROOT, locked, write_text
from Distillation.Reports.Curves import draw
from Distillation.Reports.Profiles import draw_profiles
from Distillation.Reports.Runs import find_runs
from Distillation.Reports.Tables import tables
from Distillation.Studies.Engines import Engine, Local
from Distillation.Studies.File import Study, StudyRun, read_study
from Distillation.Studies.Jobs import missing_calls
from Distillation.Studies.Runner import Runner

HOW_TO_CONTINUE = "the same command continues the study"
STUDIES = Path(__file__).with_name("Studies")
StartEngine = Callable[[], AbstractContextManager[Engine]]


def write_results(folder: Path, study: Study, finished: Sequence[StudyRun]) -> None:
    """Write table and pictures of the released runs."""
    if not finished:
        print("nothing to draw yet")
        return
    found = find_runs([run.released for run in finished])
    table = tables(found)
    write_text(
        folder / "table.md",
        f"`python Distillation/Study.py {folder.name}`, {len(finished)} of {len(study.runs)} runs: interquartile means over the runs of "
        f"their closing OD episodes, and 95 % bootstrap intervals.\n\n{table}\n",
    )
    print(f"\n{table}\n\n{folder / 'table.md'}", flush=True)
    pictures = {"curve": {run.entry for run in finished}} | study.pictures
    for name, experiments in pictures.items():
        if some := [run.released for run in finished if run.entry in experiments]:
            with decoration(f"the picture {name}"):
                _name(draw(find_runs(some), folder / name))
    if len({run.task for run in found}) > 1:
        with decoration("the picture profiles"):
            _name(draw_profiles(found, folder / "profiles"))


def _name(picture: Path) -> None:
    print(picture, picture.with_suffix(".svg"), sep="\n")


def run_study(study: Study, folder: Path, start_engine: StartEngine | None, dry_run: bool) -> bool:
    """Make the missing runs on an engine, if there is one, and write the results; returns whether none failed."""
    start_engine = None if dry_run else start_engine
    with locked(folder / "runs") if start_engine else nullcontext():
        calls = missing_calls(study.runs)
        finished = _finished(study)
        print(f"{folder.name}: {len(finished)} of {len(study.runs)} runs finished")
        for run in study.runs:
            if run not in finished and (run.released / "summary.json").is_file():
                print(f"{run.name} counts as missing: {', '.join(run.unlike(run.released))}")
        if dry_run:
            for call in calls:
                if call.run in finished:
                    print(f"{call.name} has finished; it is made again for its weights, which another run continues:")
                print("Pusher.py", shlex.join(call.command))
            return True
        succeeded = True
        if start_engine and calls:
            with start_engine() as engine:
                succeeded = Runner(calls, engine, folder / "runs", finished).run()
        write_results(folder, study, _finished(study))
        return succeeded


def _finished(study: Study) -> list[StudyRun]:
    return [run for run in study.runs if run.finished(run.released)]


def _stop(number: int, _: object) -> NoReturn:
    """Stop the runs, which save. Further signals are ignored: a batch system may send several."""
    for other in STOPS:
        signal.signal(other, signal.SIG_IGN)
    print(f"stopping; {HOW_TO_CONTINUE}", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def choose_engine(arguments: argparse.Namespace, logs: Path) -> StartEngine | None:
    """Return a function that starts the engine of the command line, None for `--jobs 0`."""
    if arguments.ray is None:
        jobs = 1 if arguments.jobs is None else arguments.jobs
        if arguments.cpus is not None or arguments.gpus is not None:
            raise BadInput("--cpus and --gpus are for --ray")
        if jobs < 0:
            raise BadInput(f"--jobs {jobs}: 0 or more is needed")
        return (lambda: nullcontext(Local(jobs, logs))) if jobs else None
    if arguments.jobs is not None:
        raise BadInput("--jobs is for this machine; with --ray, --cpus and --gpus of a run say how many run at once")
    cpus, gpus = 1 if arguments.cpus is None else arguments.cpus, arguments.gpus or 0.0
    whole = gpus == int(gpus) if abs(gpus) < 1000 else False
    if cpus < 1 or not ((whole and gpus >= 0) or 0.01 <= gpus < 1):
        raise BadInput("--cpus of 1 or more is needed, and as --gpus a whole number, or a share of one such as 0.25")
    if find_spec("ray") is None:
        raise BadInput("--ray needs Ray: pip install 'ray[default]'")
    from Distillation.Studies.Ray import Ray

    return lambda: Ray.connected(arguments.ray, cpus, gpus, logs)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("study", help="a name in Distillation/Studies, or a .toml file")
    parser.add_argument("--jobs", type=int, help="runs at once; 0: only draw what there is (default: 1)")
    ray = "run on Ray instead: on the cluster at ADDRESS, whose machines share this folder, or on this machine"
    parser.add_argument("--ray", nargs="?", const="local", metavar="ADDRESS", help=ray)
    parser.add_argument("--cpus", type=int, help="with --ray: cores of a run (default: 1)")
    parser.add_argument("--gpus", type=float, help="with --ray: GPUs of a run; half of one each: 0.5 (default: 0)")
    parser.add_argument("--dry_run", action="store_true", help="print the missing calls of Pusher.py")
    parser.add_argument("--results_dir", default="Results", help="relative to the repository (default: Results)")
    arguments = parser.parse_args(argv)
    path = Path(arguments.study)
    path = path if path.suffix == ".toml" else STUDIES / f"{path}.toml"
    results = Path(os.path.expanduser(arguments.results_dir)) / "Studies" / path.stem
    with one_line_errors(parser.prog, HOW_TO_CONTINUE):
        for number in STOPS:
            signal.signal(number, _stop)
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in STUDIES.glob("*.toml")))
            raise BadInput(f"{path}: no such file; a study's .toml is needed, or one of {known}")
        start_engine = choose_engine(arguments, ROOT / results / "runs")
        succeeded = run_study(read_study(path, results), ROOT / results, start_engine, arguments.dry_run)
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
