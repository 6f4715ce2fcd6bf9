"""A training of two processes that loses one, or is stopped, ends in an untouched one's bytes."""

import os
import resource
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Manifest
from tests.faults import machines
from tests.faults.attacks import (
    MADE_BY_TRAIN,
    PATIENCE,
    Call,
    assert_is_whole,
    error_line,
    log_of,
    made,
    metrics_of,
    only_in_full,
    processes,
    send,
    small_disk,
    start,
    states,
    train_command,
    wait_for_steps,
    wait_until,
    write_config,
)
from tests.sharing import made_once

A_MINUTE = 60


@pytest.fixture(scope="module")
def untouched_by_two(done_project, tmp_path_factory):
    """What a training of two processes makes that nobody disturbs."""

    def make(directory: Path) -> None:
        shutil.copytree(done_project, directory)
        shutil.rmtree(directory / "results/one")
        call = start_training(directory)
        assert call.end() == 0, call.printed() + log_of(directory)

    return made(made_once(tmp_path_factory, "untouched by two", make), MADE_BY_TRAIN)


def start_training(project: Path, n: int = 2, **more: str) -> Call:
    return start(project, train_command(project, n), **more)


def finish(project: Path, n: int = 2) -> None:
    call = start_training(project, n)
    assert call.end() == 0, call.printed() + log_of(project)


def pid_of_rank(project: Path, rank: int) -> int:
    for pid in processes(project):
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
            return pid
    raise AssertionError(f"no rank {rank}")


@pytest.mark.parametrize("rank", [pytest.param(0, marks=only_in_full), 1])
def test_a_rank_that_is_killed_ends_the_training_with_its_reason(
    project, untouched_by_two, count, rank
):
    call = start_training(project)
    wait_for_steps(project, call)
    killed = time.monotonic()
    send(pid_of_rank(project, rank), signal.SIGKILL)
    count("kill")
    assert call.end(A_MINUTE) == 128 + signal.SIGKILL
    assert time.monotonic() - killed < A_MINUTE
    assert f"error: rank {rank} of 2 was ended by SIGKILL; the training goes on" in call.printed()
    assert "Traceback" not in call.printed()
    finish(project)
    assert_is_whole(project, untouched_by_two, ())


@only_in_full
def test_a_rank_that_hangs_ends_the_training_in_time(project, untouched_by_two, count):
    call = start_training(project, NANOGPT_RANK_TIMEOUT="4")
    wait_for_steps(project, call)
    send(pid_of_rank(project, 1), signal.SIGSTOP)
    count("fault")
    assert call.end(A_MINUTE) == 1
    assert "error: rank 0 of 2: another rank has ended or doesn't answer" in call.printed()
    assert "Traceback" not in call.printed()
    finish(project)
    assert_is_whole(project, untouched_by_two, ())


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=only_in_full)]
)
def test_a_signal_to_stop_saves_the_state_of_all_ranks(project, untouched_by_two, count, number):
    call = start_training(project, NANOGPT_SAVE_INTERVAL="3600")
    wait_for_metrics(project, call)
    assert not states(project)
    send(call.process.pid, number, to_group=True)
    count("kill")
    assert call.end(A_MINUTE) == 128 + number
    assert f"stopped by {number.name}" in log_of(project)
    assert len(states(project)) == 1
    assert "Traceback" not in call.printed()
    finish(project)
    assert_is_whole(project, untouched_by_two, ())


def wait_for_metrics(project, call):
    def has_some():
        assert call.process.poll() is None, call.printed() + log_of(project)
        metrics = metrics_of(project)
        return metrics is not None and metrics.read_bytes().count(b"\n") > 4

    wait_until(has_some, "some lines of metrics")


@only_in_full
def test_ranks_whose_starter_is_killed_leave_nothing_wrong(project, untouched_by_two, count):
    call = start_training(project)
    wait_for_steps(project, call)
    send(call.process.pid, signal.SIGKILL)
    count("kill")
    finish(project)
    assert_is_whole(project, untouched_by_two, ())


def test_a_rank_that_sees_files_late_waits_for_them(project, untouched_by_two, count):
    """As on another node: the dataset, the state, and the parts of it that others wrote."""
    late = machines.write(project, **{"rank 1": {"late": 2}})
    call = start_training(project, **late)
    wait_for_steps(project, call)
    send(call.process.pid, signal.SIGTERM, to_group=True)
    count("kill")
    assert call.end(PATIENCE) == 128 + signal.SIGTERM, call.printed()
    again = start_training(project, **late)
    assert again.end() == 0, again.printed() + log_of(project)
    assert "going on from step" in log_of(project)
    assert_is_whole(project, untouched_by_two, ())


