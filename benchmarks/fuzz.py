"""Give every command bad input: does each end in one line, with no traceback, and is nothing lost?

    python benchmarks/fuzz.py --inputs 200

An input is a sound command line that was spoilt, or one whose files were: cut, changed bit by bit or value by value, of
another kind, gone. The flags are those of the commands' own parsers. Each input runs in a fork of this process, in a copy of
the repository that is mended after each. What is refused has to leave every file as it was and no new one; what is accepted
may write what its command line names. Prints JSON; exit status 1 if there is a problem.
"""

import argparse
import atexit
import contextlib
import gc
import importlib
import json
import math
import os
import random
import re
import resource
import runpy
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from fuzz_inputs import CUT, EXECUTED, MAKING, RELEASED, SHIPPED, SOUND, TEACHER, make_files, spoil_file, spoil_words

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("Common", "Enviroment", "Models", "Algorithm", "Distillation", "Train_Teacher_Pusher")
SILENT_S, STOPPED_S, TALKING_S = 180.0, 20.0, 6.0  # what is accepted and talks is told to stop, and has time for it
MEMORY = 16 * 2**30  # bytes of addresses
PLACES = {"Mujoco_main": "Train_Teacher_Pusher", "SaveWeights": "Train_Teacher_Pusher"}
State = dict[str, tuple[Any, ...]]
DEFAULTS = {"Check": f"{TEACHER}/check", "SaveWeights": f"{TEACHER}/teacher.pt"}  # written unless told otherwise


@dataclass
class Result:
    """How a command ended: its exit status, negative for a signal, and its output."""

    status: int
    out: str
    err: str
    hung: bool = False
    cut: bool = False  # it was told to stop, since it had begun to work


def script(name: str) -> str:
    """Return a command's file in the repository."""
    return f"{PLACES.get(name, 'Distillation')}/{name}.py"


def run(name: str, words: Sequence[str], work: Path, talking_s: float = TALKING_S) -> Result:
    """Run a command in a fork of this process, in the folder `work`."""
    outputs = [work.with_name(f"{stream}.txt") for stream in ("out", "err")]
    for output in outputs:
        output.write_bytes(b"")
    pid = os.fork()
    if not pid:
        _be(str(work / script(name)), words, work, outputs)
    started, spoke, told, hung, cut = time.monotonic(), 0.0, 0.0, False, False
    patience = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # on a machine that others use as well
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        time.sleep(0.01)
        now = time.monotonic()
        if told and now > told + STOPPED_S * patience:
            hung = True
            os.killpg(pid, signal.SIGKILL)
            told = now
        elif not told:
            spoke = spoke or now * any(output.stat().st_size for output in outputs)
            cut, hung = 0 < spoke < now - talking_s, not spoke and now > started + SILENT_S * patience
            if cut or hung:
                os.kill(pid, signal.SIGTERM)
                told = now
    texts = [output.read_text(errors="surrogateescape") for output in outputs]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # whatever it started
    return Result(os.waitstatus_to_exitcode(ended[1]), texts[0], texts[1], hung, cut)


