"""Give every command bad input: does each end in one line, with no traceback, and is nothing lost?

    python benchmarks/fuzz.py --inputs 200

An input is a sound command line that was spoilt, or one whose files were: cut, changed bit by bit or value by value, of
another kind, gone. The flags are those of the commands' own parsers. Each input runs in a fork of this process, which has
imported everything, in a copy of the repository that is mended after each. What is refused has to leave every file as it
was and no new one; what is accepted may write what its command line names. Prints JSON; exit status 1 if there is a problem.
"""

import argparse
import atexit
import contextlib
import gc
import importlib
import json
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from spoil import NUMBERS, PATHS, WORDS, make_odd_files, spoil_file

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("Common", "Enviroment", "Models", "Algorithm", "Distillation", "Train_Teacher_Pusher")
SILENT_S, STOPPED_S, TALKING_S = 20.0, 10.0, 12.0  # how long a command may say nothing, take to stop, and go on if it is fine
MEMORY = 16 * 2**30  # bytes of addresses

TASKS = """
import numpy as np
from Enviroment.Tasks import TASKS
from dataclasses import replace

SHORT = replace(TASKS["Pusher"], name="Short", max_episode_steps=8, training={"gamma": 0.9})


def act(states):
    return np.zeros((len(states), 7), np.float32)
"""
VIEWS = 'base = "small"\nlight = 0.2\nnoise = 5.0\ndelayed_frames = 1\n'
TEST = "--test_every 2 --episodes 1 --final_episodes 1 --robustness_episodes 0 --num_workers 1 --device cpu "
TEST += "--wandb_mode disabled"
RUN = f"{TEST} --results_dir results --optimization_steps 4 --minibatch_size 8 --video_every 0"
ONLINE = f"{RUN} --num_envs 2 --rollout_steps 8 --epochs 1"
LABEL = f"{RUN} --rollout_samples 100 --rollout_updates 100 --num_envs 1"
SAC = "--total-timesteps 40 --num-envs 2 --hidden 8 --batch-size 4 --eval-freq 20 --wandb_mode disabled"
SAC += " --results-dir teachers --device cpu"
OFF = f"{SAC} --learning-starts 10 --buffer-size 100 --gradient-steps 1"
STUDY = """
[pictures]
cloning = ["B*"]

[common]
mode = "State"
device = "cpu"
optimization_steps = 200
test_every = 100
episodes = 1
final_episodes = 1
robustness_episodes = 0
num_workers = 1

[[runs]]
name = "BC"
method = "BC_phase"
dataset = "5k"
alpha = [0.0, 0.6]

[[runs]]
name = "PPD"
method = "PPD"
views = "views.toml"
mode = "ImpaalaSmall"
run_index = [0, 1]
"""
PARENT, DONE = "results/Pusher/OurAlgorithm1_NLL/Phase_One/parent", "results/Pusher/PPD/done"
DATASET, TEACHER, SHIPPED = "results/Pusher/Teacher/dataset_5k", "Results/Pusher/Teacher", "Results/Pusher/Students/PPD.pt"
# What makes the sound files, in order.
MAKING = (
    "Pusher --C_data --num_data 5000 --num_workers 1 --results_dir results --device cpu",
    f"Pusher --BC_phase {RUN} --dataset 5k --run_name parent",
    f"Pusher --PPD {ONLINE} --run_name done",
    f"Pusher --PPD {ONLINE} --run_name cut",
    f"Mujoco_main {OFF} --run-name done",
    f"Export {SHIPPED} --output student.pt",
)
# Sound command lines, and files or folders that they read beside those that they name.
SOUND: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "Pusher": [
        (f"--PPD {ONLINE}", (f"{TEACHER}/teacher.pt",)),
        (f"--PPD {ONLINE} --mode ImpaalaSmall --views views.toml --cameras side", ()),
        (f"--PPD {ONLINE} --run_name cut --resume", ("results/Pusher/PPD/cut",) * 3),
        (f"--PPD {ONLINE} --run_name done --overwrite", ()),
        (f"--PPD {ONLINE} --start_from {DONE}", ()),
        (f"--Sdistillation {ONLINE} --task tasks.py:SHORT --teacher tasks.py:act", ("tasks.py",) * 3),
        (f"--Tdistillation {ONLINE} --teacher_noise 0.1 --teacher {TEACHER}/early_26.pt", ()),
        (f"--BC_phase {RUN} --dataset 5k --alpha 0.6 --loss_type KL", (DATASET,) * 3),
        (f"--Dagger_phase {LABEL} --folder_Dagger {PARENT}", (PARENT, PARENT, DATASET)),
        ("--C_data --num_data 200 --num_envs 2 --num_workers 1 --results_dir results", ()),
        ("--C_data --num_data 5000 --export_minari minari --num_workers 1 --results_dir results", (DATASET,)),
    ],
    "Mujoco_main": [
        (f"{OFF} --run-name new", ()),
        (f"{SAC} --algorithm ppo --n-steps 8 --n-epochs 1 --run-name new", ()),
        (f"{OFF} --algorithm td3 --task tasks.py:SHORT --run-name new", ("tasks.py",) * 3),
        (f"{OFF} --run-name done --resume --total-timesteps 60", ("teachers/done",) * 4),
        (f"{OFF} --run-name done --overwrite", ()),
    ],
    "SaveWeights": [
        (f"{TEACHER}/sac.zip --output teacher.pt", (f"{TEACHER}/sac_vecnormalize.pkl",)),
        (f"{TEACHER}/sac.zip --output teacher.pt --statistics {TEACHER}/sac_vecnormalize.pkl", ()),
        ("teachers/done/best.zip --output new/teacher.pt --task tasks.py:SHORT", ("teachers/done/best_vecnormalize.pkl",)),
    ],
    "Study": [
        ("study.toml --results_dir results --dry_run", ("views.toml",)),
        ("study.toml --results_dir results --jobs 0", ("results/Studies/study/BC-alpha0.0/run0",)),
    ],
    "Check": [
        (f"--teacher {TEACHER}/teacher.pt --output checks", ()),
        ("--task tasks.py:SHORT --teacher tasks.py:act --output checks --json", ()),
        (f"--cameras side --frames rgb --output checks --teacher {TEACHER}/early_26.pt", ()),
    ],
    "Play": [
        (f"{DONE} --seeds 1900 --num_workers 1", (f"{DONE}/checkpoints",)),
        (f"{SHIPPED} --seeds 1900,1901 --num_workers 1 --json --device cpu", ()),
        (f"student.pt --views views.toml --seeds 1900 --num_workers 1 --teacher {TEACHER}/early_26.pt", ()),
        (f"{DONE}/checkpoints/best_ID.pt --seeds 1900 --num_workers 1 --video film.gif --beside {PARENT}", ()),
        (f"{TEACHER}/teacher.pt --seeds 1900-1901 --num_workers 1 --stochastic", ()),
    ],
    "Export": [
        (f"{SHIPPED} --output new/student.pt", ()),
        (f"{DONE} --output new.onnx", (f"{DONE}/checkpoints",)),
        (f"student.pt --output student_2.pt --seeds 1900", ()),
        (f"{TEACHER}/teacher.pt --output new.onnx", ()),
    ],
}
PLACES = {"Mujoco_main": "Train_Teacher_Pusher", "SaveWeights": "Train_Teacher_Pusher"}
DEFAULTS = {"Check": f"{TEACHER}/check", "SaveWeights": f"{TEACHER}/teacher.pt", "Export": ""}  # written unless told otherwise


