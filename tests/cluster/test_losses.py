"""Jobs are lost; the training ends in the bytes of the undisturbed run."""

import signal
from pathlib import Path

from tests.cluster.calls import (
    PATIENCE,
    SLURM,
    TRAINED,
    finish,
    job_of,
    restarts,
    start_on,
    wait_until_training,
)
from tests.cluster.slurm import Cluster
from tests.faults import attacks

pytestmark = SLURM


def test_a_cancelled_job_is_tried_again_and_resumes(cluster: Cluster, trained: Path) -> None:
    call = start_on(cluster, trained, *TRAINED)
    wait_until_training(trained, call)
    cluster.call("scancel", job_of(cluster))
    printed = finish(call, trained)
    assert "SLURM status is: 'CANCELLED'" in printed
    assert restarts(printed) == 1
    assert "resuming from step" in attacks.log_of(trained)


def test_a_preempted_training_saves_its_state_and_resumes(cluster: Cluster, trained: Path) -> None:
    """A preemption begins with SIGTERM to all processes of the job's step."""
    call = start_on(cluster, trained, *TRAINED)
    wait_until_training(trained, call)
    cluster.call("scancel", "--signal=TERM", job_of(cluster))
    printed = finish(call, trained)
    assert restarts(printed) == 1
    assert "resuming from step" in attacks.log_of(trained)


def test_training_resumes_after_its_time_limit(cluster: Cluster, trained: Path) -> None:
    """The first attempt has a minute and is warned half of it before; the next ones have more."""
    limit = ("--set-resources", "train:runtime=attempt", "train:slurm_extra=--signal=TERM@30")
    call = start_on(cluster, trained, *TRAINED, options=limit)
    trainer = wait_until_training(trained, call)
    # It must not end before Slurm warns it, on however fast a machine.
    attacks.send(trainer, signal.SIGSTOP)
    attacks.wait_until(lambda: is_warned(trainer), "warned by Slurm", timeout=PATIENCE)
    attacks.send(trainer, signal.SIGCONT)
    printed = finish(call, trained)
    assert restarts(printed) >= 1
    assert "resuming from step" in attacks.log_of(trained)


def is_warned(pid: int) -> bool:
    """Whether SIGTERM waits for a process that is stopped, or has ended it already."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
    masks = [int(line.split()[1], 16) for line in status.splitlines() if "Pnd:" in line]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


def test_a_killed_training_resumes_in_another_job(cluster: Cluster, trained: Path) -> None:
    """As the kernel kills what takes too much memory."""
    call = start_on(cluster, trained, *TRAINED)
    attacks.send(wait_until_training(trained, call), signal.SIGKILL)
    printed = finish(call, trained)
    assert "SLURM status is: 'FAILED'" in printed
    assert restarts(printed) == 1
    assert "resuming from step" in attacks.log_of(trained)
