"""The inputs of `fuzz.py`: sound command lines, the files that they read, and how both are spoilt."""

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

NUMBERS = """0 -1 1 2 7 2.5 1e-3 nan inf -inf 1e999 1e308 0x10 1_000 १ -0.0 1000000 4294967296 99999999999999999999 1- 3-1
1900-1900 1900,,1 0-99999999999 1:2@3 --PPD -- - State ImpaalaMid auto 10k None True äöü 名前 ../.. ~ ~nobody/x cuda cuda:99
mps gray warp small os:system math:sin nothing.here:NAME tasks.py:act tasks.py:SHORT tasks.py: :act"""
WORDS = [*NUMBERS.split(), "", " ", "a\nb", "[1, 2]", "%s {}", "\udcff", "\x1b[31m", "x" * 300]
PATHS = "gone/file.pt . Results fifo loop dangling empty.pt empty.toml noise.zip /dev/null /dev/zero /dev/full bom.toml"
PATHS += " /proc/self/mem tasks.py/x pickle.pt pickle.pkl \udcff.pt new/\udcff.onnx new/film.mp4 new/plot.png"
ODD_PATHS = [*PATHS.split(), "a b/ä.toml", "x" * 300 + ".toml"]
VALUES: list[Any] = [
    None,
    -1,
    0,
    1e999,
    float("nan"),
    2**70,
    "",
    "x",
    "ä",
    [],
    {},
    [1, "a"],
    True,
    [[]],
    {"a": {}},
    "/dev/null",
]
CODE = (
    "\x00|[[[|raise KeyError|import sys; sys.exit(3)|print(|= 3|ä = 1|" + "x" * 500
)  # what stands in texts by mistake

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
device = "cpu"
optimization_steps = 4
test_every = 2
episodes = 1
final_episodes = 1
robustness_episodes = 0
num_workers = 1
video_every = 0
minibatch_size = 8
num_envs = 2
rollout_steps = 8
epochs = 1

[[runs]]
name = "BC"
method = "BC_phase"
dataset = "5k"

[[runs]]
name = "PPD"
method = "PPD"

[[runs]]
name = "views"
method = "PPD"
views = "views.toml"
mode = "ImpaalaSmall"
PPD_parameter = [1.0, 5.0]
run_index = [0, 1]
"""
PARENT = "results/Pusher/OurAlgorithm1_NLL/Phase_One/parent"
DONE, CUT = "results/Pusher/PPD/done", "results/Pusher/PPD/cut"
DATASET, TEACHER = "results/Pusher/Teacher/dataset_5k", "Results/Pusher/Teacher"
SHIPPED = "Results/Pusher/Students/PPD.pt"
RELEASED = {
    PARENT: "results/Studies/study/BC/run0",
    DONE: "results/Studies/study/PPD/run0",
}  # the same runs, of the study
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
        (f"--PPD {ONLINE} --run_name cut --resume", (CUT,) * 3),
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
        (f"{TEACHER}/sac.zip --output teacher.pt --task tasks.py:SHORT", (f"{TEACHER}/sac_vecnormalize.pkl",)),
        (
            f"{TEACHER}/sac.zip --output teacher.pt --statistics {TEACHER}/sac_vecnormalize.pkl --task tasks.py:SHORT",
            (),
        ),
        ("teachers/done/best.zip --output new/teacher.pt --task tasks.py:SHORT", ("teachers/done/best.zip",)),
        (
            "teachers/done/best.zip --output new/teacher.pt --task tasks.py:SHORT",
            ("teachers/done/best_vecnormalize.pkl",),
        ),
    ],
    "Study": [
        ("study.toml --results_dir results --dry_run", ("views.toml",)),
        (
            "study.toml --results_dir results --jobs 0",
            (*RELEASED.values(),),
        ),
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
        (f"{DONE} --output new.pt", (f"{DONE}/checkpoints",)),
        ("student.pt --output student_2.pt --seeds 1900", ()),
        (f"{TEACHER}/teacher.pt --output new.onnx", ()),
    ],
}

EXECUTED = "executed"  # the folder that a pickle makes where it is loaded
KNOWN = (".json", ".toml", ".csv", ".py", ".pt", ".npy", ".zip", ".pkl")


class Foreign:
    """Executes something where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (EXECUTED,)


