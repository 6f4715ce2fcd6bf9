"""Copies of this checkout, for tests that run its workflow or edit its code."""

import os
import shutil
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
MIRROR = os.environ.get("NANOGPT_MIRROR")
# A checkout of nanoGPT, from `make test NANOGPT=PATH` or `make bench NANOGPT=PATH`.
NANOGPT = os.environ.get("NANOGPT")

# The parts of a checkout that the workflow needs, apart from config.yaml.
PARTS = ("nanogpt", "workflow", "profiles", "envs")


def copy_checkout(directory: Path) -> Path:
    """Copy the parts that the workflow needs, without results."""
    for name in PARTS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, directory / name, ignore=ignored)
    shutil.copy(PROJECT / "Snakefile", directory)
    (directory / "resources/texts").mkdir(parents=True)
    return directory


def own_environment(**more: str) -> dict[str, str]:
    """Return a user's environment, without variables set for the tests.

    Coverage is left out: it would double the time of a process, and copies don't count.
    """
    ours = ("NANOGPT_", "PYTHONPATH", "COVERAGE_", "COV_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**own, **more}
