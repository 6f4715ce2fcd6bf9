"""profiles/cluster-generic with SGE's commands, each replaced by a few lines of shell."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.calls import PATIENCE, TRAINED, variable_of
from tests.faults import attacks
from tests.faults.attacks import Call, start

pytestmark = pytest.mark.slurm

# A job is the process group of its script, and its number the group's.
SCHEDULER = {
    "qsub": 'for script in "$@"; do :; done\n'
    'echo "$@" >> "$QUEUE/submitted"\n'
    'setsid sh "$script" > "$QUEUE/output" 2>&1 < /dev/null &\n'
    'echo $! | tee -a "$QUEUE/jobs"\n',
    # Of a process that has ended but isn't waited for, the command line is empty.
    "qstat": 'for job in $(cat "$QUEUE/jobs"); do\n'
    '    if grep -q . "/proc/$job/cmdline" 2> /dev/null; then echo "$job 0.5 name user r"; fi\n'
    "done\n",
    "qdel": 'for job in "$@"; do kill -s TERM -- "-$job"; done\n',
}
OPTIONS = (
    *("--workflow-profile", "profiles/cluster-generic", "--seconds-between-status-checks", "1"),
    *("--latency-wait", "2", "--set-threads", "prepare=1", "train=1", "eval=1", "sample=1"),
)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Path]:
    """A scheduler's commands, and a directory with what they were asked."""
    directory = tmp_path / "queue"
    directory.mkdir()
    (directory / "jobs").touch()
    for name, text in SCHEDULER.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}")
        (directory / name).chmod(0o755)
    yield directory
    for job in jobs_in(directory):
        attacks.send(job, signal.SIGKILL, to_group=True)


def jobs_in(queue: Path) -> list[int]:
    """The numbers of all jobs that were submitted."""
    return [int(line) for line in (queue / "jobs").read_text().split()]


def start_on(queue: Path, project: Path, *targets: str) -> Call:
    path = f"{queue}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "snakemake", *OPTIONS, "--", *targets]
    return start(project, command, PATH=path, QUEUE=str(queue))


def wait_until_training(project: Path, call: Call) -> int:
    attacks.wait_for_steps(project, call)
    (trainer,) = attacks.jobs(project, "train")
    return trainer


def test_a_run_goes_through_the_scheduler(
    queue: Path, project: Path, untouched: dict[str, object]
) -> None:
    call = start_on(queue, project, *attacks.TARGETS)
    trainer = wait_until_training(project, call)
    assert variable_of(trainer, "QUEUE") == str(queue)
    assert call.end(PATIENCE) == 0, call.printed()
    attacks.assert_is_whole(project, untouched)
    lines = (queue / "submitted").read_text().splitlines()
    asked = {line.split(" -N ")[1].split()[0]: line for line in lines}
    assert asked.keys() == {"nanogpt-train", "nanogpt-eval", "nanogpt-sample"}
    assert "-pe smp 1 -l h_rt=0:120:0,mem_free=" in asked["nanogpt-train"]


def test_a_job_that_the_scheduler_kills_is_tried_again_and_resumes(
    queue: Path, trained: Path
) -> None:
    call = start_on(queue, trained, *TRAINED)
    wait_until_training(trained, call)
    (job,) = jobs_in(queue)
    attacks.send(job, signal.SIGKILL, to_group=True)
    for pid in attacks.jobs(trained, "train"):
        attacks.send(pid, signal.SIGKILL)
    assert call.end(PATIENCE) == 0, call.printed()
    assert len(jobs_in(queue)) == 2
    assert "resuming from step" in attacks.log_of(trained)


def test_ctrl_c_takes_the_jobs_out_of_the_queue_and_the_same_command_resumes(
    queue: Path, trained: Path
) -> None:
    call = start_on(queue, trained, *TRAINED)
    wait_until_training(trained, call)
    attacks.send(call.process.pid, signal.SIGINT)
    assert call.end(PATIENCE) != 0
    attacks.wait_until(lambda: not attacks.jobs(trained, "train"), "the training at its end")
    assert start_on(queue, trained, *TRAINED).end(PATIENCE) == 0
    assert "resuming from step" in attacks.log_of(trained)