def make_files(work: Path) -> None:
    """Make what command lines name: a task, views, a study, and a pipe, loops of links, files that are empty or noise."""
    for name, text in (("tasks.py", TASKS), ("views.toml", VIEWS), ("study.toml", STUDY)):
        (work / name).write_text(text)
    os.mkfifo(work / "fifo")
    for name, target in (("loop", "loop"), ("dangling", "gone")):
        (work / name).unlink(missing_ok=True)
        (work / name).symlink_to(target)
    (work / "a b").mkdir(exist_ok=True)
    (work / "a b" / "ä.toml").write_text("light = 0.1\n")
    (work / "bom.toml").write_bytes(b"\xef\xbb\xbflight = 0.1\n\xff")
    for name in ("empty.pt", "empty.toml"):
        (work / name).touch()
    (work / "noise.zip").write_bytes(random.Random(0).randbytes(5000))
    torch.save({"format": "teacher", "version": 1, "weights": Foreign()}, work / "pickle.pt")
    (work / "pickle.pkl").write_bytes(pickle.dumps(Foreign()))


def spoil_file(path: Path, others: Sequence[Path], choose: random.Random) -> str:
    """Spoil a file, or one in a folder; returns what was done."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.suffix in KNOWN and file.is_file())
        return spoil_file(choose.choice(inside), others, choose) if inside else "nothing"
    kinds = ["cut", "flip", "noise", "empty", "swap", "gone", "folder", "loop", *["inside"] * 8]
    kind = choose.choice(kinds)
    content = bytearray(path.read_bytes())
    changed = None
    if kind == "inside":
        with contextlib.suppress(Exception):  # of what its format cannot hold
            changed = spoil_inside(path, bytes(content), choose)
    if changed is not None:
        content[:] = changed
    elif kind in ("cut", "inside"):
        del content[choose.randrange(len(content) + 1) :]
    elif kind == "flip":
        for _ in range(choose.randint(1, 8) if content else 0):
            content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    elif kind in ("noise", "empty"):
        content[:] = choose.randbytes(len(content)) if kind == "noise" else b""
    elif kind == "swap":
        content[:] = choose.choice(others).read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind != "gone":
        path.write_bytes(content)
    return f"{kind} {path.name}"


def spoil_inside(path: Path, content: bytes, choose: random.Random) -> bytes | None:
    """Return a file's content in its own format with something else somewhere in it; None for formats it does not know."""
    if path.suffix == ".json":
        return json.dumps(spoil_value(json.loads(content), choose)).encode()
    if path.suffix in (".toml", ".csv", ".py"):
        return spoil_text(content.decode(), choose).encode()
    buffer = io.BytesIO()
    if path.suffix in (".pt", ".pth"):
        tensors = torch.load(io.BytesIO(content), weights_only=True)
        torch.save(spoil_value(tensors, choose), buffer)
    elif path.suffix == ".npy":
        array = np.load(io.BytesIO(content))
        changes = [
            array[:-1],
            array[:0],
            array[..., None],
            array.astype(np.float64),
            array.astype("U8"),
            ~array.astype(bool),
        ]
        changes += [array.ravel()[::-1], np.full_like(array, np.nan if array.dtype.kind == "f" else -1 % 256)]
        np.save(buffer, choose.choice(changes))
    elif path.suffix == ".zip":
        _spoil_zip(content, buffer, choose)
    elif path.suffix == ".pkl":
        found = pickle.loads(content)
        values: list[Any] = [None, [], {}, 1.5, {"obs_rms": 1}, Foreign(), np.zeros(3)]
        inner = [vars(found), *(vars(part) for part in vars(found).values() if hasattr(part, "__dict__"))]
        spoil_value(choose.choice(inner), choose)
        pickle.dump(choose.choice([*values, *[found] * len(values)]), buffer)
    else:
        return None
    return buffer.getvalue()