@dataclass
class Result:
    """How a command ended: its exit status, negative for a signal, and its output."""

    status: int
    out: str
    err: str
    hung: bool = False
    cut: bool = False  # it was told to stop, since it had begun to work


@dataclass
class Count:
    """What became of the inputs of a command."""

    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    cut: int = 0
    tracebacks: int = 0
    hangs: int = 0
    lost: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)


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
    started, told, hung, cut = time.monotonic(), 0.0, False, False
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        time.sleep(0.01)
        now = time.monotonic()
        if told and now > told + STOPPED_S:
            hung = True
            os.killpg(pid, signal.SIGKILL)
            told = now
        elif not told:
            cut = now > started + talking_s and any(output.stat().st_size for output in outputs)
            hung = now > started + SILENT_S and not cut
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


def state(work: Path) -> dict[str, tuple[Any, ...]]:
    """Return every file and folder with what changes when it is written; of folders only that they are there."""
    found: dict[str, tuple[Any, ...]] = {}
    for folder, folders, files in os.walk(work):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            what = os.lstat(path)
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
    with patch.object(OneLineParser, "parse_known_args", catch), patch.object(sys, "argv", [f"{name}.py"]):
        with contextlib.suppress(SystemExit):
            module.main()
    return found[0]


def spoil_words(words: list[str], actions: Sequence[argparse.Action], files: Sequence[str], choose: random.Random) -> None:
    """Change a command line in one place: a flag with any value, a word gone, twice or another path."""
    kind = choose.choice(["flag", "flag", "flag", "flag", "switch", "path", "path", "gone", "twice", "unknown"])
    switches = [action for action in actions if action.nargs == 0 and action.dest != "help"]
    paths = [number for number, word in enumerate(words) if "/" in word or "." in word]
    if kind == "switch" and switches:
        words.append(choose.choice(choose.choice(switches).option_strings))
    elif kind == "path" and paths:
        words[choose.choice(paths)] = choose.choice([*PATHS, *files])
    elif kind == "gone":
        words.pop(choose.randrange(len(words)))
    elif kind == "twice":
        words.insert(choose.randrange(len(words)), choose.choice(words))
    elif kind == "unknown":
        words.append(choose.choice(["--nothing", "--nothing=1", "-x", "--tes", "extra", "--help=3", "@file"]))
    else:
        action = choose.choice([action for action in actions if action.nargs != 0])
        pools = [NUMBERS, WORDS, PATHS, [*(action.choices or ["x"])], files]
        count = action.nargs if isinstance(action.nargs, int) else choose.choice([1, 1, 1, 0, 2])
        values = [str(choose.choice(choose.choice(pools))) for _ in range(count)]
        flag = choose.choice(action.option_strings or [""])
        if flag in words and choose.random() < 0.7:
            words[words.index(flag) + 1 : words.index(flag) + 2] = values
        else:
            given = [f"{flag}={value}" for value in values] if choose.random() < 0.2 and flag else [flag, *values]
            words += given[not flag :]


