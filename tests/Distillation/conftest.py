import subprocess

import pytest

from tests.Distillation import studies
from tests.helpers import TINY, pusher, shared


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The results of a tiny run of PPD, and what it printed."""

    def make(results):
        run = pusher(*TINY, "--results_dir", results, cwd=results, without=())  # not from the repository's folder
        assert run.returncode == 0, run.stderr
        return [run.args, run.returncode, run.stdout, run.stderr]

    results, run = shared(tmp_path_factory, "finished", make)
    return results, subprocess.CompletedProcess(*run)


@pytest.fixture(scope="session")
def collected(tmp_path_factory):
    """Results with a dataset in them; to be read, not changed."""

    def make(results):
        run = pusher("--C_data", "--num_data", 5000, "--num_workers", 1, "--results_dir", results)
        assert run.returncode == 0, run.stderr

    return shared(tmp_path_factory, "collected", make)[0]


@pytest.fixture
def results(collected, tmp_path):
    """A folder of results with a dataset in it, to be read, and no run."""
    (tmp_path / "Pusher").mkdir()
    (tmp_path / "Pusher" / "Teacher").symlink_to(collected / "Pusher" / "Teacher")
    return tmp_path


@pytest.fixture(scope="session")
def uncut(tmp_path_factory):
    """The results of a tiny study, and what it printed."""

    def make(results):
        (results / "study.toml").write_text(studies.TINY)
        status, out, err = studies.finish(results)
        assert (status, err) == (0, ""), out + err
        return out

    return shared(tmp_path_factory, "uncut", make)
