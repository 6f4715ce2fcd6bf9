"""Nodes, Snakemake and disks are lost; the training ends in the bytes of the undisturbed run."""

import signal
from pathlib import Path

from tests.cluster.calls import (
    PATIENCE,
    SLURM,
    TRAINED,
    finish,
    job_of,
    slurm_logs,
    start_on,
    wait_until_training,
)
from tests.cluster.slurm import Cluster
from tests.faults import attacks

pytestmark = SLURM


def test_a_lost_nodes_job_restarts_while_its_processes_still_run(
    cluster: Cluster, trained: Path
) -> None:
    """Slurm gives the job to the other node; the training there waits for the one that lives on."""
    call = start_on(cluster, trained, *TRAINED)
    trainer = wait_until_training(trained, call)
    job = job_of(cluster)
    node = cluster.show(job)["NodeList"]
    attacks.send(trainer, signal.SIGSTOP)  # so that it isn't done before the node is missed
    cluster.lose_node(node)
    attacks.wait_until(lambda: job in cluster.jobs("PENDING"), "missed", timeout=PATIENCE)
    # Slurm would wait for two minutes.
    cluster.call("scontrol", "update", f"jobid={job}", "starttime=now")
    attacks.wait_until(
        lambda: len(attacks.jobs(trained, "train")) == 2, "started again", timeout=PATIENCE
    )
    assert cluster.show(job)["NodeList"] != node
    assert cluster.show(job)["Restarts"] == "1"
    attacks.send(trainer, signal.SIGCONT)
    finish(call, trained)


def test_a_new_job_waits_for_an_orphan_on_the_cluster(cluster: Cluster, trained: Path) -> None:
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
    assert "another process has made the outputs meanwhile" in attacks.log_of(trained)


def test_a_full_disk_is_one_line_and_the_same_command_resumes(
    cluster: Cluster, trained: Path
) -> None:
    with attacks.small_disk(trained / ".nanogpt") as leave:
        call = start_on(cluster, trained, *TRAINED, options=("--retries", "0"))
        wait_until_training(trained, call)
        leave(0)
        assert call.end(PATIENCE) != 0
        assert "disk full" in attacks.error_line(slurm_logs(trained))
        leave(None)
        finish(start_on(cluster, trained, *TRAINED), trained)
        assert "resuming from step" in attacks.log_of(trained)
        attacks.wait_until(lambda: not attacks.processes(trained), "no process left")
