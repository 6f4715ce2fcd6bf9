"""A cluster for all tests of a worker, the run that nobody touches, and copies of its project."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.calls import STEPS, TRAINED
from tests.cluster.slurm import Cluster, running
from tests.faults import attacks
from tests.sharing import made_once


@pytest.fixture(scope="session")
def whole_cluster() -> Iterator[Cluster]:
    # Not in pytest's directory: paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, running(Path(name)) as cluster:
        yield cluster


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster without a job of another test, and with all its nodes."""
    yield whole_cluster
    whole_cluster.restore()


@pytest.fixture(scope="session")
def done_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run was made on this machine at one go, without a cluster."""
    return made_once(tmp_path_factory, "untouched-by-slurm", make_untouched)


def make_untouched(directory: Path) -> None:
    project = attacks.make_project(directory)
    attacks.write_config(project, max_iters=STEPS)
    attacks.run_workflow(project)
    shutil.copy(project / "results/one/train.manifest.json", project / "untouched.manifest.json")


@pytest.fixture(scope="session")
def untouched(done_project: Path) -> dict[str, object]:
    """What the untouched run made."""
    return attacks.made(done_project)


@pytest.fixture
def project(done_project: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with its dataset, but without its run."""
    project = tmp_path / "project"
    shutil.copytree(done_project, project)
    attacks.forget(project)
    yield project
    attacks.end_all(project)


@pytest.fixture
def trained(project: Path, untouched: dict[str, object]) -> Iterator[Path]:
    """The same, for a test that trains on a cluster and must end in the untouched run's bytes."""
    assert not any((project / target).exists() for target in TRAINED)
    yield project
    deadline = time.monotonic() + attacks.PATIENCE
    while (left := attacks.processes(project)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}, "processes outlive their job"
    attacks.assert_is_whole(project, untouched, later=())
