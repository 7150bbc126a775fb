"""Any damaged file is noticed in one line, or of no account."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import Distillation.Experiment as experiment
import Distillation.Play as play
import Distillation.Plot as plot
from Distillation.Pusher import main
from Models.Model_Pusher import SHIPPED_TEACHER
from tests.helpers import ONLINE, SMALL, TRIES, Accepted, check, flags, outcome, pusher, pusher_cut_at, spoil


@pytest.fixture(scope="module")
def whole(collected, tmp_path_factory):
    """A dataset, a run of cloning, one of PPD, and one that was cut off."""
    results = tmp_path_factory.mktemp("whole")
    shutil.copytree(collected, results, copy_function=os.link, dirs_exist_ok=True)  # nothing writes into a file of it
    tiny = {"results_dir": results, "mode": "State", "video_every": 0}
    for arguments in (
        flags("BC_phase", SMALL | tiny, dataset="5k", alpha=0.6, run_name="parent"),
        flags("PPD", ONLINE | tiny, run_name="finished"),
    ):
        run = pusher(*arguments)
        assert run.returncode == 0, run.stderr
    pusher_cut_at(results, 2, *flags("PPD", ONLINE | tiny, run_name="run"))
    return results


RUN, PARENT, DATASET = "Pusher/PPD/run", "Pusher/OurAlgorithm1_NLL/Phase_One/parent", "Pusher/Teacher/dataset_5k"
FILES = {  # [what reads them]
    "resume": [f"{RUN}/{name}" for name in ("checkpoints/last.pt", "metrics.csv", "config.json")],
    "finished": ["Pusher/PPD/finished/summary.json"],
    "teacher": ["teacher.pt"],
    "dagger": [f"{PARENT}/{name}" for name in ("config.json", "checkpoints/last.pt", "checkpoints/best_ID.pt")],
    "clone": [f"{DATASET}/{name}" for name in ("meta.json", "mean.npy", "state.npy", "episode_start.npy", "seed.npy")],
    "play": [f"{RUN}/checkpoints/{name}" for name in ("last.pt", "best_ID.pt")],
    "plot": [f"{RUN}/metrics.csv", f"{RUN}/config.json", "Pusher/PPD/finished/summary.json"],
}


@st.composite
def damages(draw):
    """A reader, one of its files, and what is done to that."""
    reader = draw(st.sampled_from(sorted(FILES)))
    file = draw(st.sampled_from(FILES[reader]))
    kinds = ["cut", "flip", "noise", "swap", "empty", "gone", "folder"]
    kind = draw(st.sampled_from([*kinds, *["value"] * 5] if file.endswith(".json") else kinds))
    return reader, file, kind, draw(st.integers(0, 2**32 - 1))


def damage(path: Path, kind: str, seed: int, others: list[Path]) -> None:
    random = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "value":
        path.write_text(json.dumps(spoil(json.loads(content), random)))
    elif kind != "gone":
        if kind == "cut":
            del content[int(random.integers(len(content))) :]
        elif kind == "flip":
            for _ in range(int(random.integers(1, 9))):
                content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        elif kind == "noise":
            content = bytearray(random.bytes(len(content)))
        elif kind == "swap":
            content = bytearray(others[int(random.integers(len(others)))].read_bytes())
        path.write_bytes(b"" if kind == "empty" else content)


def reader(name: str, results: Path, file: str, monkeypatch):
    """Read a file as the program does, up to where training, scoring or drawing would begin."""

    def accept(*_, **__):
        raise Accepted

    tiny = {"results_dir": results, "mode": "State", "video_every": 0}
    if name == "resume":
        monkeypatch.setattr("Algorithm.Training.stop_requests", accept)
        return main, [*flags("PPD", ONLINE | tiny, run_name="run"), "--resume"]
    if name == "finished":
        return main, [*flags("PPD", ONLINE | tiny, run_name="finished"), "--resume"]
    if name in ("play", "plot"):
        program = {"play": play, "plot": plot}[name]
        monkeypatch.setattr(program, {"play": "score", "plot": "draw"}[name], accept)
        if name == "plot":
            return program.main, [str((results / file).parent)]
        return program.main, [str(results / file), "--seeds", "1900"]
    monkeypatch.setattr(experiment, "make_world", accept)
    if name == "teacher":
        return main, flags("PPD", ONLINE | tiny, run_name="new", teacher=results / "teacher.pt")
    if name == "clone":
        return main, flags("BC_phase", SMALL | tiny, dataset="5k", run_name="new")
    return main, ["--Dagger_phase", "--folder_Dagger", str(results / PARENT), "--results_dir", str(results)]


def test_any_damaged_file_is_noticed_in_one_line_or_of_no_account(whole, tmp_path, monkeypatch):
    shutil.copy(SHIPPED_TEACHER, whole / "teacher.pt")
    environments = {}
    made = experiment.make_world

    def shared(task, count, *arguments, **settings):
        if count not in environments:
            environments[count] = made(task, count, *arguments, **settings)
            environments[count].close_later, environments[count].close = environments[count].close, lambda: None
        return environments[count]

    files = sorted({file for names in FILES.values() for file in names})
    refused, accepted = set(), set()

    @settings(max_examples=100, **TRIES)
    @given(damages())
    def tries(case):
        name, file, kind, seed = case
        results = tmp_path / f"case{len(refused) + len(accepted)}"
        shutil.copytree(whole, results, copy_function=os.link)  # damage() and the program replace files
        damage(results / file, kind, seed, [whole / other for other in files])
        with monkeypatch.context() as patched:
            patched.setattr(experiment, "make_world", shared)
            call, words = reader(name, results, file, patched)
            status, errors = outcome(call, words)
        check(status, errors)
        (refused if status == 2 else accepted).add(case)
        shutil.rmtree(results)

    tries()
    for env in environments.values():
        env.close_later()
    # What a reader does not need may be damaged: a run goes on from its checkpoint, and writes its summary anew if it is gone.
    # One without a checkpoint begins again.
    unread = {("config.json", "empty"), ("config.json", "noise"), ("config.json", "gone"), ("summary.json", "gone")}
    accepted -= {case for case in accepted if case[:3] == ("resume", FILES["resume"][0], "gone")}
    accepted = {
        case for case in accepted if case[:2] != ("plot", FILES["plot"][2])
    }  # drawn as one that has not finished
    assert {(Path(f).name, kind) for _, f, kind, _ in accepted if kind in ("empty", "noise", "gone")} <= unread
    assert not [case for case in accepted if case[2] == "cut" and case[1].endswith((".pt", ".npy"))]
    assert len(refused) >= 60
