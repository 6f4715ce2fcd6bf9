"""Check a job's resources against its Slurm partition, before it's submitted.

Slurm accepts a job that requests more time than its partition allows, or more processors than any
of its nodes has, and lets it wait forever. If Slurm can't be queried, nothing is checked.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from nanogpt.errors import UserError, plural

PATIENCE = 30  # seconds to wait for Slurm's answer


@dataclass(frozen=True)
class Node:
    """A node's resources. memory: in MB."""

    partitions: frozenset[str]
    cpus: int
    memory: int


@dataclass(frozen=True)
class Partition:
    """A partition. minutes: its time limit for a job; None without a limit."""

    name: str
    minutes: float | None
    is_default: bool


@dataclass(frozen=True)
class Request:
    """The resources that a rule's jobs request.

    name: the rule. partition: empty: the default one. minutes: of the first attempt. longest:
    minutes of the last attempt. cpus: per node. memory: per node, in MB. None: not known before
    other jobs have run.
    """

    name: str
    partition: str
    minutes: int | None
    longest: int | None
    attempts: int
    cpus: int
    memory: int | None
    nodes: int = 1


def check(request: Request) -> None:
    """Raise UserError if no node of a partition has the requested resources."""
    found = _find_partitions()
    if not found:
        return
    name = request.partition or _default(found)
    where = f"rule `{request.name}`"
    if name not in found:
        known = ", ".join(f"`{other}`" for other in found)
        raise UserError(f"{where}: no partition `{name}`; set `slurm_partition` to one of {known}")
    limit, longest = found[name].minutes, request.longest
    if limit is not None and longest is not None and longest > limit:
        attempt = "" if longest == request.minutes else f" in attempt {request.attempts}"
        raise UserError(
            f"{where}: the job requests {longest} min{attempt}, but partition `{name}` allows "
            f"{limit:g} min, so it would wait forever; set a shorter `runtime`, or another "
            "`slurm_partition`"
        )
    _check_nodes(where, name, request)


def _check_nodes(where: str, partition: str, request: Request) -> None:
    nodes = [node for node in _find_nodes() if partition in node.partitions]
    if not nodes:
        return
    most_cpus, most_memory = (max(n.cpus for n in nodes), max(n.memory for n in nodes))
    if request.cpus > most_cpus:
        raise UserError(
            f"{where}: the job requests {request.cpus} processors, but a node of partition "
            f"`{partition}` has {most_cpus} or fewer, so it would wait forever; lower its number "
            "in `set-threads`, or set another `slurm_partition`"
        )
    if request.nodes > len(nodes):
        raise UserError(
            f"{where}: the job requests {plural(request.nodes, 'node')}, but partition "
            f"`{partition}` has {len(nodes)}, so it would wait forever; lower `nodes`"
        )
    if request.memory is not None and request.memory > most_memory:
        raise UserError(
            f"{where}: the job requests {request.memory} MB of memory, but a node of partition "
            f"`{partition}` has {most_memory} MB or less; set another `slurm_partition`, a smaller "
            "`train.batch_size` for a training, or `mem_mb` if the estimate is too high"
        )


def largest_memory() -> int | None:
    """Return the memory of the cluster's largest node in MB; None if Slurm can't be queried."""
    return max((node.memory for node in _find_nodes()), default=None)


def _default(partitions: Mapping[str, Partition]) -> str:
    return next((p.name for p in partitions.values() if p.is_default), next(iter(partitions)))


@cache
def _find_partitions() -> dict[str, Partition]:
    """Return the cluster's partitions by name; empty if Slurm can't be queried."""
    return {
        words["PartitionName"]: Partition(
            words["PartitionName"],
            parse_minutes(words.get("MaxTime", "UNLIMITED")),
            words.get("Default") == "YES",
        )
        for words in _ask("partition")
        if "PartitionName" in words
    }


@cache
def _find_nodes() -> list[Node]:
    try:
        return [
            Node(
                frozenset(words.get("Partitions", "").split(",")),
                int(words["CPUTot"]),
                int(words["RealMemory"]),
            )
            for words in _ask("node")
        ]
    except (KeyError, ValueError):
        return []


def _ask(what: str) -> list[dict[str, str]]:
    """Return the output of `scontrol show`, one mapping per line."""
    try:
        shown = subprocess.run(
            ["scontrol", "--oneliner", "show", what],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    lines = (line.split() for line in shown.stdout.splitlines() if line.strip())
    return [dict(word.split("=", 1) for word in words if "=" in word) for words in lines]


def parse_minutes(text: str) -> float | None:
    """Convert a Slurm time such as 1-12:00:00, 2:00:00, 30:00 or UNLIMITED (None) to minutes."""
    days, _, clock = text.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
    except ValueError:
        return None
    if len(parts) == 2 and not days:
        parts = [0, *parts]
    hours, minutes, seconds = [*parts, 0, 0][:3]
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds / 60
