import dataclasses
import subprocess
import sys
import threading

import mujoco
import numpy as np
import pytest
import torch

from Algorithm.Test_model import Baseline, evaluate
from Common.Errors import BadInput
from Enviroment.Snapshot import restores_exactly, simulation
from Enviroment.Tasks import TASKS, Camera, Task, find_task
from Enviroment.Utils import make_env, make_vector_env, make_world
from Models.Model_Pusher import StateStatistics, make_student
from tests.helpers import skip_without_package

# An environment of 5 steps whose reward is 2, and 1 more where PyTorch is loaded.
FILE = """
import sys

import gymnasium as gym
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv

from Enviroment.Tasks import TASKS, Task
from beside_the_task import TWO


def reward():
    return TWO + float("torch" in sys.modules)


class Arm(ReacherEnv):
    def step(self, action):
        state, _, terminated, truncated, info = super().step(action)
        return state, reward(), terminated, truncated, info


gym.register("TestArm-v0", entry_point=f"{__name__}:Arm", max_episode_steps=5)
ARM = Task("Arm", "TestArm-v0", (0, 1), TASKS["Reacher"].cameras, success=lambda state: state[..., 0] < 0.1)
BAD = Task("a/b", "TestArm-v0", (0, 1), TASKS["Reacher"].cameras, success=lambda state: state[..., 0] < 0.1)
NUMBER = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "tasks.py").write_text(FILE)
    (folder / "beside_the_task.py").write_text("TWO = 2.0\n")
    (folder / "raises.py").write_text("import os\n\nraise RuntimeError('on\\npurpose')\n")
    (folder / "syntax.py").write_text("def broken(:\n")
    (folder / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "needs.py").write_text("import a_package_that_is_not_here\n")
    return folder


@pytest.fixture(scope="module")
def arm(folder):
    return find_task(f"{folder}/tasks.py:ARM")


def test_shipped_tasks_are_found_by_name():
    for name, task in TASKS.items():
        assert find_task(name) is task
        assert task.reference == task.name == name
        task.check()


@pytest.mark.parametrize("name", TASKS)
def test_a_shipped_task_fits_and_continues_exactly(name):
    task = TASKS[name]
    skip_without_package(task)
    env = task.make()
    task.check_environment(env, frames=True)
    state, _ = env.reset(seed=0)
    assert len(set(task.proprioception)) == len(task.proprioception) < len(state)
    state, _, _, _, info = env.step(np.zeros(env.action_space.shape, np.float32))
    assert task.measured(state, info).keys() >= task.measures.keys()
    assert restores_exactly(task.make)
    env.close()


@pytest.mark.parametrize("name", ["HalfCheetah", "Ant", "Walker2d"])
def test_a_walker_stays_in_the_picture_and_the_floor_below_it(name):
    """Far away, the picture is that of the start; half a floor tile further, it is another."""
    env, pictures = make_env(TASKS[name]), []
    start = env.reset(seed=0)[0]["Frame"]
    model, data = simulation(env)
    period = 2 * model.geom("floor").size[0] / model.mat_texrepeat[model.geom("floor").matid[0], 0]
    for periods in (450.0, 450.5):
        env.reset(seed=0)
        data.qpos[0] += periods * period
        mujoco.mj_forward(model, data)
        pictures.append(env.observation(env.env.observation(np.zeros(env.env.env.observation_space.shape)))["Frame"])
    assert np.abs(pictures[0].astype(int) - start).mean() < 1
    assert np.abs(pictures[1].astype(int) - start).mean() > 20
    env.close()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    for name, package, extra in (
        ("walker-walk", "dm_control", "dmc"),
        ("FetchReach", "gymnasium_robotics", "robotics"),
    ):
        module = TASKS[name].env_id.partition(":")[0]
        for key in [key for key in sys.modules if key == module or key.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, key)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(BadInput, match=rf"pip install -e '\.\[{extra}\]'"):
            TASKS[name].make()


def test_a_task_of_a_module_is_found(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    (folder / "my_module.py").write_text("from Enviroment.Tasks import TASKS\nMINE = TASKS['Reacher']\n")
    task = find_task("my_module:MINE")
    assert task == dataclasses.replace(TASKS["Reacher"], reference="my_module:MINE")
    assert find_task(task.reference) == task


def test_a_task_of_a_file_is_found_from_anywhere(folder, arm, monkeypatch):
    assert arm.reference == f"{folder}/tasks.py:ARM"
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    for reference in ("tasks.py:ARM", f"../{folder.name}/tasks.py:ARM", f"~/{folder.name}/tasks.py:ARM", arm.reference):
        assert find_task(reference) == arm  # the lambda is the same, so the file was executed once
    monkeypatch.chdir("/")
    assert find_task(arm.reference) == arm


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("Nothing", "FetchPush, package.module:NAME or path/to/tasks.py:NAME is needed"),
        ("", "task '' is unknown: Pusher"),
        ("tasks.py", "task tasks.py: the task's name in that file is missing: tasks.py:NAME is needed"),
        ("no_such_module:ARM", "No module named 'no_such_module'; a file is given as path/to/file.py:NAME"),
        ("Enviroment.nothing:ARM", "No module named 'Enviroment.nothing'; a file is given"),
        (":ARM", "fails while it is imported: ValueError"),
        ("Enviroment.Tasks:ARM", "Enviroment.Tasks has no 'ARM'; the tasks in it: none"),
        ("nothing.py:ARM", "/nothing.py: no such file"),
        ("~nobody_here/tasks.py:ARM", "no such file"),
        ("folder/tasks:ARM", "/folder/tasks: no such file"),
        ("tasks.py:LEG", "/tasks.py has no 'LEG'; the tasks in it: ARM, BAD"),
        ("tasks.py:NUMBER", "NUMBER is of type int; an Enviroment.Tasks.Task is needed"),
        ("tasks.py:BAD", "its name 'a/b' has to be a folder's name"),
        ("raises.py:ARM", "/raises.py, line 3: it fails while it is imported: RuntimeError: on purpose"),
        ("syntax.py:ARM", "SyntaxError: invalid syntax (syntax.py, line 1)"),
        ("exits.py:ARM", "line 2: it fails while it is imported: SystemExit: it ends Python with status 3"),
        ("needs.py:ARM", "line 1: it fails while it is imported: ModuleNotFoundError: No module named"),
    ],
)
def test_a_reference_that_leads_nowhere_is_one_line(reference, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput) as error:
        find_task(reference)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../up"}, "its name '../up'"),
        ({"name": None}, "its name None"),
        ({"env_id": ""}, "its env_id ''"),
        ({"proprioception": (0, -1)}, "its proprioception"),
        ({"proprioception": None}, "one of its fields has a wrong type"),
        ({"cameras": {}}, "its cameras {} have to be a dictionary"),
        ({"cameras": Camera()}, "its cameras Camera("),
        ({"cameras": {"Frame": None}}, "its camera Frame is of type NoneType"),
        ({"cameras": {"State": Camera()}}, "a camera cannot be called 'State'"),
        ({"cameras": {"to the left": Camera()}}, "a camera cannot be called 'to the left'"),
        ({"cameras": {"last_one": Camera()}}, "a camera cannot be called 'last_one'"),
        ({"cameras": {"top": Camera(rows=(10, 500))}}, "camera top: its crop 10 to 500"),
        ({"cameras": {"top": Camera(name="top", follow="arm")}}, "camera top is the model's 'top' and follows 'arm'"),
        ({"cameras": {"top": Camera(size=(0, 4))}}, "camera top: its size (0, 4)"),
        ({"cameras": {"top": Camera(frames="grey")}}, "its frames 'grey' have to be gray, rgb or depth"),
        ({"cameras": {"top": Camera(name="top", frames="depth")}}, "camera top: its depth_range 0 to 0"),
        ({"success": 3}, "its success 3 has to be a function of states, a key of info, or None"),
        ({"measures": {"distance": len}}, "its measure 'distance' has to be an Enviroment.Tasks.Measure"),
        ({"training": None}, "its training None has to be a dictionary"),
        ({"stack": 0}, "its stack, stack_stride and max_episode_steps"),
    ],
)
def test_a_task_that_is_wrong_in_itself_is_refused(changes, message):
    with pytest.raises(BadInput, match="task Pusher: ") as error:
        dataclasses.replace(TASKS["Pusher"], **changes).check()
    assert message in str(error.value)


def test_a_task_is_seen_by_its_first_camera_or_by_those_chosen():
    pusher = TASKS["Pusher"]
    assert list(pusher.seen) == ["Frame"]
    both = pusher.seen_by(("side", "Frame"), "rgb")
    assert {name: camera.shape for name, camera in both.seen.items()} == {"Frame": (3, 64, 128), "side": (3, 64, 128)}
    assert both.cameras["wrist"].frames == "gray"
    assert both.seen_by(("wrist",)).seen == {"wrist": pusher.cameras["wrist"]}
    with pytest.raises(BadInput, match="cameras top: Pusher has Frame, side, wrist"):
        pusher.seen_by(("top",))
    with pytest.raises(BadInput, match="task Cup: camera Frame: its depth_range 0 to 0"):
        Task("Cup", "Cup-v0", (0,), {"Frame": Camera(name="side")}).seen_by(frames="depth")


def test_a_rendering_keeps_the_form_of_older_files_and_tells_what_it_is_seen_by():
    pusher = TASKS["Pusher"]
    assert pusher.rendering("fast") == {
        **{"quality": "fast", "distance": 2.5, "lookat": [0.0, 0.2, 0.0], "azimuth": 270.0, "elevation": -90.0},
        **{
            "view": 480,
            "rows": [70, 230],
            "columns": [70, 410],
            "frame_size": [64, 128],
            "stack": 4,
            "stack_stride": 2,
        },
    }
    for names, kind in ((("Frame",), "gray"), (("Frame",), "depth"), (("side", "wrist"), "own"), (("wrist",), "rgb")):
        seen = pusher.seen_by(names, kind)
        assert pusher.seen_as(seen.rendering("full")).seen == seen.seen
    described = pusher.seen_by(("Frame", "side"), "depth").rendering("fast")
    assert described.keys() == {"quality", "cameras", "stack", "stack_stride"}
    assert described["cameras"]["side"]["depth_range"] == [0.8, 1.8]
    for damaged in ({"cameras": 3}, {"cameras": {"side": {}}}, {"cameras": {"side": {"frames": "grey"}}}):
        with pytest.raises(BadInput):
            pusher.seen_as(damaged)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "Nothing-v0"}, "cannot be made: Environment `Nothing` doesn't exist"),
        ({"env_id": "no_such_package:Nothing-v0"}, "cannot be made: No module named"),
        ({"proprioception": (0, 10)}, "observes 10 numbers; proprioception needs entry 10"),
        ({"env_id": "Taxi-v4"}, "acts in Discrete"),
        ({"env_id": "CartPole-v1", "proprioception": (0,)}, "acts in Discrete"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused_before_anything_starts(changes, message):
    task = dataclasses.replace(TASKS["Reacher"], **changes)
    for make in (make_env, lambda task, frames: make_world(task, 1, frames=frames)):
        with pytest.raises(BadInput) as error:
            make(task, frames=False)
        assert message in str(error.value)


def test_keywords_reach_the_environment():
    env = TASKS["Pusher"].make(reward_near_weight=2.5)
    assert env.unwrapped._reward_near_weight == 2.5
    env.close()


def test_a_file_with_its_own_environment_goes_through_workers(arm):
    """Its lambda, its class and the function that it calls, with frames; no worker has loaded PyTorch."""
    env = make_vector_env(arm, 3, 2, seed=0)
    world = make_world(arm, 3, 2)
    try:
        obs, first = env.reset()[0], world.reset(range(3))
        assert obs["Frame"].std() > 5
        np.testing.assert_array_equal(obs["Frame"], first["Frame"])
        for t in range(6):
            obs, reward, _, truncated, _ = env.step(np.full((3, 2), 0.1, np.float32))
            step = world.step(torch.full((3, 2), 0.1))
            assert reward.tolist() == step.reward.tolist() == [2.0] * 3
            assert truncated.tolist() == step.done.tolist() == [t == 4] * 3
            for key, value in obs.items():
                np.testing.assert_array_equal(value, step.obs[key])
    finally:
        env.close()
        world.close()


def test_a_task_and_an_environment_of_the_users_own_script_reach_the_workers(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import gymnasium as gym\n"
        "import numpy as np\n"
        "from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv\n"
        "from Enviroment.Tasks import TASKS, Task\n"
        "from Enviroment.Utils import make_vector_env\n"
        "if __name__ == '__main__':\n"
        "    gym.register('Mine-v0', lambda **keywords: ReacherEnv(**keywords), max_episode_steps=5)\n"
        "    task = Task('Mine', 'Mine-v0', (0,), TASKS['Reacher'].cameras, lambda state: state[..., 0] < 0.1)\n"
        "    env = make_vector_env(task, 2, 1, frames=False)\n"
        "    print(task.reference == '', env.reset(seed=0)[0]['State'].shape)\n"
        "    env.close()\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert result.stdout == "True (2, 10)\n", result.stderr


def test_a_task_that_cannot_be_sent_is_refused():
    lock = threading.Lock()
    task = Task("Locked", "Reacher-v5", (0,), TASKS["Reacher"].cameras, lambda state: lock and state[..., 0] < 0.1)
    with pytest.raises(BadInput, match="task Locked: cannot be sent to worker processes: cannot pickle"):
        make_world(task, 1, 1, frames=False)


def test_a_second_task_is_one_more_task():
    """Reacher through environment, frames, a student's forward pass, and evaluation."""
    reacher = TASKS["Reacher"]
    world = make_world(reacher, 2, 1)
    obs = world.reset([0, 1])
    assert obs["Frame"].shape == (2, 64, 64)
    assert obs["Frame"].float().std() > 5
    statistics = StateStatistics(np.zeros(10), np.ones(10))
    torch.manual_seed(0)
    student = make_student("ImpaalaSmall", world.spaces, world.action_space, reacher.proprioception, statistics, 4)
    actions = student.act(student.memory(2).see(obs, torch.ones(2, dtype=torch.bool)))
    assert actions.shape == (2, 2)
    result = evaluate(student, world, reacher, range(3), teacher=Baseline(world.action_space))
    assert result.returns.shape == (3,)
    assert (result.returns < 0).all()
    world.close()
