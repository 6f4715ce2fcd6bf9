"""Snakemake processes in a project are found, and stale locks are recognised."""

import os
import subprocess
import sys
import time

import pytest

from nanogpt.artifacts.invocations import find_holders, forget_dead, is_lock_stale
from nanogpt.project import Project
from tests.checkouts import PROJECT

CALL = """
import sys, time
from pathlib import Path
from nanogpt.artifacts.invocations import register
locks = Path(".snakemake/locks")
locks.mkdir(parents=True, exist_ok=True)
(locks / "0.output.lock").write_text("results/a")
register()
print("ready", flush=True)
time.sleep(60)
"""


def call(directory, *targets):
    process = subprocess.Popen(
        [sys.executable, "-c", CALL, *targets],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_a_live_process_is_named_with_its_work(project):
    process = call(project.root, "--cores", "1", "results/a", "results/b")
    try:
        (holder,) = find_holders(project)
        assert f"process {process.pid} on " in holder
        assert "making results/a and 1 more" in holder
        assert not is_lock_stale(project)
    finally:
        process.kill()
        process.wait()


def test_the_lock_of_a_killed_process_is_stale_until_there_is_a_newer_one(project):
    process = call(project.root)
    process.kill()
    process.wait()
    assert find_holders(project) == []
    assert is_lock_stale(project)
    later = time.time() + 5
    (project.snakemake_locks / "1.output.lock").write_text("results/c")
    os.utime(project.snakemake_locks / "1.output.lock", (later, later))
    assert not is_lock_stale(project)
    forget_dead(project)
    assert list(project.invocations.iterdir()) == []


def test_a_finished_process_leaves_nothing(project):
    code = CALL.replace("time.sleep(60)", "")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", code], cwd=project.root, env=environment, check=True)
    assert list(project.invocations.iterdir()) == []
    assert not is_lock_stale(project)


def test_a_lock_without_a_registered_process_has_an_unknown_owner(project):
    project.snakemake_locks.mkdir(parents=True)
    (project.snakemake_locks / "0.input.lock").write_text("a")
    assert not is_lock_stale(project)
