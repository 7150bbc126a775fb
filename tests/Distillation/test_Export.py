"""Exported policies act as they did."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from Algorithm.Policies import open_policy
from Distillation import Export
from Distillation.Reports.Commands import commands
from Enviroment.Utils import make_env
from Models.Model_Pusher import SHIPPED_TEACHER, get_Teacher_model, load_student, make_student, save_student
from tests.helpers import ROOT


def exported(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["card"])


def student_file(folder, task, mode="ImpaalaMid", proprioception=range(17), memory="none"):
    """A student whose actions differ from frame to frame and state to state, and its file."""
    env = make_env(task)
    teacher = get_Teacher_model()
    torch.manual_seed(1)
    student = make_student(
        mode, env.observation_space, env.action_space, proprioception, teacher.statistics, task.stack, memory=memory
    )
    with torch.no_grad():
        student.actor[-1].weight.mul_(100)
    card = {"task": "Pusher", "method": "BC_phase", "mode": mode, "precision": "bf16"}
    card["render"] = task.rendering("fast")
    save_student(folder / "student.pt", student, card)
    env.close()
    return student.eval(), folder / "student.pt"


def test_a_card_says_what_trains_such_a_student():
    policy, card, task = open_policy(ROOT / "Results" / "Reacher" / "Students" / "DAgger.pt")
    described = Export.describe_policy(policy, card, task)
    told = "\n".join(["What trains it, with defaults for all else:", "", "```bash", *commands(card)])
    assert told in Export.card_text(described, "DAgger.pt", task)
    other = Export.card_text(described | {"teacher_sha256": "of another"}, "DAgger.pt", task)
    assert "What trains it with another `--teacher` than Reacher's own, with" in other
    assert "What trains it" not in Export.card_text(described | {"method": "mine"}, "DAgger.pt", task)


@pytest.mark.parametrize("mode", ["ImpaalaMid", "State", "teacher"])
def test_an_exported_model_acts_as_the_policy_does(mode, task, tmp_path, capsys):
    policy, path = (get_Teacher_model(), SHIPPED_TEACHER) if mode == "teacher" else student_file(tmp_path, task, mode)
    Export.main([str(path), "--output", str(tmp_path / "out" / "model.onnx")])
    assert "card" in capsys.readouterr().out
    session, card = exported(tmp_path / "out" / "model.onnx")
    assert (card["env_id"], card["mode"]) == ("Pusher-v5", mode)
    assert "Pusher-v5" in (tmp_path / "out" / "model.md").read_text()
    random = np.random.default_rng(0)
    state = random.standard_normal((5, 23)).astype(np.float32)
    frames = random.integers(0, 256, (5, 4, 64, 128), dtype=np.uint8)
    inputs = {"state": state, "proprioception": state[:, :17], "frames": frames}
    assert set(card["inputs"]) == {input.name for input in session.get_inputs()}
    (actions,) = session.run(None, {name: inputs[name] for name in card["inputs"]})
    expected = policy.act({"State": state, "PartialState": state[:, :17], "Frame": frames})
    assert np.ptp(expected, axis=0).max() > 0.5
    np.testing.assert_allclose(actions, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("cameras", "kind", "proprioception", "memory"),
    [
        (["Frame"], "gray", range(17), "gru"),
        (["Frame", "side"], "rgb", range(17), "none"),
        (["side"], "depth", None, "none"),
    ],
)
def test_an_exported_student_runs_without_torch_and_sees_the_same(
    task, tmp_path, cameras, kind, proprioception, memory
):
    """The example's frames, drawn by MuJoCo's own renderer, are the environment's, and so is its return."""
    task = task.seen_by(cameras, kind)
    student, path = student_file(tmp_path, task, "ImpaalaSmall", proprioception, memory)
    Export.main([str(path), "--output", str(tmp_path / "student.onnx")])
    code = (ROOT / "examples" / "onnx_student.py").read_text()
    code += """
assert "torch" not in sys.modules and not {"Enviroment", "Models", "Algorithm"} & sys.modules.keys()
np.savez("frames.npz", **{name.removeprefix("frames_"): np.stack(kept) for name, kept in frames.items()})
"""
    (tmp_path / "example.py").write_text(code)
    run = subprocess.run(
        [sys.executable, "example.py", "student.onnx", "1900"],
        cwd=tmp_path,
        env={**os.environ, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    env, remembered, total, done, kept = make_env(task), student.memory(1), 0.0, False, []
    obs, _ = env.reset(seed=1900)
    while not done:
        first = torch.tensor([not kept])
        kept.append(obs)
        seen = remembered.see({key: torch.as_tensor(value)[None] for key, value in obs.items()}, first)
        obs, reward, _, done, _ = env.step(student.act(seen)[0])
        total += float(reward)
    kept.append(obs)
    env.close()
    assert float(run.stdout.split()[-1]) == pytest.approx(total, abs=0.05)
    drawn = np.load(tmp_path / "frames.npz")
    for name in cameras:
        ours = np.stack([obs[name] for obs in kept[-7:]])
        difference = np.abs(drawn["frames" if name == "Frame" else name].astype(int) - ours)
        assert (difference > 1).mean() < 0.01  # actions differ in the last digit, and so may an edge


def test_a_small_file_and_a_card_with_scores(task, tmp_path, capsys):
    student, path = student_file(tmp_path, task)
    Export.main([str(path), "--output", str(tmp_path / "small.pt"), "--seeds", "1900,1907"])
    card = (tmp_path / "small.md").read_text()
    assert "Seeds 1900,1907" in card
    assert "normalized" in card
    loaded = load_student(tmp_path / "small.pt")
    assert loaded.inputs == ("PartialState", "Frame")
    kept = student.for_acting().state_dict()
    assert loaded.state_dict().keys() == kept.keys()
    assert all(torch.equal(value, kept[name].half().float()) for name, value in loaded.state_dict().items())
    assert (tmp_path / "small.pt").stat().st_size < path.stat().st_size / 2
    Export.main([str(tmp_path / "small.pt"), "--output", str(tmp_path / "small.onnx")])
    assert exported(tmp_path / "small.onnx")[1]["scores"]["figures"]["policy"]["episodes"] == 2


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"version": 2}, "version 2; this code reads version 1"),
        ({"format": "recipe"}, "damaged, or not a teacher or student"),
        ({"weights": {}}, "not a complete student"),
        ({"card": {"task": "Chess"}}, "unknown task"),
        ({"card": {"task": "Pusher", "mode": "State"}}, "its card is damaged (KeyError: 'method')"),
        ({"card": {"task": "Pusher", "mode": "State", "method": "PPD", "scores": 1}}, "its card is damaged (TypeError"),
    ],
)
def test_a_file_of_another_format_or_a_newer_version_is_one_line(task, tmp_path, capsys, change, hint):
    _, path = student_file(tmp_path, task, "State")
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(SystemExit) as end:
        Export.main([str(path)])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert hint in error
    assert not path.with_suffix(".onnx").exists()


