"""What a run shows of itself: plots, scores, pages, videos; and what can be taken away of it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import student_for
from PIL import Image

from Algorithm.Test_model import Recording, evaluate
from Algorithm.Video import GIF_BYTES, write_video
from Distillation import Export, Plot
from Distillation.Page import write_page
from Distillation.Plot import aggregate, interquartile_mean, interval, learning, scores
from Distillation.Runs import find_runs, group_runs
from Enviroment.Utils import make_env, make_vector_env
from Models.Model_Pusher import SHIPPED_TEACHER, get_Teacher_model, load_student, make_student, save_student
from Models.Utils import FrameStacker

ROOT = Path(__file__).resolve().parents[1]


def write_run(folder, method="PPD", mode="State", finals=1.0, tests=4, **settings):
    """A run's folder as the logger leaves it, with made-up figures that rise linearly to `finals`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"method": method, "mode": mode, "run_index": 0, **settings}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        names = ["x_axis/optimization_steps", "x_axis/samples_collected", "time/elapsed_s", "training/loss"]
        parts = [f"test/{part}/" for part in ("ID", "OD")]
        figures = ["return", "normalized_return", "success", "action_accuracy", "teacher_return", "zero_return"]
        writer = csv.writer(file)
        writer.writerow([*names, *(part + figure for part in parts for figure in figures), "test/OD/teacher_success"])
        for i in range(tests):
            score = finals * i / (tests - 1)
            row = [i * 100, i * 1000, i * 60.0, 1.0 / (i + 1)]
            writer.writerow([*row, *[-55 + 30 * score, score, score / 2, 0.9, -25.0, -55.0] * 2, 0.95])
            writer.writerow([*(value + 1 for value in row), *[""] * 13])  # a row between two tests
    return folder


# Plots


def test_interquartile_mean_and_interval_on_numbers_worked_out_by_hand():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0])
    assert interquartile_mean(values) == 3.5  # of 2, 3, 4, 5
    middle, low, high = interval(values[:, None].repeat(3, axis=1))
    assert (middle == 3.5).all()
    assert (low < 3.5).all()
    assert (high > 3.5).all()
    assert (low == low[0]).all()
    assert np.isnan(interval(values[:1])[1])
    _, low, high = interval(np.full(5, 7.0))
    assert (low, high) == (7, 7)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """Of 20 normal values the percentile bootstrap covers a little less than its 95 %."""
    random = np.random.default_rng(0)
    _, low, high = interval(random.standard_normal((20, 400)))
    covered = ((low < 0) & (high > 0)).mean()
    assert 0.86 < covered < 0.98


def test_curves_measured_alike_are_joined_where_they_are_others_are_interpolated():
    updates = np.arange(4.0)
    minutes = [10 * updates, 30 * updates, 20 * updates[:2]]  # of a fast, a slow run, and one that was cut off
    curves = [np.stack([updates[: len(x)], x, y + np.arange(len(x))]) for x, y in zip(minutes, (0, 2, 4))]
    at, middle, low, high = aggregate(curves)
    assert at.tolist() == [0, 20, 40, 60]  # the mean over the runs that came so far
    assert middle.tolist() == [2, 3, 3, 4]
    assert (low <= middle).all()
    assert (middle <= high).all()
    coarse = np.stack([2 * updates, 20 * updates, 2 * updates])
    at, middle, *_ = aggregate([curves[0], coarse])
    assert at.tolist() == [0, 10, 20, 30, 40, 60]
    assert middle.tolist() == [0, 1, 2, 3, 4, 6]


