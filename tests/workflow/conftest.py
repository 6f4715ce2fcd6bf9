"""A project in which everything has been computed once, and copies to change."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.checkouts import MIRROR, copy_checkout, own_environment
from tests.sharing import made_once
from tests.workflow.projects import (
    BOTH,
    CONFIG,
    ESSAYS,
    EXPORTS,
    FAR,
    FOREIGN,
    MIXED,
    PAGE,
    Computed,
    write_essays,
    write_model,
)

# Python runs this file at the start of every process that has its directory on the path.
WATCH = """
import atexit, json, os, sys

def leave():
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    stage = name.removesuffix(".py").rpartition(".")[2]
    loaded = sorted(m for m in sys.modules if m.split(".")[0] == "nanogpt")
    with open(os.path.join({directory!r}, f"{{stage}}.{{os.getpid()}}.json"), "w") as file:
        json.dump(loaded, file)

atexit.register(leave)
"""

GPT2_MERGES = "resources/tokenizers/gpt2/vocab.bpe"


def write_mirror(directory: Path) -> None:
    """A mirror with the corpus `far`, and with GPT-2's merges if this machine has them."""
    (directory / "corpora.example").mkdir(parents=True)
    text = "The clocks were striking thirteen.\n" * 40
    (directory / "corpora.example/far.txt").write_text(text)
    if MIRROR:
        files = "openaipublic.blob.core.windows.net"
        (directory / files).symlink_to(Path(MIRROR) / files)


def write_project(directory: Path) -> Path:
    """A checkout with the tiny config and without results."""
    copy_checkout(directory)
    write_essays(directory)
    write_model(directory)
    (directory / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return directory


def compute(directory: Path) -> None:
    """Run every rule with the command that a user types."""
    project = write_project(directory / "checkout")
    write_mirror(directory / "mirror")
    for name in ("loaded", "site"):
        (directory / name).mkdir()
    loaded = directory / "loaded"
    (directory / "site/sitecustomize.py").write_text(WATCH.format(directory=str(loaded)))
    targets = [
        PAGE,
        ESSAYS,
        FAR,
        *MIXED,
        *BOTH,
        *EXPORTS,
        FOREIGN,
        *([GPT2_MERGES] if MIRROR else []),
    ]
    run = subprocess.run(
        # One core, because the calls that are compared with this one also use one.
        [sys.executable, "-m", "snakemake", "--cores", "1", *targets],
        cwd=project,
        env=own_environment(
            PYTHONPATH=str(directory / "site"),
            NANOGPT_CACHE=str(directory / "cache"),
            NANOGPT_MIRROR=str(directory / "mirror"),
        ),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    """All results, computed once for all workers of a test run. Don't change them."""
    directory = made_once(tmp_path_factory, "computed", compute)
    return Computed(directory / "checkout", directory / "cache", directory / "loaded")


@pytest.fixture(scope="session")
def done_project(computed: Computed) -> Path:
    """A checkout with all results, only for dry runs. Don't change it."""
    return computed.project


@pytest.fixture
def project(done_project: Path, tmp_path: Path) -> Path:
    """A copy of a checkout with all results, which a test can change."""
    return Path(shutil.copytree(done_project, tmp_path / "checkout"))


@pytest.fixture(scope="session")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout without results. Don't change it."""
    return write_project(tmp_path_factory.mktemp("empty") / "checkout")


@pytest.fixture
def essays(empty_project: Path, tmp_path: Path) -> Path:
    """A copy of a checkout without results, which a test can change."""
    return Path(shutil.copytree(empty_project, tmp_path / "checkout"))