def test_a_shipped_student_of_an_older_form_is_exported(tmp_path):
    student = SHIPPED_TEACHER.parents[1] / "Students" / "PPD.pt"  # its scores have no lengths of episodes
    Export.main([str(student), "--output", str(tmp_path / "PPD.pt")])
    assert "normalized" in (tmp_path / "PPD.md").read_text()


def test_an_output_that_cannot_be_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for words, said in (
        (["loop", "--output", "new.pt"], "no such file"),
        ([SHIPPED_TEACHER, "--output", SHIPPED_TEACHER], "would be read and replaced"),
        ([SHIPPED_TEACHER, "--output", "file/new.onnx"], "no folder that can be written"),
    ):
        with pytest.raises(SystemExit):
            Export.main([str(tmp_path / word) if word != "--output" else word for word in words])
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_without_the_optional_packages_one_line_names_them(tmp_path, capsys, monkeypatch):
    find = Export.importlib.util.find_spec
    monkeypatch.setattr(Export.importlib.util, "find_spec", lambda name: None if "onnx" in name else find(name))
    for arguments in ([str(SHIPPED_TEACHER), "--output", str(tmp_path / "t.onnx")],):
        with pytest.raises(SystemExit) as end:
            Export.main(arguments)
        assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install onnx onnxscript onnxruntime" in error
    assert not list(tmp_path.glob("t.*"))
