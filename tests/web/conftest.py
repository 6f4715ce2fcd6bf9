"""A site over a project in a temporary directory, and clients of its application."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nanogpt.project import Project
from nanogpt.web.app import create_app
from nanogpt.web.site import Site
from tests.workflow.conftest import empty_project, essays  # noqa: F401  fixtures


@pytest.fixture
def site(tmp_path: Path) -> Site:
    project = Project(tmp_path)
    project.results.mkdir()
    return Site(project, project.results)


@pytest.fixture
def client_of() -> Callable[[Site], TestClient]:
    """A function that returns a client of a site."""
    return lambda site: TestClient(create_app(site), base_url="http://127.0.0.1:8000")


@pytest.fixture
def client(site: Site, client_of: Callable[[Site], TestClient]) -> TestClient:
    return client_of(site)
