"""Jobs, nodes and Snakemake are lost; the training ends in the bytes of the undisturbed run."""

import signal
from pathlib import Path

from tests.cluster.calls import (
    PATIENCE,
    SLURM,
    TRAINED,
    finish,
    job_of,
    start_on,
    wait_until_training,
)
from tests.cluster.slurm import Cluster
from tests.faults import attacks

pytestmark = SLURM


def restarts(printed: str) -> int:
    """How many jobs Snakemake has submitted again."""
    return printed.count("Trying to restart job")


def test_a_cancelled_job_is_tried_again_and_resumes(cluster: Cluster, trained: Path) -> None:
    call = start_on(cluster, trained, *TRAINED)
    wait_until_training(trained, call)
    cluster.call("scancel", job_of(cluster))
    printed = finish(call, trained)
    assert "SLURM status is: 'CANCELLED'" in printed
    assert restarts(printed) == 1
    assert "going on from step" in attacks.log_of(trained)


def test_a_preempted_training_saves_its_state_and_resumes(cluster: Cluster, trained: Path) -> None:
    """A preemption begins with SIGTERM to all processes of the job's step."""
    call = start_on(cluster, trained, *TRAINED)
    wait_until_training(trained, call)
    cluster.call("scancel", "--signal=TERM", job_of(cluster))
    printed = finish(call, trained)
    assert restarts(printed) == 1
    assert "going on from step" in attacks.log_of(trained)


def test_a_training_goes_on_after_its_time_limit(cluster: Cluster, trained: Path) -> None:
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
    assert "going on from step" in attacks.log_of(trained)


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
    assert "going on from step" in attacks.log_of(trained)


def test_a_lost_nodes_job_starts_again_while_its_processes_live_on(
    cluster: Cluster, trained: Path
) -> None:
    """Slurm gives the job to the other node; the training there waits for the one that lives on."""
    call = start_on(cluster, trained, *TRAINED)
    trainer = wait_until_training(trained, call)
    job = job_of(cluster)
    node = cluster.show(job)["NodeList"]
    attacks.send(trainer, signal.SIGSTOP)  # so that it isn't done before the node is missed
    cluster.lose_node(node)
    attacks.wait_until(
        lambda: len(attacks.jobs(trained, "train")) == 2, "started again", timeout=PATIENCE
    )
    assert cluster.show(job)["NodeList"] != node
    assert cluster.show(job)["Restarts"] == "1"
    attacks.send(trainer, signal.SIGCONT)
    finish(call, trained)


def test_an_orphan_on_the_cluster_is_waited_for(cluster: Cluster, trained: Path) -> None:
    """Snakemake is killed, its job isn't, and the same command is given again."""
    first = start_on(cluster, trained, *TRAINED)
    orphan = wait_until_training(trained, first)
    attacks.send(orphan, signal.SIGSTOP)
    attacks.send(first.process.pid, signal.SIGKILL)
    first.end()
    attacks.unlock(trained)
    call = start_on(cluster, trained, *TRAINED)
    attacks.wait_until(
        lambda: f"waiting for process {orphan} " in attacks.log_of(trained),
        "waiting",
        timeout=PATIENCE,
    )
    attacks.send(orphan, signal.SIGCONT)
    finish(call, trained)
    assert "made by the process that this one waited for" in attacks.log_of(trained)
