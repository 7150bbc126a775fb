"""Ranges, the draws of an episode, and files of ranges."""

import numpy as np
import pytest

from Common.Errors import BadSetting
from Common.Files import ROOT
from Enviroment.Tasks import TASKS
from Enviroment.Views import STRENGTHS, VIEWS, View, Views, find_views, whole_reference

DRAWN = ("offset", "turn", "zoom", "light", "light_turn", "brightness", "contrast", "noise", "dropped")
COUNTS = ("delayed_frames", "delayed_actions")
WILD = Views(**{name: strengths[2] for name, strengths in STRENGTHS.items()})


def drawn(view):
    return [np.copy(getattr(view, name)).tolist() for name in (*DRAWN, *COUNTS)]


def test_a_seed_decides_the_whole_view_and_no_range_has_an_influence_on_another():
    assert drawn(View(WILD, 3)) == drawn(View(WILD, 3)) != drawn(View(WILD, 4))
    alone = View(Views(noise=WILD.noise), 3)
    assert alone.noise == View(WILD, 3).noise > 0
    assert drawn(View(Views(), 3)) == [[0] * 3, [0] * 2, 1, [1] * 3, [0] * 2, 0, 1, 0, 0, 0, 0]


def test_draws_lie_within_their_ranges_and_at_the_edge_have_their_full_size():
    views = [View(WILD, seed) for seed in range(200)]
    assert {view.delayed_frames for view in views} == {0, 1, 2, 3}
    offsets = np.abs([view.offset for view in views])
    assert 0.038 < offsets.max() <= 0.04
    assert 14 < max(view.noise for view in views) <= 15
    edge = View(WILD, 1, edge=True)
    assert np.linalg.norm(edge.offset) == pytest.approx(0.04)
    assert np.linalg.norm(edge.turn) == pytest.approx(4)
    assert abs(edge.zoom - 1) == pytest.approx(0.05)
    assert (edge.noise, edge.dropped, edge.delayed_frames) == (15, 0.2, 3)
    assert {abs(shift) for shift in edge.draw("colour", (5, 3)).ravel()} == {0.25}
    assert not np.array_equal(edge.offset, View(WILD, 2, edge=True).offset)


def test_a_reference_is_made_whole(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text("noise = 5")
    monkeypatch.chdir(tmp_path)
    assert whole_reference("mine.toml") == str(tmp_path / "mine.toml")
    assert whole_reference("small") == "small"
    inside = "Distillation/Studies/Views/often_dropped.toml"  # in the repository
    assert whole_reference(inside) == whole_reference(str(ROOT / inside)) == inside
    assert find_views(inside) == Views(dropped_frames=0.95)


def test_a_free_camera_is_posed_around_its_own_pose():
    camera = TASKS["Pusher"].cameras["Frame"]
    view = View(VIEWS["large"], 5)
    posed = view.pose(camera)
    np.testing.assert_allclose(np.subtract(posed.lookat, camera.lookat), view.offset)
    assert posed.azimuth == camera.azimuth + view.turn[0]
    assert posed.distance == camera.distance * view.zoom
    assert (posed.rows, posed.columns) == (camera.rows, camera.columns)
    assert view.pose(camera) is posed


def test_views_of_a_file_start_from_a_base(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "small"\nnoise = 0\nmass = 0.2\ndelayed_frames = 2\n')
    views = find_views(str(path))
    expected = VIEWS["small"].table() | {"mass": 0.2, "delayed_frames": 2}
    del expected["noise"]
    assert views.table() == expected
    assert views.physical
    assert not VIEWS["large"].physical


BAD = {
    "nois = 3": "nois is unknown",
    "noise = -3": "from 0 to 1000",
    "noise = inf": "from 0 to",
    "noise = nan": "from 0 to",
    "delayed_actions = 101": "from 0 to 100",
    "noise = true": "a number",
    'noise = "3"': "a number",
    "delayed_frames = 1.5": "an integer",
    "mass = 1": "a share below 1",
    'base = "huge"': "base 'huge'",
    "base = [1]": "base",
    "noise = ": "mine.toml",
    "noise = 0": "nothing varies",
}


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_file_is_named_with_what_is_wrong(text, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadSetting, match=BAD[text]) as error:
        find_views(str(path))
    assert str(error.value).startswith(f"views {path}")


@pytest.mark.parametrize(
    ("reference", "hint"), [("huge", "small, large or"), ("no.toml", "No such"), ("a b.toml", "let")]
)
def test_unknown_views_are_refused(reference, hint):
    with pytest.raises(BadSetting, match=hint):
        find_views(reference)
