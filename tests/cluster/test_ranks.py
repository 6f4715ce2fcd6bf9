"""Four processes on two nodes train one model, as they would on one machine."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Manifest
from tests.checkouts import PROJECT
from tests.cluster.calls import (
    PATIENCE,
    SLURM,
    TRAINED,
    finish,
    job_of,
    restarts,
    start_on,
    variable_of,
)
from tests.cluster.slurm import Cluster
from tests.faults import attacks, machines
from tests.faults.attacks import MADE_BY_TRAIN
from tests.sharing import made_once
from tests.training.on_ranks import LONG, MODEL, Training, assert_alike

pytestmark = SLURM

A_MINUTE, AN_HOUR = 60, 3600
# As profiles/slurm shows them.
TWO_NODES = (
    "--set-resources",
    *("train:mpi=srun", "train:nodes=2", "train:tasks=4"),
    "train:launcher='srun --ntasks=4 --cpus-per-task=1 --kill-on-bad-exit=1'",
)


@pytest.fixture(scope="module")
def untouched_by_four(done_project, tmp_path_factory):
    """What four processes make on this machine, whom nobody disturbs."""

    def make(directory: Path) -> None:
        copy(done_project, directory)
        attacks.run_workflow(directory, "--set-resources", "train:processes=4", "--", *TRAINED)

    return attacks.made(made_once(tmp_path_factory, "untouched-by-four", make), MADE_BY_TRAIN)


def copy(done_project: Path, directory: Path) -> None:
    shutil.copytree(done_project, directory)
    attacks.forget(directory)


@pytest.fixture
def trained_by_four(project, untouched_by_four):
    yield project
    attacks.assert_is_whole(project, untouched_by_four, later=())


def pid_of_rank(project: Path, rank: int) -> int:
    for pid in attacks.jobs(project, "train"):
        if variable_of(pid, "SLURM_PROCID") == str(rank) and variable_of(pid, "RANK") is None:
            return pid
    raise AssertionError(f"no rank {rank}")


def test_two_nodes_make_the_bytes_of_one_machine(cluster: Cluster, trained_by_four: Path) -> None:
    """Also where their clocks are two hours apart, and what one writes is seen late elsewhere."""
    apart = machines.write(
        trained_by_four,
        n1={"ahead": AN_HOUR, "stamps": True},
        n2={"ahead": -AN_HOUR, "late": 2},
        login={"late": 2, "knows": True},
    )
    call = start_on(cluster, trained_by_four, *TRAINED, options=TWO_NODES, **apart)
    job = cluster.show(job_of(cluster))
    attacks.wait_for_steps(trained_by_four, call)
    (request,) = trained_by_four.glob(".nanogpt/state/[!.]*/run.json")
    assert request.stat().st_mtime > time.time() + AN_HOUR / 2, "dated by n1"
    printed = finish(call, trained_by_four)
    assert restarts(printed) == 0
    assert (job["NumNodes"], job["NodeList"]) == ("2", "n[1-2]")
    manifest = read_record(trained_by_four / "results/one/train.manifest.json", Manifest)
    assert manifest.environment.ranks == 4
    assert "Nothing to be done" in attacks.run_workflow(trained_by_four, *TRAINED)


def test_two_nodes_compute_what_one_process_does(
    cluster: Cluster, done_project: Path, tmp_path: Path
) -> None:
    """The gradient within 1e-5 of its length, the losses of 50 steps within 1e-4."""
    dataset = str(done_project / "results/datasets/play")
    trainings = [Training(str(tmp_path / str(n)), dataset, MODEL, LONG, n) for n in (1, 4)]
    listed = tmp_path / "trainings.json"
    listed.write_text(json.dumps([dataclasses.asdict(each) for each in trainings]))
    program = [sys.executable, "-m", "tests.training.on_ranks", str(listed)]
    call = subprocess.run(
        ["srun", "--nodes=2", "--ntasks=4", "--ntasks-per-node=2", *program],
        cwd=PROJECT,
        env={**attacks.environment(), **cluster.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert call.returncode == 0, call.stderr
    assert_alike(tmp_path / "1", tmp_path / "4")


def test_a_rank_that_is_killed_ends_the_job_and_the_next_one_resumes(
    cluster: Cluster, trained_by_four: Path
) -> None:
    call = start_on(cluster, trained_by_four, *TRAINED, options=TWO_NODES)
    attacks.wait_for_steps(trained_by_four, call)
    job = job_of(cluster)
    attacks.send(pid_of_rank(trained_by_four, 3), signal.SIGKILL)
    killed = time.monotonic()
    attacks.wait_until(lambda: job not in cluster.jobs(), "the job at its end", timeout=PATIENCE)
    assert time.monotonic() - killed < A_MINUTE
    assert restarts(finish(call, trained_by_four)) == 1
    assert "resuming from step" in attacks.log_of(trained_by_four)


def test_a_preempted_job_saves_the_state_of_all_ranks(
    cluster: Cluster, trained_by_four: Path
) -> None:
    call = start_on(cluster, trained_by_four, *TRAINED, options=TWO_NODES)
    attacks.wait_for_steps(trained_by_four, call)
    cluster.call("scancel", "--signal=TERM", job_of(cluster))
    assert restarts(finish(call, trained_by_four)) == 1
    assert "resuming from step" in attacks.log_of(trained_by_four)


def test_ranks_that_never_connect_are_reported_with_the_address(
    cluster: Cluster, project: Path
) -> None:
    """One of two tasks doesn't start the training."""
    command = attacks.train_command(project)
    script = project / "half.sh"
    script.write_text('[ "$SLURM_PROCID" = 1 ] && exit 0\nexec "$@"\n')
    call = subprocess.run(
        ["srun", "--nodes=2", "--ntasks=2", "sh", str(script), *command],
        cwd=project,
        env={**attacks.environment(NANOGPT_RANK_TIMEOUT="5"), **cluster.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert call.returncode
    assert "error: rank 0 of 2 on " in call.stderr
    assert "not all ranks connected to 127.0.0.1:" in call.stderr
    assert "Traceback" not in call.stderr
