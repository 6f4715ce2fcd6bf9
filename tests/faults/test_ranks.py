"""A training of two processes that's stopped or loses one of them ends with the same bytes."""

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
from tests.faults import attacks, machines
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
)
from tests.sharing import made_once

A_MINUTE = 60


@pytest.fixture(scope="module")
def untouched_by_two(done_project, tmp_path_factory):
    """The results of an undisturbed training of two processes."""

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
def test_a_killed_rank_ends_the_training_with_its_reason(project, untouched_by_two, count, rank):
    call = start_training(project)
    wait_for_steps(project, call)
    killed = time.monotonic()
    send(pid_of_rank(project, rank), signal.SIGKILL)
    count("kill")
    assert call.end(A_MINUTE) == 128 + signal.SIGKILL
    assert time.monotonic() - killed < A_MINUTE
    assert f"error: rank {rank} of 2 was ended by SIGKILL; run the command again" in call.printed()
    assert "Traceback" not in call.printed()
    finish(project)
    assert_is_whole(project, untouched_by_two, ())


@only_in_full
@pytest.mark.parametrize("rank", [0, 1])
def test_a_hanging_rank_ends_the_training_in_time(project, untouched_by_two, count, rank):
    call = start_training(project, NANOGPT_RANK_TIMEOUT="4")
    wait_for_steps(project, call)
    send(pid_of_rank(project, rank), signal.SIGSTOP)
    count("fault")
    assert call.end(A_MINUTE) == 1
    line = f"error: rank {1 - rank} of 2: another rank has ended or doesn't answer"
    assert attacks.error_line(call.printed()).startswith(line)
    finish(project)
    assert_is_whole(project, untouched_by_two, ())


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=only_in_full)]
)
def test_a_stop_signal_saves_the_state_of_all_ranks(project, untouched_by_two, count, number):
    call = start_training(project, NANOGPT_SAVE_INTERVAL="3600")
    wait_for_metrics(project, call)
    assert not states(project)
    send(call.process.pid, number, to_group=True)
    count("kill")
    assert call.end(A_MINUTE) == 128 + number
    assert f"stopped by {number.name}" in log_of(project)
    assert len(states(project)) == 1
    assert call.printed() == ""
    finish(project)
    assert_is_whole(project, untouched_by_two, ())


def wait_for_metrics(project, call):
    def has_some():
        assert call.process.poll() is None, call.printed() + log_of(project)
        metrics = metrics_of(project)
        return metrics is not None and metrics.read_bytes().count(b"\n") > 4

    wait_until(has_some, "some lines of metrics")


@only_in_full
def test_ranks_whose_launcher_is_killed_leave_no_wrong_file(project, untouched_by_two, count):
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
    assert "resuming from step" in log_of(project)
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
    assert "ERROR rank 0 of 2: the state of step" in log_of(project)
    assert "ERROR rank 1 of 2" in log_of(project)
    assert states(project)
    assert not list(project.glob(".nanogpt/state/*/.state.*"))
    finish(project)
    assert "resuming from step" in log_of(project)
    assert_is_whole(project, untouched_by_two, ())


def test_a_full_directory_for_temporary_files_stops_no_rank(project, untouched_by_two, count):
    with small_disk(project / "temporary") as leave:
        leave(0)
        call = start_training(project, TMPDIR=str(project / "temporary"))
        assert call.end() == 0, call.printed() + log_of(project)
        count("fault")
    assert_is_whole(project, untouched_by_two, ())


def test_one_process_resumes_a_training_of_two_and_logs_it(project, count):
    call = start_training(project)
    wait_for_steps(project, call)
    send(call.process.pid, signal.SIGTERM, to_group=True)
    count("kill")
    assert call.end(A_MINUTE) == 128 + signal.SIGTERM
    finish(project, 1)
    manifest = read_record(project / "results/one/train.manifest.json", Manifest)
    assert [layout.ranks for layout in manifest.environment.layouts] == [2, 1]
    assert manifest.environment.ranks == 1
    assert "(ranks: 2 before, 1 now): the last bits" in log_of(project)


def test_ranks_do_not_repeat_a_finished_training(done_copy):
    before = (done_copy / "results/one/train.manifest.json").read_bytes()
    call = start_training(done_copy)
    assert call.end(A_MINUTE) == 0, call.printed()
    assert (done_copy / "results/one/train.manifest.json").read_bytes() == before
    assert log_of(done_copy).rstrip().endswith("another process has made the outputs meanwhile")


