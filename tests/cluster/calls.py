"""Calls of the workflow on Slurm, and the state of their jobs."""

import sys
import time
from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster, is_installed
from tests.faults import attacks
from tests.faults.attacks import Call, start

SLURM = [
    pytest.mark.slurm,
    pytest.mark.skipif(not is_installed(), reason="slurmctld, slurmd or squeue isn't installed"),
]

PATIENCE = 600  # seconds for a workflow on a busy machine

# Enough to be stopped on the way: 7 s on one idle thread.
STEPS = 400
TRAINED = ("results/one/metrics.jsonl",)

# The profile as it is, but for what makes a test slow: how often jobs are looked at. One thread, as
# the untouched run has; another number would give other bits.
OPTIONS = (
    *("--workflow-profile", "profiles/slurm", "--latency-wait", "10"),
    *("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"),
    *("--set-threads", "prepare=1", "train=1", "eval=1", "sample=1"),
)


def start_on(
    cluster: Cluster, project: Path, *targets: str, options: tuple[str, ...] = (), **more: str
) -> Call:
    """Start the workflow on a cluster. options: beside those of all tests. more: variables."""
    command = [sys.executable, "-m", "snakemake", *OPTIONS, *options, "--", *targets]
    own = {name: cluster.environment[name] for name in ("PATH", "SLURM_CONF")}
    return start(project, command, **own, **more)


def finish(call: Call, project: Path) -> str:
    """Wait for the good end of a call; what it printed."""
    code = call.end(PATIENCE)
    assert code == 0, call.printed() + attacks.log_of(project) + slurm_logs(project)
    return call.printed()


def slurm_logs(project: Path) -> str:
    """What the jobs printed, as far as the plugin has kept it: that of jobs that failed."""
    return "\n".join(path.read_text() for path in project.glob(".snakemake/slurm_logs/**/*.log"))


def restarts(printed: str) -> int:
    """How many jobs Snakemake has submitted again."""
    return printed.count("Trying to restart job")


def job_of(cluster: Cluster) -> str:
    """The id of the one job that runs."""
    deadline = time.monotonic() + PATIENCE
    while len(jobs := cluster.jobs()) != 1:
        assert time.monotonic() < deadline, jobs
        time.sleep(0.1)
    return jobs[0]


def wait_until_training(project: Path, call: Call) -> int:
    """Wait until a training that was just started makes steps; its process id."""
    attacks.wait_for_steps(project, call)
    (trainer,) = attacks.jobs(project, "train")
    return trainer


def variable_of(pid: int, name: str) -> str | None:
    """A variable of a process's environment."""
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    found = dict(word.split("=", 1) for word in words if "=" in word)
    return found.get(name)