def test_runs_are_grouped_by_all_but_their_seeds_and_named_by_what_differs(tmp_path):
    for k in range(3):
        settings = {"stack": 4} if k else {}  # a run from before there was a setting had its default
        write_run(tmp_path / f"a{k}", run_index=k, num_workers=k, PPD_parameter=5.0, finals=0.8 + k / 10, **settings)
    write_run(tmp_path / "b", PPD_parameter=1.0, finals=0.5)
    write_run(tmp_path / "deep" / "er" / "c", method="BC_phase", mode="ImpaalaMid", dataset="10k")
    for stack, loss_type in ((4, "KL"), (1, "KL"), (4, "NLL")):
        settings = {"dataset": "10k", "stack": stack, "loss_type": loss_type}
        write_run(tmp_path / f"e{stack}{loss_type}", method="BC_phase", mode="ImpaalaSmall", **settings)
    cloning = {"method": "BC_phase", "mode": "State", "dataset": "10k", "mode_alpha": "constant"}
    for alpha in (0.0, 0.6):
        write_run(tmp_path / f"parent{alpha}", **cloning, alpha=alpha)
        for k in range(2):
            parent = {**cloning, "alpha": alpha, "run_index": k}
            data = {"samples": 10000, "crc32": k}  # collected on two machines
            settings = {"run_index": k, "dataset": "10k", "parent": parent, "data": data}
            before = {"x_axis/optimization_steps": 1000 * (k + 1), "time/elapsed_s": 60.0}
            write_run(tmp_path / f"d{alpha}{k}", method="Dagger_phase", **settings, before=before)
    write_run(tmp_path / "linear", **cloning | {"mode_alpha": "linear"}, alpha=0.0)
    groups = {group.label: group for group in group_runs(find_runs([tmp_path]))}
    assert {label: len(group.runs) for label, group in groups.items()} == {
        "PPD State": 3,
        "PPD State λ 1": 1,
        "BC ImpaalaMid 10k": 1,
        "BC ImpaalaSmall 10k loss_type KL": 1,
        "BC ImpaalaSmall 10k stack 1 loss_type KL": 1,
        "BC ImpaalaSmall 10k loss_type NLL": 1,  # the default, but here the rarer
        "BC State 10k": 1,
        "BC State 10k α 0.6": 1,
        "BC State 10k α linear": 1,
        "DAgger State 10k": 2,
        "DAgger State 10k parent's alpha 0.6": 2,
    }
    dagger = groups["DAgger State 10k"].runs
    after = [run.series("x_axis/optimization_steps", "time/elapsed_s")[:, -1].tolist() for run in dagger]
    assert after == [[1301, 241], [2301, 241]]  # with what cloning took
    table = scores(find_runs([tmp_path]))
    assert table[0][:7] == ["", "runs", "updates", "episodes", "return", "normalized", "normalized, ID"]
    row = next(row for row in table if row[0] == "PPD State")
    assert row[1:4] == ["3 (3 unfinished)", "300", ""]
    assert row[5].startswith("0.900 [0.8")
    worst, teacher, zero = table[-3:]
    assert worst[0] == "PPD State λ 1"
    assert worst[4:] == ["-40.00", "0.500", "0.500", "0.25", "0.9000", "3.0"]
    assert teacher[4:8] == ["-25.00", "1.000", "1.000", "0.95"]
    assert zero[4:7] == ["-55.00", "0.000", "0.000"]


def test_how_fast_and_how_steadily_runs_learnt(tmp_path):
    for k, finals in enumerate((1.0, 1.2, 0.5)):
        write_run(tmp_path / f"p{k}", run_index=k, finals=finals)
    falling = write_run(tmp_path / "falling", method="Sdistillation")
    rows = (falling / "metrics.csv").read_text().splitlines()
    (falling / "metrics.csv").write_text("\n".join([*rows[:5], *rows[7:9], rows[5].replace("200,", "400,", 1)]))
    head, *fast, falling, _, _ = learning(find_runs([tmp_path]))
    assert head[1:6] == ["to", "came there", "updates", "samples", "minutes"]
    assert [row[:4] for row in fast] == [
        ["PPD State", "0.8", "2 of 3", "240 [200, never]"],
        ["", "0.9", "2 of 3", "270 [225, never]"],
        ["", "0.95", "2 of 3", "285 [238, never]"],
    ]
    assert fast[1][4:] == ["2700 [2250, never]", "2.7 [2.2, never]", "", ""]
    assert fast[0][6:] == ["0.000 [0.000, 0.000]", "0.361"]  # numpy.std([1, 1.2, .5], ddof=1)
    assert falling[:3] == ["student distillation State", "0.8", "1 of 1"]
    assert falling[6:] == ["0.333", ""]