def test_ranks_from_torchrun_give_the_same_bytes(project, untouched_by_two):
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    # Without `--`, torchrun would read our --run as its --run-path.
    flags = ["--no-python", "--nproc-per-node=2", "--"]
    call = start(project, [*torchrun, *flags, *train_command(project)])
    assert call.end() == 0, call.printed() + log_of(project)
    assert_is_whole(project, untouched_by_two, ())


def test_slurm_tasks_succeed_if_there_is_nothing_to_train(done_copy):
    calls = start_tasks(done_copy, 2)
    assert [call.end(A_MINUTE) for call in calls] == [0, 0], [call.printed() for call in calls]
    assert log_of(done_copy).rstrip().endswith("another process has made the outputs meanwhile")


def start_tasks(
    project: Path, n: int, command: list[str] | None = None, **of_last: str
) -> list[Call]:
    """Start a training as srun does, on one node. of_last: variables of the last task alone."""
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
    tasks = [{**step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(n)]
    tasks[-1] |= of_last
    return [start(project, command or train_command(project), **task) for task in tasks]


# --- Errors ---------------------------------------------------------------------------------


def with_setting(command: list[str], before: str, after: str) -> list[str]:
    """A command of rule train with another setting; both as JSON has them."""
    place = command.index("--settings") + 1
    assert before in command[place]
    changed = command[place].replace(before, after)
    return [*command[:place], changed, *command[place + 1 :]]


@pytest.mark.parametrize("n", [2, pytest.param(3, marks=only_in_full)])
def test_a_mistake_that_all_ranks_find_is_printed_once(project, n):
    command = with_setting(train_command(project, n), '"batch_size": 8', '"batch_size": 1')
    call = start(project, command)
    assert call.end(A_MINUTE) == 1
    expected = f"one: {n} processes can't share a step of 1 row (batch_size 1 x "
    assert expected in attacks.error_line(call.printed())
    assert log_of(project).count("ERROR") == 1


def test_a_removed_state_is_reported_once(project, count):
    call = start_training(project)
    wait_for_steps(project, call)
    (project / ".nanogpt/state").rename(project / "moved")
    count("fault")
    assert call.end(A_MINUTE) == 1
    assert "or the directory was removed; stopping" in attacks.error_line(call.printed())


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--processes", "0", "processes: should be a whole number of at least 1 (found `0`)"),
        ("--processes", "1.5", "processes: should be a whole number of at least 1 (found `1.5`)"),
        ("--sharded", "yes", "sharded: should be 0 or 1 (found `yes`)"),
    ],
)
def test_resources_that_make_no_sense_are_one_line(project, flag, value, expected):
    command = train_command(project)
    command[command.index(flag) + 1] = value
    call = start(project, command)
    assert call.end(A_MINUTE) == 1
    assert expected in attacks.error_line(call.printed())


def test_another_number_of_processes_than_the_launcher_starts_is_refused(project):
    calls = start_tasks(project, 2, train_command(project, 4))
    assert [call.end(A_MINUTE) for call in calls] == [1, 1]
    expected = "processes is 4, but 2 were started; remove `processes`, or the launcher"
    assert expected in attacks.error_line(calls[0].printed())
    assert calls[1].printed() == ""


def test_a_mistake_of_one_rank_names_it_and_is_printed_once(project):
    first, last = start_tasks(project, 2, NANOGPT_SAVE_INTERVAL="often")
    assert [call.end(A_MINUTE) for call in (first, last)] == [1, 1]
    assert attacks.error_line(first.printed()).startswith("error: rank 0 of 2: another rank has")
    line = "error: rank 1: NANOGPT_SAVE_INTERVAL: should be a number of seconds"
    assert attacks.error_line(last.printed()).startswith(line)


def test_ranks_that_all_fail_end_with_their_exit_code(project):
    """As torch, whose threads still run, would abort some of them."""
    command = with_setting(train_command(project), '"compile": false', '"compile": true')
    calls = start_tasks(project, 2, [*command[:-1], "1"])
    assert [call.end(A_MINUTE) for call in calls] == [1, 1]
    flaw = "one: `sharded` doesn't work with `compile: true`"
    assert flaw in attacks.error_line(calls[0].printed())
    assert calls[1].printed() == ""
