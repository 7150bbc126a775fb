"""Videos of student and teacher."""

import numpy as np
import pytest
from PIL import Image

from Algorithm.Test_model import Recording
from Algorithm.Video import GIF_BYTES, STRIP, draw_stacks, write_video
from Models.Model_Pusher import get_Teacher_model


def test_a_video_shows_student_frames_and_teacher(env_and_recording, tmp_path):
    import imageio.v2 as imageio

    task, _, recording = env_and_recording
    alone, beside = tmp_path / "alone.mp4", tmp_path / "deep" / "beside.mp4"
    write_video(alone, task, [1900, 1901], {"student": recording})
    write_video(beside, task, [1900, 1901], {"student": recording}, teacher=get_Teacher_model(), first=1)
    with imageio.get_reader(alone) as one, imageio.get_reader(beside) as two:
        assert one.count_frames() == 16
        assert two.count_frames() == 8
        assert two.get_meta_data()["size"][0] == 2 * one.get_meta_data()["size"][0]
        assert np.abs(np.diff(two.get_data(7).astype(int), axis=1)).mean() > 0.5  # not blank
    assert [path.name for path in beside.parent.iterdir()] == ["beside.mp4"]


def test_a_gif_is_small_and_moves(env_and_recording, tmp_path):
    task, _, recording = env_and_recording
    path = tmp_path / "student.gif"
    write_video(path, task, [1900, 1901], {"student": recording}, teacher=get_Teacher_model())
    assert path.stat().st_size < GIF_BYTES
    with Image.open(path) as gif:
        assert gif.n_frames == 8
        assert gif.info["duration"] == 100
        first = np.asarray(gif.convert("RGB")).astype(int)
        gif.seek(7)
        assert np.abs(np.asarray(gif.convert("RGB")) - first).max() > 50
        reds = (first[:, :, 0] > 200) & (first[:, :, 1] < 120)
        assert reds.sum() > 50  # the goal keeps its colour


def test_stacks_of_several_cameras_are_side_by_side_and_those_in_colour_are_coloured():
    red = np.zeros((2, 3, 20, 20), np.uint8)
    red[:, 0] = 200
    picture = draw_stacks({"top": np.full((2, 10, 20), 90, np.uint8), "side": red}, 401)
    assert picture.shape == (STRIP + 100, 401, 3)
    assert picture[STRIP + 10, 10].tolist() == [90, 90, 90]
    assert picture[STRIP + 60, 10].tolist() == [0, 0, 0]  # it is lower than the other
    assert picture[STRIP + 60, 210].tolist() == [200, 0, 0]


def test_a_film_of_nothing_is_refused_and_leaves_nothing(env_and_recording, tmp_path):
    task, _, recording = env_and_recording
    for empty, first in ((Recording(), 0), (recording, 2)):
        with pytest.raises(ValueError, match="nothing was recorded"):
            write_video(tmp_path / "none.gif", task, [1900, 1901], {"student": empty}, first=first)
    assert not list(tmp_path.iterdir())
