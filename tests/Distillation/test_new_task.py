"""The page on tasks of one's own: its robot, its task and its commands work as they stand, here with tiny budgets."""

import re
import shlex

import pytest

from Common.Files import read_json
from Distillation import Check, Inspection
from Enviroment.Tasks import find_task
from Enviroment.Utils import resumes_exactly
from tests.helpers import ONLINE, ROOT, pusher

TINY = {
    "Mujoco_main.py": "--total-timesteps 200 --num-envs 2 --learning-starts 100 --gradient-steps 1 --hidden 16 --batch-size 16 "
    "--buffer-size 1000 --device cpu --wandb-mode disabled --results-dir {0}/runs",
    "SaveWeights.py": "--output {0}/teacher.pt",
    "Check.py": "--teacher {0}/teacher.pt --output {0}",
    "Pusher.py": "--teacher {0}/teacher.pt --results_dir {0} "
    + " ".join(f"--{name} {value}" for name, value in ONLINE.items() if name != "mode"),
    "Play.py": "--teacher {0}/teacher.pt --device cpu --num_workers 1 --seeds 1900",
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "new_task.md").read_text(), re.DOTALL)


@pytest.fixture
def quick(monkeypatch):
    """A look at a task that takes seconds; no speed is measured."""
    monkeypatch.setattr(Inspection, "NUM_ENVS", 4)
    monkeypatch.setattr(Inspection, "STEPS", 20)
    monkeypatch.setattr(Inspection, "EPISODES", range(2000, 2002))
    monkeypatch.setattr(Inspection, "_hours", lambda *arguments: 1.0)
    monkeypatch.setattr("Algorithm.Probe.UPDATES", 2)


def test_the_page_leads_from_a_robot_to_a_student(tmp_path, monkeypatch, quick, capsys):
    (robot,), (task,), (commands,) = blocks("xml"), blocks("python"), blocks("bash")
    assert len([line for line in (task + commands).splitlines() if line]) <= 30
    (tmp_path / "arm.xml").write_text(robot)
    (tmp_path / "arm.py").write_text(task)
    monkeypatch.chdir(tmp_path)
    assert resumes_exactly(find_task("arm.py:MINE"))

    shown = []
    for line in commands.splitlines():
        program, script, *words = shlex.split(line.replace("Results/Arm/Teacher", ".").replace("Results", "."))
        name = script.rpartition("/")[2]
        words += TINY[name].format(tmp_path).split()
        assert program == "python"
        shown.append(name)
        if name == "Check.py":
            Check.main(words)
            assert "resuming is exact" in capsys.readouterr().out
        else:
            run = pusher(*words, script=script, cwd=tmp_path)
            assert run.returncode == 0, run.stderr
    assert shown == [*TINY]
    summary = read_json(tmp_path / "Arm" / "PPD" / "first" / "summary.json")["OD"]
    assert {"success", "final_distance"} <= summary["student"].keys()
    assert (tmp_path / "check.png").is_file()
    assert (tmp_path / "arm.gif").is_file()
