"""Whether a partition of a Slurm cluster can give what a job asks for, before it's submitted.

Slurm accepts a job that asks for more time than its partition allows, or for more processors than
any of its nodes has, and lets it wait for ever. Whatever can't be known is left to Slurm.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from nanogpt.errors import UserError, plural

PATIENCE = 30  # seconds that Slurm may take to answer


@dataclass(frozen=True)
class Node:
    """What a node has. memory: MB."""

    partitions: frozenset[str]
    cpus: int
    memory: int


@dataclass(frozen=True)
class Partition:
    """A partition. minutes: that a job may take; None without a limit."""

    name: str
    minutes: float | None
    is_default: bool


@dataclass(frozen=True)
class Request:
    """What a rule's jobs ask for. name: of the rule. partition: empty for the default one.

    minutes: of the first attempt. longest: of the last one. memory: MB, of one node. None: not
    known before others ran. nodes: how many. cpus: of each.
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
    """UserError if no node of a partition can give what is asked for."""
    found = _find_partitions()
    if not found:
        return
    name = request.partition or _default(found)
    where = f"the profile's resources of `{request.name}`"
    if name not in found:
        known = ", ".join(f"`{other}`" for other in found)
        raise UserError(f"{where}: no partition `{name}`; set `slurm_partition` to one of {known}")
    limit, longest = found[name].minutes, request.longest
    if limit is not None and longest is not None and longest > limit:
        attempt = "" if longest == request.minutes else f" in attempt {request.attempts}"
        raise UserError(
            f"{where}: partition `{name}` gives a job up to {limit:g} min, and this one asks "
            f"for {longest}{attempt}, so it would wait for ever; set a shorter `runtime`, or "
            "another `slurm_partition`"
        )
    _check_nodes(where, name, request)


def _check_nodes(where: str, partition: str, request: Request) -> None:
    nodes = [node for node in _find_nodes() if partition in node.partitions]
    if not nodes:
        return
    most_cpus, most_memory = (max(n.cpus for n in nodes), max(n.memory for n in nodes))
    if request.cpus > most_cpus:
        raise UserError(
            f"{where}: a node of partition `{partition}` has up to {most_cpus} processors, and the "
            f"job asks for {request.cpus}, so it would wait for ever; lower its number in "
            "`set-threads`, or set another `slurm_partition`"
        )
    if request.nodes > len(nodes):
        raise UserError(
            f"{where}: partition `{partition}` has {plural(len(nodes), 'node')}, and the job asks "
            f"for {request.nodes}, so it would wait for ever; lower `nodes`"
        )
    if request.memory is not None and request.memory > most_memory:
        raise UserError(
            f"{where}: a node of partition `{partition}` has up to {most_memory} MB of memory, and "
            f"the job asks for {request.memory}; set another `slurm_partition`, or for a training "
            "a smaller `train.batch_size`, or `mem_mb` if you know better"
        )


def largest_memory() -> int | None:
    """MB of the cluster's largest node; None if Slurm doesn't tell."""
    return max((node.memory for node in _find_nodes()), default=None)


def _default(partitions: Mapping[str, Partition]) -> str:
    return next((p.name for p in partitions.values() if p.is_default), next(iter(partitions)))


@cache
def _find_partitions() -> dict[str, Partition]:
    """The cluster's partitions by name; none if Slurm doesn't tell."""
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
    """What `scontrol` shows, a mapping for each line."""
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
    """Minutes of one of Slurm's times, such as 1-12:00:00, 2:00:00, 30:00 or UNLIMITED (None)."""
    days, _, clock = text.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
    except ValueError:
        return None
    if len(parts) == 2 and not days:
        parts = [0, *parts]
    hours, minutes, seconds = [*parts, 0, 0][:3]
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds / 60
