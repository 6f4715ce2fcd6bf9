"""Places for files that tests of reading write."""

import os

import pytest

from tests.data.reading import write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.txt"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path that the examples of a property overwrite one after the other."""
    return tmp_path_factory.mktemp("scratch") / "a.txt"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty directory that is the current one, and that other users may enter."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plain_user():
    """Nobody's rights for the time of a test, if it runs as root, who may read everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("there are no users here")
    user = os.geteuid()
    if user == 0:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("root may not become another user here")
    yield
    os.seteuid(user)


@pytest.fixture
def table(tmp_path):
    """A function: bytes or text in, path of a file of that kind out."""
    return lambda suffix, data: write(tmp_path / f"a{suffix}", data)
