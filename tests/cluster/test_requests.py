"""What jobs ask Slurm for, and what a user hears when no node can give it."""

from pathlib import Path

import pytest

from nanogpt.config.loading import find_texts, load, read_mapping
from nanogpt.planning.needs import memory_mb
from tests.cluster.calls import (
    SLURM,
    TRAINED,
    finish,
    job_of,
    slurm_logs,
    start_on,
    variable_of,
    wait_until_training,
)
from tests.cluster.slurm import CPUS, MEMORY, Cluster
from tests.faults import attacks

pytestmark = SLURM


def test_the_workflow_gives_the_same_bytes_through_slurm(
    cluster: Cluster, project: Path, untouched: dict[str, object]
) -> None:
    """From the text on. Also, a node that is drained meanwhile ends its job and gets no other."""
    attacks.end_all(project)
    for made in ("results", "resources/corpora"):
        (project / made).rename(project / f"{made}.before")
    earlier = cluster.jobs("all")  # of other tests
    call = start_on(cluster, project, *attacks.TARGETS)
    wait_until_training(project, call)
    job = cluster.show(job_of(cluster))
    assert job["Partition"] == "cpu"
    node = job["NodeList"]
    cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    printed = finish(call, project)
    assert "Trying to restart" not in printed
    attacks.assert_is_whole(project, untouched)
    own = [cluster.show(job) for job in cluster.jobs("all") if job not in earlier]
    ended = {job["Comment"]: job["NodeList"] for job in own}
    assert ended["rule_train_wildcards_one"] == node
    assert ended["rule_eval_wildcards_one"] != node
    assert ended["rule_sample_wildcards_one"] != node


def test_training_requests_its_memory_and_a_gpu(cluster: Cluster, trained: Path) -> None:
    gpu = ("--set-resources", "train:slurm_partition=gpu", "train:gpu=1")
    call = start_on(cluster, trained, *TRAINED, options=gpu)
    trainer = wait_until_training(trained, call)
    job = cluster.show(job_of(cluster))
    assert job["Partition"] == "gpu"
    assert job["TresPerJob"] == "gres:gpu:1"
    config = load(read_mapping(trained / "config.yaml"), find_texts())
    assert job["MinMemoryNode"] == f"{memory_mb(config, 'train', 'one', 1, 0)}M"
    assert variable_of(trainer, "CUDA_VISIBLE_DEVICES") == "0"
    finish(call, trained)


# Options, or settings of a model that is too large, and what the one line says.
IMPOSSIBLE = {
    "a partition that isn't there": (
        ("--set-resources", "train:slurm_partition=nowhere"),
        "`train`: no partition `nowhere`; set `slurm_partition` to one of `cpu`, `gpu`, `short`",
    ),
    "more time than the partition allows": (
        ("--set-resources", "train:slurm_partition=short"),
        "but partition `short` allows 1 min, so it would wait forever",
    ),
    "more time than the partition allows, in the last attempt": (
        ("--set-resources", "train:slurm_partition=short", "train:runtime=attempt"),
        "`train`: the job requests 4 min in attempt 4, but partition `short` allows 1 min",
    ),
    "more processors than a node has": (
        ("--set-threads", "train=9"),
        f"requests 9 processors, but a node of partition `cpu` has {CPUS} or fewer, so it would",
    ),
    "more memory than a node has": (
        ("--config", "defaults={train: {batch_size: 65536}}"),
        f"MB of memory, but a node of partition `cpu` has {MEMORY} MB or less",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_requests_are_refused_before_a_job_is_submitted(
    cluster: Cluster, project: Path, what: str
) -> None:
    options, expected = IMPOSSIBLE[what]
    before = cluster.jobs("all")
    call = start_on(cluster, project, *TRAINED, options=options)
    assert call.end() != 0
    assert expected in attacks.error_line(call.printed())
    assert cluster.jobs("all") == before
    assert not list(project.glob(".snakemake/locks/*")), "the next call needs no --unlock"


# What a cluster with accounts says to a job without one, or to one of somebody else's.
NEEDS_ACCOUNT = """\
#!/bin/sh
case "$*" in *" -A "*) exec /usr/bin/sbatch "$@";; esac
echo "sbatch: error: Batch job submission failed: Invalid account or account/partition \
combination specified" >&2
exit 1
"""


def test_slurms_message_about_a_missing_account_is_shown(cluster: Cluster, project: Path) -> None:
    sbatch = cluster.directory / "bin/sbatch"
    sbatch.write_text(NEEDS_ACCOUNT)
    sbatch.chmod(0o755)
    try:
        call = start_on(cluster, project, *TRAINED, options=("--retries", "0"))
        assert call.end() != 0
    finally:
        sbatch.unlink()
    assert "No SLURM account given" in call.printed()
    assert "Invalid account or account/partition combination specified" in call.printed()
    assert slurm_logs(project) == ""
