"""An undisturbed run, copies of it to attack, and a count of the attacks."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import attacks
from tests.sharing import made_once


@pytest.fixture(scope="session")
def done_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run was never interrupted, shared by all workers of a test run."""
    return made_once(tmp_path_factory, "untouched", make_untouched)


def make_untouched(directory: Path) -> None:
    project = attacks.make_project(directory)
    attacks.run_workflow(project)
    manifest = project / "results/one/train.manifest.json"
    shutil.copy(manifest, project / "untouched.manifest.json")


@pytest.fixture(scope="session")
def untouched(done_project: Path) -> dict[str, object]:
    """The results of the undisturbed run."""
    made = attacks.made(done_project)
    assert len(made) == 6
    return made


@pytest.fixture
def done_copy(done_project: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with all results. Its processes end with the test."""
    project = tmp_path / "project"
    shutil.copytree(done_project, project)
    yield project
    attacks.end_all(project)


@pytest.fixture
def project(done_copy: Path) -> Path:
    """A copy of the project with its dataset, but without its run."""
    attacks.forget(done_copy)
    return done_copy


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """A function that counts an attack, which is a `kill` or a `fault`."""

    def add(kind: str) -> None:
        request.node.user_properties.append(("attack", kind))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report how many attacks there were and how many tests failed."""
    counts: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            if outcome != "passed" and "faults" in report.nodeid:
                counts["loss"] += 1
            if report.when == "call":
                counts.update(kind for name, kind in report.user_properties if name == "attack")
    if counts:
        terminalreporter.line(
            f"{counts['kill']} kills, {counts['fault']} faults, {counts['loss']} losses "
            f"(seed {attacks.SEED})"
        )
