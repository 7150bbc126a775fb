"""A dataset for Minari."""

import numpy as np


def test_the_minari_export_holds_the_same_data(dataset, task, tmp_path):
    import minari

    from Algorithm.Minari_export import export_minari

    export_minari(dataset, task, tmp_path / "minari")
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
