"""Teachers from code: any function of states."""

import numpy as np
import pytest
import torch

from Algorithm.Policies import open_teacher
from Algorithm.seeds import DATASET_FIRST_SEED
from Algorithm.Teacher_source import teacher_hash, teacher_source, whole_reference
from Common.Errors import BadInput
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_env
from Models.Model_Pusher import SHIPPED_TEACHER
from tests.helpers import flags, pusher

REACHER = TASKS["Reacher"]
PLANNER = """
import numpy as np
import torch

def steer(states):
    return 3 * states[:, 8:10]

network = torch.nn.Linear(10, 2)

def learned(states):
    return network(torch.from_numpy(states))

def short(states):
    return np.zeros(len(states))

def infinite(states):
    return np.full((len(states), 2), np.inf)

def broken(states):
    return states[0, 99]

number = 3
"""


@pytest.fixture
def planner(tmp_path):
    path = tmp_path / "planner.py"
    path.write_text(PLANNER)
    return path


def test_a_function_is_a_clipped_gaussian_around_its_actions(planner, monkeypatch):
    teacher = open_teacher(f"{planner}:steer", REACHER)
    states = np.random.default_rng(0).normal(0, 0.5, (6, 10)).astype(np.float32)
    np.testing.assert_allclose(teacher.act({"State": states}), np.clip(3 * states[:, 8:10], -1, 1), atol=1e-6)
    policy = teacher.distribution({"State": torch.from_numpy(states)})
    assert policy.log_std.exp().unique().tolist() == pytest.approx([0.1])
    assert teacher_source(f"{planner}:steer", REACHER) == planner
    monkeypatch.chdir(planner.parent)
    assert whole_reference(f"{planner.name}:steer") == f"{planner}:steer"
    assert whole_reference(planner.name) == str(planner)
    assert whole_reference("package.module:steer") == "package.module:steer"
    assert whole_reference(None) is None
    with pytest.raises(BadInput, match=r"teacher \[1\]: a file"):
        teacher_source([1], REACHER)
    assert teacher_hash(f"{planner}:steer", REACHER) != teacher_hash(f"{planner}:learned", REACHER)
    assert open_teacher(f"{planner}:learned", REACHER).act({"State": states}).shape == (6, 2)


def test_its_statistics_are_those_of_its_episodes(planner):
    teacher = open_teacher(f"{planner}:steer", REACHER)
    env, seen = make_env(REACHER, frames=False), []
    for seed in range(DATASET_FIRST_SEED, DATASET_FIRST_SEED + 4):
        obs, _ = env.reset(seed=seed)
        done = False
        while not done:
            seen.append(obs["State"])
            obs, _, terminated, truncated, _ = env.step(teacher.act({"State": obs["State"][None]})[0])
            done = terminated or truncated
    env.close()
    np.testing.assert_allclose(teacher.statistics.mean, np.mean(seen, axis=0), atol=1e-5)
    np.testing.assert_allclose(teacher.statistics.std, np.std(seen, axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("reference", "message"),
    {
        "planner.py:short": r"actions of shape \[2\] for states \[2, 10\], not \[2, 2\]",
        "planner.py:infinite": "not finite",
        "planner.py:broken": "IndexError",
        "planner.py:number": "no function 'number'",
        "nothing.py:f": "no such file",
        "no.such.module:f": "no.such",
        "damaged.py:f": "SyntaxError",
    }.items(),
)
def test_what_is_no_teacher_is_refused(reference, message, planner, monkeypatch):
    monkeypatch.chdir(planner.parent)
    (planner.parent / "damaged.py").write_text("def f(:")
    with pytest.raises(BadInput, match=message):
        open_teacher(reference, REACHER)


def test_a_teacher_of_another_task_is_refused():
    with pytest.raises(BadInput, match="Pusher"):
        open_teacher(SHIPPED_TEACHER, REACHER)


def test_a_student_learns_from_a_function(planner, tmp_path):
    tiny = {"task": "Reacher", "teacher": f"{planner}:steer", "mode": "State", "optimization_steps": 4, "episodes": 1}
    tiny |= {
        "final_episodes": 1,
        "robustness_episodes": 0,
        "num_envs": 2,
        "rollout_steps": 8,
        "minibatch_size": 8,
        "epochs": 1,
        "num_workers": 1,
    }
    run = pusher(*flags("PPD", tiny, device="cpu", wandb_mode="disabled", results_dir=tmp_path))
    assert run.returncode == 0, run.stderr
    student = tmp_path / "Reacher" / "PPD" / "lambda5_State_run0"
    assert torch.load(student / "checkpoints" / "best_ID.pt", weights_only=True)["arguments"]["family"] == "clipped"
    played = pusher(
        student, "--teacher", f"{planner}:steer", "--seeds", "1900", "--device", "cpu", script="Distillation/Play.py"
    )
    assert played.returncode == 0, played.stderr