def test_a_disk_that_is_full_for_one_rank_is_one_line_and_the_same_command_resumes(
    project, untouched_by_two, count
):
    call = start_training(project)
    wait_for_steps(project, call)
    largest = 4096  # bytes of a file; less than a rank's part of a state
    resource.prlimit(pid_of_rank(project, 1), resource.RLIMIT_FSIZE, (largest, largest))
    count("fault")
    assert call.end(A_MINUTE) == 1
    error = error_line(call.printed())
    assert f"rank 1 of 2 on {socket.gethostname()}: disk full while writing" in error
    assert "rank 0 of 2: the state of step" in log_of(project)
    assert states(project)
    assert not list(project.glob(".nanogpt/state/*/.state.*"))
    finish(project)
    assert "going on from step" in log_of(project)
    assert_is_whole(project, untouched_by_two, ())


def test_a_full_directory_for_temporary_files_stops_no_rank(project, untouched_by_two, count):
    with small_disk(project / "temporary") as leave:
        leave(0)
        call = start_training(project, TMPDIR=str(project / "temporary"))
        assert call.end() == 0, call.printed() + log_of(project)
        count("fault")
    assert_is_whole(project, untouched_by_two, ())


def test_one_process_goes_on_where_two_were_stopped_and_says_so(project, count):
    call = start_training(project)
    wait_for_steps(project, call)
    send(call.process.pid, signal.SIGTERM, to_group=True)
    count("kill")
    assert call.end(A_MINUTE) == 128 + signal.SIGTERM
    finish(project, 1)
    manifest = read_record(project / "results/one/train.manifest.json", Manifest)
    assert [layout.ranks for layout in manifest.environment.layouts] == [2, 1]
    assert manifest.environment.ranks == 1
    assert "ranks 2 before, 1 now: the last bits" in log_of(project)


def test_a_finished_training_is_not_made_again_by_ranks(done_copy):
    before = (done_copy / "results/one/train.manifest.json").read_bytes()
    call = start_training(done_copy)
    assert call.end(A_MINUTE) == 0, call.printed()
    assert (done_copy / "results/one/train.manifest.json").read_bytes() == before
    assert log_of(done_copy).rstrip().endswith("made by the process that this one waited for")


def test_torchrun_starts_ranks_that_make_the_same_bytes(project, untouched_by_two):
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    # Without `--`, it takes our --run for its --run-path.
    flags = ["--no-python", "--nproc-per-node=2", "--"]
    call = start(project, [*torchrun, *flags, *train_command(project)])
    assert call.end() == 0, call.printed() + log_of(project)
    assert_is_whole(project, untouched_by_two, ())


def test_tasks_of_slurm_end_well_where_there_is_nothing_to_train(done_copy):
    calls = start_tasks(done_copy, 2)
    assert [call.end(A_MINUTE) for call in calls] == [0, 0], [call.printed() for call in calls]
    assert log_of(done_copy).rstrip().endswith("made by the process that this one waited for")


def start_tasks(project: Path, n: int) -> list[Call]:
    """Start a training as srun does, on one node."""
    commands = project / "commands"
    commands.mkdir()
    scontrol = commands / "scontrol"
    scontrol.write_text("#!/bin/sh\necho NodeAddr=127.0.0.1\n")
    scontrol.chmod(0o755)
    step = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "here",
        "SLURM_STEP_NUM_TASKS": str(n),
    }
    return [
        start(project, train_command(project), **step, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        for rank in map(str, range(n))
    ]


def test_more_processes_than_rows_are_refused_in_one_line(project):
    write_config(project, batch_size=1)
    command = train_command(project, 2)
    settings = command.index("--settings") + 1
    command[settings] = command[settings].replace('"batch_size": 8', '"batch_size": 1')
    call = start(project, command)
    assert call.end(A_MINUTE) == 1
    errors = [line for line in call.printed().splitlines() if line.startswith("error: ")]
    assert (
        "error: one: 2 processes share the rows of a step, which has 1 (batch_size 1 x" in errors[0]
    )
    assert "Traceback" not in call.printed()
