"""profiles/cluster-generic with SGE's commands, each replaced by a few lines of shell."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.checkouts import PROJECT
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


# --- What schedulers answer -----------------------------------------------------------------

STATUS = PROJECT / "profiles/cluster-generic/status.sh"
HEAD = "job-ID  prior   name  user  state submit/start at     queue  slots\\n"
SGE = f"printf '{HEAD}    6 0.5 other me r\\n    7 0.5 nanogpt-train me STATE\\n'"
PBS = "printf 'Job id Name User Time S Queue\\n6.server a me 0 R q\\n7.server b me 0 STATE q\\n'"
LSF_ID = "Job <7> is submitted to queue <normal>."


@pytest.fixture
def status(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function: what status.sh says of a job where a scheduler's commands do something."""

    def ask(job: str, **commands: str) -> subprocess.CompletedProcess[str]:
        for name, text in commands.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return subprocess.run(
            ["sh", str(STATUS), job],
            env={"PATH": path, "HERE": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return ask


@pytest.mark.parametrize(
    ("job", "commands", "expected"),
    [
        *[("7", {"qstat": SGE.replace("STATE", s)}, "running") for s in ("r", "qw", "hqw", "dr")],
        *[("7.server", {"qstat": PBS.replace("STATE", s)}, "running") for s in "QRHSE"],
        *[("7.server", {"qstat": PBS.replace("STATE", s)}, "success") for s in "CF"],
        ("8", {"qstat": SGE}, "success"),
        ("7", {"qstat": ":"}, "success"),  # the queue is empty
        ("7", {"qstat": "echo 'error: unable to contact qmaster' >&2; exit 1"}, "running"),
        *[(LSF_ID, {"bjobs": f"echo {state}"}, "running") for state in ("RUN", "PEND", "UNKWN")],
        (LSF_ID, {"bjobs": "echo DONE"}, "success"),
        (LSF_ID, {"bjobs": "echo 'Job <7> is not found' >&2; exit 255"}, "success"),
        (LSF_ID, {"bjobs": "echo 'LSF is down. Please wait ...' >&2; exit 255"}, "running"),
    ],
)
def test_states_of_a_job_by_scheduler(status, job: str, commands: dict, expected: str) -> None:
    said = status(job, **commands)
    assert (said.stdout, said.stderr, said.returncode) == (f"{expected}\n", "", 0)


def test_a_scheduler_that_hangs_is_asked_again(status) -> None:
    timeout = 'shift; exec /usr/bin/timeout 0.2 "$@"'
    assert status("7", timeout=timeout, qstat="sleep 60").stdout == "running\n"
    assert status(LSF_ID, timeout=timeout, bjobs="sleep 60").stdout == "running\n"


@pytest.mark.parametrize("state", ["Eqw", "EhRqw"])
def test_a_job_that_sge_cannot_start_has_failed_for_its_reason(status, tmp_path, state) -> None:
    """It would stay in the queue forever."""
    reason = "error reason 1: can't chdir to /home/me: No such file or directory"
    qstat = f'test "$1" = -j && echo "{reason}" && exit; {SGE.replace("STATE", state)}'
    said = status("7", qstat=qstat, qdel='echo "$@" > "$HERE/deleted"')
    assert said.stdout == "failed\n"
    assert (
        said.stderr == f"error: job 7: the scheduler couldn't start it (state {state}): {reason}\n"
    )
    assert (tmp_path / "deleted").read_text() == "7\n"


def test_a_job_that_failed_on_lsf_has_its_reason(status) -> None:
    bjobs = 'case $3 in stat) echo EXIT;; *) echo "TERM_MEMLIMIT: job killed";; esac'
    said = status(LSF_ID, bjobs=bjobs)
    assert said.stdout == "failed\n"
    assert said.stderr == "error: job 7: TERM_MEMLIMIT: job killed\n"


def test_a_missing_scheduler_is_reported_in_one_line(status) -> None:
    said = status("7")
    assert said.returncode == 1
    assert said.stderr.startswith("error: neither bjobs nor qstat is on PATH")


# --- Runs -----------------------------------------------------------------------------------


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


def test_ctrl_c_cancels_the_jobs_and_the_same_command_resumes(queue: Path, trained: Path) -> None:
    call = start_on(queue, trained, *TRAINED)
    wait_until_training(trained, call)
    attacks.send(call.process.pid, signal.SIGINT)
    assert call.end(PATIENCE) != 0
    attacks.wait_until(lambda: not attacks.jobs(trained, "train"), "the training at its end")
    assert start_on(queue, trained, *TRAINED).end(PATIENCE) == 0
    assert "resuming from step" in attacks.log_of(trained)


def test_after_sigterm_snakemake_waits_for_its_job_and_the_same_command_finishes(
    queue: Path, project: Path, untouched: dict[str, object]
) -> None:
    call = start_on(queue, project, *attacks.TARGETS)
    wait_until_training(project, call)
    attacks.send(call.process.pid, signal.SIGTERM)
    assert call.end(PATIENCE) != 0
    assert len(jobs_in(queue)) == 1
    assert attacks.made(project).keys() == untouched.keys() - set(attacks.MADE_LATER)
    assert start_on(queue, project, *attacks.TARGETS).end(PATIENCE) == 0
    attacks.assert_is_whole(project, untouched)
