"""Other versions of packages rerun nothing: manifests record them, and our code has a digest."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from tests.checkouts import PROJECT
from tests.workflow.projects import PAGE, planned

TRIGGERS = ["input", "mtime", "params"]
PROFILES = sorted(PROJECT.glob("profiles/*/config.yaml"))
PAGES = [PROJECT / "config/README.md", PROJECT / "docs/EMBEDDING.md"]
CONDA = {
    "conda_version": "26.1.0",
    "conda_prefix": "/nowhere",
    "platform": "linux-64",
    "get": {"channel_priority": "strict"},
}


def test_an_update_of_the_environment_reruns_nothing(done_project: Path, tmp_path: Path) -> None:
    """Snakemake compares `envs/nanogpt.yaml`, but only with --sdm conda."""
    conda = tmp_path / "conda"
    conda.write_text(f"#!/bin/sh\necho '{json.dumps(CONDA)}'\n")
    conda.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    wanted = ("--sdm", "conda", "--conda-prefix", str(tmp_path / "environments"), PAGE)
    assert planned(done_project, *wanted, PATH=path) == {}
    with_trigger = ("--rerun-triggers", *TRIGGERS, "software-env")
    assert "train" in planned(done_project, *with_trigger, *wanted, PATH=path)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.parent.name)
def test_every_profile_has_the_same_triggers(profile: Path) -> None:
    assert yaml.safe_load(profile.read_text())["rerun-triggers"] == TRIGGERS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_show_the_triggers_of_the_profiles(page: Path) -> None:
    shown = re.findall(r"rerun-triggers: (\[.+?\])", page.read_text())
    assert [yaml.safe_load(triggers) for triggers in shown] == [TRIGGERS]