def judge(place: Place, result: Result, name: str, words: Sequence[str], before: dict[str, tuple[Any, ...]]) -> Iterator[str]:
    """Yield what is wrong with how a command ended and with what it left."""
    lines = result.err.splitlines()
    if result.hung:
        yield "hangs"
    if result.status < 0 and not result.hung:
        yield f"ended by signal {-result.status}"
    if "Traceback" in result.err + result.out:
        yield "traceback"
    elif re.search(r"\w+Warning\b", result.err):
        yield "a warning of Python's"
    refused = result.status != 0 and not result.cut
    if refused and result.status > 0:
        errors = [line for line in lines if re.match(r"\w+\.py: error: ", line)]
        if len(errors) != 1 or errors != lines[-1:]:
            yield f"{len(errors)} lines of error, and others"
        elif any(not line.startswith(("warning: ", "checking ")) and "%|" not in line for line in lines[:-1]):
            yield "other lines on stderr"
        elif len(errors[0]) > 1200:
            yield "a long line"
    after, changed = state(place.work), []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new and (refused or old is not None) and not (old and _same(place, path)):
            if refused or not _may_change(path, name, words):
                changed.append(f"{path} is {'new' if old is None else 'gone' if new is None else 'changed'}")
    if changed:
        yield f"lost or left: {', '.join(changed[:4])}"


def _same(place: Place, path: str) -> bool:
    files = [folder / path for folder in (place.work, place.sound)]
    return all(file.is_file() for file in files) and files[0].read_bytes() == files[1].read_bytes()


def _may_change(path: str, name: str, words: Sequence[str]) -> bool:
    """Return whether an accepted command may change a file: one that it names, a run's to continue or to replace, a default."""
    named = [os.path.normpath(word.rpartition("=")[2]) for word in words]
    inside = any(path == word or path.startswith((f"{word}/", f"{os.path.splitext(word)[0]}.")) for word in named)
    return inside or bool({"--resume", "--overwrite"} & {*words}) or (name in DEFAULTS and path.startswith(DEFAULTS[name]))