def _spoil_zip(content: bytes, buffer: io.BytesIO, choose: random.Random) -> None:
    """Write a zip in which one member is spoilt, or missing."""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = choose.choice([*old.namelist(), "data", "data", "policy.pth"])
        for name in old.namelist():
            member = old.read(name)
            if name == chosen:
                member = spoil_inside(Path("data.json" if name == "data" else name), member, choose) or member[:-1]
            if name != chosen or choose.random() < 0.8:
                new.writestr(name, member)


def spoil_value(value: Any, choose: random.Random) -> Any:
    """Replace, rename or remove something somewhere in a nested value, mostly in place."""
    if isinstance(value, torch.Tensor):
        changes = [value[..., :0], value[None], value.double(), value.flatten()[:1], value * float("nan"), value.bool()]
        return choose.choice([*changes, value.tolist() if value.numel() < 100 else 0, None])
    keys = [*value] if isinstance(value, dict) else [*range(len(value))] if isinstance(value, list) else []
    if not keys or choose.random() < 0.05:
        return choose.choice(VALUES)
    key = choose.choice(keys)
    if isinstance(value, dict) and choose.random() < 0.15:
        moved = value.pop(key)
        if choose.random() < 0.5:
            value[f"{key}x" if isinstance(key, str) else -1] = moved
    else:
        value[key] = spoil_value(value[key], choose)
    return value


def spoil_text(text: str, choose: random.Random) -> str:
    """Change a line of a text, or a word of it."""
    lines = text.splitlines()
    number = choose.choice([i for i, line in enumerate(lines) if line.strip()] or [0])
    kind = choose.choice(["gone", "twice", "garbage", "word", "word", "word", "word"])
    if kind == "word":
        words = lines[number].replace(",", " , ").replace("=", " = ").split()
        words[choose.randrange(len(words))] = choose.choice([*NUMBERS.split(), "[]", "{}", '"x"', "true", "[[runs]]"])
        lines[number] = " ".join(words)
    else:
        garbage = choose.choice(CODE.split("|"))
        lines[number : number + 1] = {"gone": [], "twice": [lines[number]] * 2, "garbage": [garbage]}[kind]
    return "\n".join(lines) + "\n"


def spoil_words(
    words: list[str], actions: Sequence[argparse.Action], files: Sequence[str], choose: random.Random
) -> None:
    """Change a command line in one place: a flag with any value, a word gone, twice or another path."""
    kind = choose.choice(["flag", "flag", "flag", "flag", "switch", "path", "path", "gone", "twice", "unknown"])
    switches = [action for action in actions if action.nargs == 0 and action.dest != "help"]
    paths = [number for number, word in enumerate(words) if "/" in word or "." in word]
    if kind == "switch" and switches:
        words.append(choose.choice(choose.choice(switches).option_strings))
    elif kind == "path" and paths:
        words[choose.choice(paths)] = choose.choice([*ODD_PATHS, *files])
    elif kind == "gone" and words:
        words.pop(choose.randrange(len(words)))
    elif kind == "twice" and words:
        words.insert(choose.randrange(len(words)), choose.choice(words))
    elif kind == "unknown":
        words.append(choose.choice(["--nothing", "--nothing=1", "-x", "--tes", "extra", "--help=3", "@file"]))
    else:
        action = choose.choice([action for action in actions if action.nargs != 0])
        pools = [WORDS, WORDS, ODD_PATHS, [*(action.choices or ["x"])], files]
        count = action.nargs if isinstance(action.nargs, int) else choose.choice([1, 1, 1, 0, 2])
        values = [str(choose.choice(choose.choice(pools))) for _ in range(count)]
        flag = choose.choice(action.option_strings or [""])
        if flag in words and choose.random() < 0.7:
            words[words.index(flag) + 1 : words.index(flag) + 2] = values
        else:
            given = [f"{flag}={value}" for value in values] if choose.random() < 0.2 and flag else [flag, *values]
            words += given[not flag :]