def test_a_finished_runs_scores_are_its_closing_figures(tmp_path):
    student = {"episodes": 100, "return": -30.0, "normalized_return": 0.8, "success": 0.4, "action_accuracy": 0.7}
    others = {"teacher": {"return": -24.0, "success": 0.97}, "zero": {"return": -54.0}}
    finished = write_run(tmp_path / "finished", episodes=10)
    figures = {"OD": {"student": student, **others}, "ID": {"student": student | {"normalized_return": 0.9}, **others}}
    (finished / "summary.json").write_text(json.dumps(figures))
    _, row, teacher, zero = scores(find_runs([finished]))
    assert row[3:9] == ["100", "-30.00", "0.800", "0.900", "0.40", "0.7000"]
    assert (teacher[4:8], zero[4]) == (["-24.00", "1.000", "1.000", "0.97"], "-54.00")
    write_run(tmp_path / "under way", run_index=1, episodes=10)
    _, row = scores(find_runs([tmp_path]))  # teacher and zero differ, being of other episodes
    assert row[3:5] == ["differ", "-27.50 [-30.00, -25.00]"]


def test_one_command_compares_runs_also_one_that_was_cut(tmp_path, capsys):
    runs = [write_run(tmp_path / "x" / name, run_index=k) for k, name in enumerate("ab")]
    cut = runs[1] / "metrics.csv"
    content = cut.read_bytes()
    cut.write_bytes(content[: content.rindex(b"-25.0") + 2])
    Plot.main([str(tmp_path / "x"), "--html", str(tmp_path / "page" / "study.html")])
    written = capsys.readouterr().out
    for name in ("x/curve.png", "x/curve.svg", "x/curve.md", "page/study.html"):
        assert str(tmp_path / name) in written
        assert (tmp_path / name).stat().st_size > 200
    assert Image.open(tmp_path / "x" / "curve.png").size[0] > 1000
    drawing = (tmp_path / "x" / "curve.svg").read_text()
    for text in ("PPD State (2 runs)", "teacher", "standing still", "gradient updates", "minutes of training"):
        assert text in drawing
    Plot.main([str(tmp_path / "x"), "--output", str(tmp_path / "again")])
    assert (tmp_path / "again.svg").read_text() == drawing  # nothing to commit where nothing has changed
    Plot.main([str(tmp_path / "x"), "--what", "training", "--output", str(tmp_path / "t")])
    assert "loss" in (tmp_path / "t.svg").read_text()


@pytest.mark.parametrize("damage", ["empty folder", "no folder", "no test", "foreign config", "no buffer"])
def test_what_cannot_be_drawn_is_one_line(tmp_path, capsys, damage):
    run = write_run(tmp_path / "run")
    arguments = [str(run)]
    if damage == "empty folder":
        arguments = [str(run), str(tmp_path / "empty")]
        (tmp_path / "empty").mkdir()
    elif damage == "no folder":
        arguments = [str(tmp_path / "nowhere")]
    elif damage == "no test":
        lines = (run / "metrics.csv").read_text().splitlines()
        (run / "metrics.csv").write_text(lines[0] + "\n")
    elif damage == "foreign config":
        (run / "config.json").write_text("[1, 2")
    else:
        arguments += ["--what", "buffer"]
    with pytest.raises(SystemExit) as end:
        Plot.main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none of these runs" in error if damage == "no buffer" else "no run" in error