def fuzz(place: Place, name: str, numbers: Sequence[int], seed: int) -> Count:
    """Try some inputs of a command."""
    count = Count()
    parser = parser_of(name)
    names = sorted(str(path.relative_to(place.work)) for path in place.files)
    for number in numbers:
        choose = random.Random(f"{seed} {name} {number}")
        line, more = choose.choice(SOUND[name])
        words = line.split()
        read = [place.work / path for path in (*more, *words) if "/" in path or "." in path]
        read = [path for path in read if path.exists()]
        damage = []
        if read and choose.random() < 0.45:
            damage.append(spoil_file(choose.choice(read), place.files, choose))
        for _ in range(choose.choice([0, 0, 0, 1]) if damage else choose.choice([1, 1, 2])):
            if words:
                spoil_words(words, parser._actions, names, choose)
        words = [word for word in words if "\x00" not in word]
        before = state(place.work)
        result = run(name, words, place.work)
        problems = list(judge(place, result, name, words, before))
        place.mend()
        count.inputs += 1
        count.refused += result.status > 0 and not (problems or result.cut)
        count.accepted += result.status == 0 and not problems
        count.cut += result.cut and not problems
        count.tracebacks += "traceback" in problems
        count.hangs += "hangs" in problems
        count.lost += any(problem.startswith("lost") for problem in problems)
        if problems:
            again = f"--commands {name} --seed {seed} --first {number} --inputs 1"
            case = {"repeat": again, "command": shlex.join([f"{name}.py", *words]), "damage": damage}
            count.problems.append(case | {"problems": problems, "status": result.status, "stderr": result.err[-600:]})
        said = (result.err.strip().splitlines() or [""])[-1][:220]
        told = f"{name} {number} {damage} {shlex.join(words)[-150:]!r}: {result.status} {problems or ''} {said}"
        print(told.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)
    return count


def prepare(folder: Path) -> Place:
    """Copy the repository's code and its shipped files, import all of it from there, and make sound files by the commands."""
    work, made = folder / "work", (folder / "sound").exists()
    for room in ROOMS:
        for copy in (work, folder / "sound") if made else (work,):
            shutil.rmtree(copy / room, ignore_errors=True)
            shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(work))
    os.environ |= {"PYTHONPATH": str(work), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(work), "OMP_NUM_THREADS": "1"}
    os.environ |= {"MUJOCO_GL": "disable"}  # imported once, it must not open a display, which a fork cannot use
    sys.dont_write_bytecode = True
    for path in sorted(path for room in ROOMS for path in (work / room).rglob("*.py")):
        importlib.import_module(".".join(path.relative_to(work).with_suffix("").parts).removesuffix(".__init__"))
    for module in ("matplotlib.pyplot", "matplotlib.backends.backend_agg", "imageio.v2", "imageio_ffmpeg", "sb3_contrib"):
        importlib.import_module(module)
    import torch

    from Distillation import Experiment

    torch.set_num_threads(1)
    for picture in ("write_video", "draw"):  # most of a tiny run's time
        setattr(Experiment, picture, _empty)
    from Enviroment.GL import find_gl_backend

    del os.environ["MUJOCO_GL"]
    find_gl_backend.cache_clear()
    find_gl_backend()
    gc.collect()
    gc.freeze()
    if made:
        return Place(folder)
    for place, ends in (("Results/Pusher/Teacher", "*.*"), ("Results/Pusher/Students", "PPD.pt")):
        (work / place).mkdir(parents=True)
        for path in (ROOT / place).glob(ends):
            if path.is_file():
                shutil.copy2(path, work / place)
    for name, text in (("tasks.py", TASKS), ("views.toml", VIEWS), ("study.toml", STUDY)):
        (work / name).write_text(text)
    make_odd_files(work)
    for line in MAKING:
        name, *words = line.split()
        print(line, file=sys.stderr, flush=True)
        if (result := run(name, words, work, 300.0)).status:
            sys.exit(f"{line}: {result.err or result.out}")
    for path in ("summary.json", "page.html"):  # it was cut off before its report
        (work / "results/Pusher/PPD/cut" / path).unlink()
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
    with tempfile.TemporaryDirectory() as temporary:
        place = prepare((arguments.keep or Path(temporary)).resolve())
        numbers = range(arguments.first, arguments.first + arguments.inputs)
        counts = {name: fuzz(place, name, numbers, arguments.seed) for name in arguments.commands}
    from common import machine

    print(json.dumps({"machine": machine(), "commands": {name: vars(c) for name, c in counts.items()}}, indent=2))
    sys.exit(any(count.problems for count in counts.values()))


if __name__ == "__main__":
    main()
