"""A dataset for Minari."""

from pathlib import Path

import numpy as np
import pytest

from Algorithm import Minari_export
from Algorithm.Minari_export import export_minari
from Common.Errors import BadInput


def test_the_minari_export_holds_the_same_data(dataset, task, tmp_path, monkeypatch):
    import minari

    monkeypatch.chdir(tmp_path)
    export_minari(dataset, task, Path("minari"))
    exported = minari.MinariDataset(tmp_path / "minari")
    assert exported.total_episodes == 5
    episode, rows = exported[3], slice(300, 400)
    fields = dataset.fields
    np.testing.assert_array_equal(episode.observations["Frame"][:100], fields["frame"][rows])
    np.testing.assert_array_equal(episode.observations["State"][:100], fields["state"][rows])
    assert len(episode.observations["Frame"]) == 101
    np.testing.assert_array_equal(episode.actions, fields["action"][rows])
    np.testing.assert_array_equal(episode.rewards, fields["reward"][rows])
    np.testing.assert_array_equal(episode.infos["mean"], fields["mean"][rows])
    assert episode.truncations.tolist() == [False] * 99 + [True]


def test_an_export_that_fails_leaves_nothing(dataset, task, tmp_path, monkeypatch):
    def fail(*_):
        raise BadInput("an episode comes out differently")

    monkeypatch.setattr(Minari_export, "_episodes", fail)
    with pytest.raises(BadInput, match="differently"):
        export_minari(dataset, task, tmp_path / "new" / "minari")
    assert not list((tmp_path / "new").iterdir())