def _be(path: str, words: Sequence[str], work: Path, outputs: Sequence[Path]) -> NoReturn:
    """Become a script, and end as Python would."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(work)
        for number, file in enumerate([Path(os.devnull), *outputs]):
            os.dup2(os.open(file, os.O_RDWR | os.O_APPEND), number)
        sys.stdout, sys.stderr = (open(number, "w", 1, closefd=False) for number in (1, 2))  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        sys.argv, sys.path[0] = [path, *words], os.path.dirname(path)
        runpy.run_path(path, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(status & 255)


def state(work: Path) -> State:
    """Return every file and folder with what changes when it is written; of folders only that they are there."""
    found: State = {}
    for folder, folders, files in os.walk(work):
        for name in [*folders, *files]:
            what = os.lstat(path := os.path.join(folder, name))
            kept = () if os.path.isdir(path) else (what.st_ino, what.st_size, what.st_mtime_ns)
            found[os.path.relpath(path, work)] = (what.st_mode, *kept)
    return found


class Place:
    """A folder to work in, and a sound copy of it, from which it is mended."""

    def __init__(self, folder: Path):
        self.work, self.sound = folder / "work", folder / "sound"
        if not self.sound.exists():
            shutil.copytree(self.work, self.sound, symlinks=True, ignore=shutil.ignore_patterns("fifo"))
        self.known = state(self.work)
        self.files = [path for name in self.known if (path := self.work / name).is_file() and path.suffix != ".npy"]
        self.files = sorted(path for path in self.files if path.relative_to(self.work).parts[0] not in ROOMS)

    def mend(self) -> None:
        """Make everything as it was."""
        now = state(self.work)
        wrong = {name for name in now.keys() | self.known.keys() if now.get(name) != self.known.get(name)}
        for name in sorted(wrong, reverse=True):
            path = self.work / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for name in sorted(wrong & self.known.keys()):
            path = self.sound / name
            if path.is_dir():
                (self.work / name).mkdir(exist_ok=True)
            else:
                shutil.copy2(path, self.work / name, follow_symlinks=False)
        if wrong:
            self.known = state(self.work)


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return a command's parser, caught when it is about to read the command line."""
    from Common.Command_line import OneLineParser

    found: list[argparse.ArgumentParser] = []

    def catch(parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        found.append(parser)
        raise SystemExit

    module = importlib.import_module(script(name)[:-3].replace("/", "."))
    caught = patch.object(OneLineParser, "parse_known_args", catch), patch.object(sys, "argv", [f"{name}.py"])
    with caught[0], caught[1], contextlib.suppress(SystemExit):
        module.main()
    return found[0]


def judge(place: Place, result: Result, name: str, words: Sequence[str], before: State) -> Iterator[str]:
    """Yield what is wrong with how a command ended and with what it left."""
    lines = result.err.splitlines()
    if result.hung:
        yield "hangs"
    if result.status < 0 and not result.hung and not (result.cut and result.status == -signal.SIGTERM):  # at its end
        yield f"ended by signal {-result.status}"
    if "Traceback" in result.err + result.out:
        yield "traceback"
    elif re.search(r"\w+Warning\b", result.err):
        yield "a warning of Python's"
    refused = result.status not in (0, 1) and not result.cut  # 1: it was accepted, and its run failed
    if result.status > 0 and not result.cut:
        errors = [line for line in lines if re.match(r"\w+\.py: error: ", line)]
        if len(errors) != 1 or errors != lines[-1:]:
            yield f"{len(errors)} lines of error, and others"
        elif any(not line.startswith(("warning: ", "checking ")) and "%|" not in line for line in lines[:-1]):
            yield "other lines on stderr"
        elif len(errors[0]) > 1200:
            yield "a long line"
    after, changed = state(place.work), []
    if EXECUTED in after:
        yield "a file was executed"
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        allowed = not refused and (old is None or _may_change(path, name, words))
        if old != new and not allowed and not (old and _same(place, path)):
            changed.append(f"{path} is {'new' if old is None else 'gone' if new is None else 'changed'}")
    if changed:
        yield f"lost or left behind: {', '.join(changed[:4])}"


def _same(place: Place, path: str) -> bool:
    files = [folder / path for folder in (place.work, place.sound)]
    return all(file.is_file() for file in files) and files[0].read_bytes() == files[1].read_bytes()


def _may_change(path: str, name: str, words: Sequence[str]) -> bool:
    """Return whether an accepted command may change a file: one that it names, a run's to continue or to replace, a default."""
    named = [os.path.normpath(word.rpartition("=")[2]) for word in words]
    inside = any(path == word or path.startswith((f"{word}/", f"{os.path.splitext(word)[0]}.")) for word in named)
    usual = name in DEFAULTS and path.startswith(DEFAULTS[name])
    return inside or usual or bool({"--resume", "--overwrite"} & {*words})


def fuzz(place: Place, name: str, numbers: Sequence[int], seed: int) -> dict[str, Any]:
    """Try some inputs of a command; returns what became of them."""
    kinds = ("refused", "accepted", "cut", "traceback", "hangs", "lost")
    count, problems = dict.fromkeys(kinds, 0), []
    actions = parser_of(name)._actions
    names = sorted(str(path.relative_to(place.work)) for path in place.files)
    for number in numbers:
        choose = random.Random(f"{seed} {name} {number}")
        line, more = choose.choice(SOUND[name])
        words, damage = line.split(), ""
        read = [place.work / path for path in (*more, *words) if "/" in path or "." in path]
        if (read := [path for path in read if path.exists()]) and choose.random() < 0.45:
            damage = spoil_file(choose.choice(read), place.files, choose)
        for _ in range(choose.choice([0, 0, 0, 1] if damage else [1, 2])):
            spoil_words(words, actions, names, choose)
        before = state(place.work)
        result = run(name, words, place.work)
        found = list(judge(place, result, name, words, before))
        place.mend()
        outcomes = [problem.partition(" ")[0] for problem in found]
        outcomes = outcomes or ["cut" if result.cut else "accepted" if result.status < 2 else "refused"]
        for kind in kinds:
            count[kind] += kind in outcomes
        repeat = f"--commands {name} --seed {seed} --first {number} --inputs 1"
        case: dict[str, Any] = {"repeat": repeat, "damage": damage}
        case |= {"command": shlex.join([f"{name}.py", *words]), "status": result.status, "problems": found}
        print(json.dumps(case | {"said": result.err[-200:]}), file=sys.stderr, flush=True)
        if found:
            problems.append(case | {"stderr": result.err[-1500:]})
    return {"inputs": len(numbers), **count, "problems": problems}


def import_everything(work: Path) -> None:
    """Import the product from a copy of it, and leave out what takes most of a tiny run's or check's time."""
    sys.path.insert(0, str(work))
    sys.dont_write_bytecode = True
    os.environ["MUJOCO_GL"] = "disable"  # imported once, it must not open a display, which a fork cannot use
    paths = [path.relative_to(work).with_suffix("") for room in ROOMS for path in sorted((work / room).rglob("*.py"))]
    late = "matplotlib.pyplot matplotlib.backends.backend_agg imageio.v2 imageio_ffmpeg sb3_contrib"
    for name in (*(".".join(path.parts).removesuffix(".__init__") for path in paths), *late.split()):
        importlib.import_module(name)
    quick = {"EPISODES": range(2000, 2002), "NUM_ENVS": 8, "STEPS": 40, "MODE": "ImpaalaSmall", "SECONDS": 0.1}
    pictures = {"write_video": _empty, "draw": _empty}
    changes: dict[str, dict[str, Any]] = {"Distillation.Inspection": quick, "Algorithm.Probe": {"UPDATES": 5}}
    changes |= {"Distillation.Experiment": pictures, "Train_Teacher_Pusher.callbacks": {"write_video": _empty}}
    for module, values in changes.items():
        for name, value in values.items():
            getattr(sys.modules[module], name)  # it has to be there
            setattr(sys.modules[module], name, value)
    sys.modules["torch"].set_num_threads(1)
    find_gl_backend = sys.modules["Enviroment.GL"].find_gl_backend
    del os.environ["MUJOCO_GL"]
    find_gl_backend.cache_clear()
    find_gl_backend()
    gc.collect()
    gc.freeze()


def prepare(folder: Path) -> Place:
    """Copy the repository's code and shipped files, import it, and make sound files by its commands, unless they are there."""
    work, sound = folder / "work", folder / "sound"
    made = sound.exists()
    if made:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(sound, work, symlinks=True)
    for copy in (work, sound) if made else (work,):
        for room in ROOMS:
            shutil.rmtree(copy / room, ignore_errors=True)
            shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    home = folder / "home"
    home.mkdir(exist_ok=True)
    os.environ |= {"PYTHONPATH": str(work), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home), "OMP_NUM_THREADS": "1"}
    import_everything(work)
    if made:
        make_files(work)
        return Place(folder)
    for path in (*(ROOT / TEACHER).iterdir(), ROOT / SHIPPED):
        if path.is_file():
            (work / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, work / path.relative_to(ROOT))
    make_files(work)
    for line in MAKING:
        name, *words = line.split()
        print(line, file=sys.stderr, flush=True)
        if (result := run(name, words, work, math.inf)).status:
            sys.exit(f"{line}: {result.err or result.out}")
    for source, released in RELEASED.items():
        for end in ("config.json", "summary.json", "metrics.csv"):
            (work / released).mkdir(parents=True, exist_ok=True)
            shutil.copy2(work / source / end, work / released / end)
    for end in ("summary.json", "page.html"):  # it was cut off before its report
        (work / CUT / end).unlink()
    return Place(folder)


def _empty(*arguments: Any, **_: Any) -> Path:
    path = next(argument for argument in arguments if isinstance(argument, Path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=200, help="of each command")
    parser.add_argument("--first", type=int, default=0, help="number of the first, to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=list(SOUND), default=list(SOUND))
    parser.add_argument("--keep", type=Path, help="make the sound files there, or use those that are there")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())  # a TemporaryDirectory would be removed where a fork ends
    try:
        place, numbers = prepare(folder.resolve()), range(arguments.first, arguments.first + arguments.inputs)
        counts = {name: fuzz(place, name, numbers, arguments.seed) for name in arguments.commands}
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    from common import machine

    print(json.dumps({"machine": machine(), "commands": counts}, indent=2))
    sys.exit(any(count["problems"] for count in counts.values()))


if __name__ == "__main__":
    main()