def test_the_page_works_in_a_browser(tmp_path, env_and_recording):
    """Headless Chromium, where there is one: every picture and video loads, and nothing is wider than the page."""
    browser = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    task, _, recording = env_and_recording
    for k in range(2):
        run = write_run(tmp_path / "runs" / f"a<{k}>", run_index=k)
        write_video(run / "videos" / "final_OD.mp4", task, [1900, 1901], recording, episodes=1)
    page = write_page(find_runs([tmp_path / "runs"]), tmp_path / "page.html")
    content = page.read_text()
    assert "http" not in content.replace("http-equiv", "")  # nothing comes from elsewhere
    probe = """<script>addEventListener("load", async () => {
      const video = document.querySelector("video");
      for (let i = 0; i < 100 && video.readyState < 1; i++) await new Promise(r => setTimeout(r, 50));
      document.title = JSON.stringify({
        pictures: [...document.images].map(i => i.complete && i.naturalWidth > 0),
        seconds: video.duration, width: video.videoWidth, rows: document.querySelectorAll("tbody tr").length,
        overflow: document.documentElement.scrollWidth > innerWidth, names: document.body.innerText});
    })</script>"""
    (tmp_path / "probe.html").write_text(content.replace("</body>", probe + "</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-component-update", f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=20000"]
    run = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    seen = json.loads(
        run.stdout.partition("<title>")[2].partition("</title>")[0].replace("&lt;", "<").replace("&gt;", ">")
    )
    assert seen["pictures"] == [True, True]
    assert seen["seconds"] == pytest.approx(0.4, abs=0.1)
    assert seen["width"] > 400
    assert seen["rows"] == 3 + 3  # scores: and the teacher, and standing still; learning
    assert not seen["overflow"]
    assert "a<1>" in seen["names"]


# Videos


@pytest.fixture(scope="module")
def env_and_recording():
    from Enviroment.Tasks import TASKS
    from Models.Model_Pusher import StateStatistics

    task = TASKS["Pusher"]
    env = make_vector_env(task, 2, 1)
    student = student_for(env, task, StateStatistics(np.zeros(23), np.ones(23)))
    recording = Recording()
    result = evaluate(student, env, task, [1900, 1901], recording=recording)
    env.close()
    recording.actions, recording.stacks = recording.actions[:8], recording.stacks[:8]
    return task, result, recording


def test_a_video_shows_student_frames_and_teacher(env_and_recording, tmp_path):
    import imageio.v2 as imageio

    task, _, recording = env_and_recording
    alone, beside = tmp_path / "alone.mp4", tmp_path / "deep" / "beside.mp4"
    write_video(alone, task, [1900, 1901], recording)
    write_video(beside, task, [1900, 1901], recording, teacher=get_Teacher_model(), first=1)
    with imageio.get_reader(alone) as one, imageio.get_reader(beside) as two:
        assert one.count_frames() == 16
        assert two.count_frames() == 8
        assert two.get_meta_data()["size"][0] == 2 * one.get_meta_data()["size"][0]
        assert np.abs(np.diff(two.get_data(7).astype(int), axis=1)).mean() > 0.5  # not blank
    assert [path.name for path in beside.parent.iterdir()] == ["beside.mp4"]


def test_a_gif_is_small_and_moves(env_and_recording, tmp_path):
    task, _, recording = env_and_recording
    path = tmp_path / "student.gif"
    write_video(path, task, [1900, 1901], recording, teacher=get_Teacher_model())
    assert path.stat().st_size < GIF_BYTES
    with Image.open(path) as gif:
        assert gif.n_frames == 8
        assert gif.info["duration"] == 100
        first = np.asarray(gif.convert("RGB")).astype(int)
        gif.seek(7)
        assert np.abs(np.asarray(gif.convert("RGB")) - first).max() > 50
        reds = (first[:, :, 0] > 200) & (first[:, :, 1] < 120)
        assert reds.sum() > 50  # the goal keeps its colour


def test_a_film_of_nothing_is_refused_and_leaves_nothing(env_and_recording, tmp_path):
    task, _, recording = env_and_recording
    for empty, first in ((Recording(), 0), (recording, 2)):
        with pytest.raises(ValueError, match="nothing was recorded"):
            write_video(tmp_path / "none.gif", task, [1900, 1901], empty, first=first)
    assert not list(tmp_path.iterdir())


# Export


def exported(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["card"])


def student_file(folder, task, mode="ImpaalaMid"):
    """A student whose actions differ from frame to frame and state to state, and its file."""
    env = make_env(task)
    teacher = get_Teacher_model()
    torch.manual_seed(1)
    student = make_student(
        mode, env.observation_space, env.action_space, task.proprioception, teacher.statistics, task.stack
    )
    with torch.no_grad():
        student.actor[-1].weight.mul_(100)
    card = {"task": "Pusher", "method": "BC_phase", "mode": mode, "precision": "bf16"}
    card["render"] = task.rendering("fast")
    save_student(folder / "student.pt", student, card)
    env.close()
    return student.eval(), folder / "student.pt"


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


def test_an_exported_student_runs_without_torch_and_sees_the_same(task, tmp_path):
    """The example's frames, drawn by MuJoCo's own renderer, are the environment's, and so is its return."""
    student, path = student_file(tmp_path, task)
    Export.main([str(path), "--output", str(tmp_path / "student.onnx")])
    code = (ROOT / "examples" / "onnx_student.py").read_text()
    code += """
assert "torch" not in sys.modules and not {"Enviroment", "Models", "Algorithm"} & sys.modules.keys()
np.save("frames.npy", np.stack(frames))
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
    env, stacker, total, done = make_env(task), FrameStacker(task.stack, task.stack_stride), 0.0, False
    obs, _ = env.reset(seed=1900)
    kept = [obs["Frame"].copy()]
    stack = stacker.reset(obs["Frame"][None])
    while not done:
        action = student.act({**{key: value[None] for key, value in obs.items()}, "Frame": stack})
        obs, reward, _, done, _ = env.step(action[0])
        kept.append(obs["Frame"].copy())
        stack = stacker.push(obs["Frame"][None], np.zeros(1, bool))
        total += float(reward)
    env.close()
    assert float(run.stdout.split()[-1]) == pytest.approx(total, abs=0.05)
    difference = np.abs(np.load(tmp_path / "frames.npy").astype(int) - np.stack(kept[-7:]))
    assert (difference > 0).mean() < 0.01  # actions differ in the last digit, and so may an edge


def test_a_small_file_and_a_card_with_scores(task, tmp_path, capsys):
    _, path = student_file(tmp_path, task)
    Export.main([str(path), "--output", str(tmp_path / "small.pt"), "--seeds", "1900,1907"])
    card = (tmp_path / "small.md").read_text()
    assert "Seeds 1900,1907" in card
    assert "normalized" in card
    loaded = load_student(tmp_path / "small.pt")
    assert loaded.inputs == ("PartialState", "Frame")
    Export.main([str(tmp_path / "small.pt"), "--output", str(tmp_path / "small.onnx")])
    assert exported(tmp_path / "small.onnx")[1]["scores"]["figures"]["policy"]["episodes"] == 2


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"version": 2}, "version 2; this code reads version 1"),
        ({"format": "recipe"}, "damaged, or not a teacher or student"),
        ({"weights": {}}, "not a complete student"),
        ({"card": {"task": "Chess"}}, "unknown task"),
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


def test_the_quickstart_runs():
    code = "import sys; sys.path.insert(0, 'examples'); import quickstart\nif __name__ == '__main__':\n"
    code += "    print(quickstart.main(mode='ImpaalaSmall', samples=200, updates=2).returns.shape)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert "(20,)" in run.stdout
    body = (ROOT / "examples" / "quickstart.py").read_text().partition("place:\n")[2].partition("\n\n\n")[0]
    assert len(body.splitlines()) <= 10
