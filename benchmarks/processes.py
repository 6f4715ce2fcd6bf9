"""Processes that are timed, on a machine that does nothing else meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

max_others = 0.05  # share of the machine's time that others may take of a measurement
TRIES = 3


@dataclass(frozen=True)
class Timed:
    """A process that ended: seconds by the clock and of its CPU time, others' share, its output."""

    wall: float
    cpu: float
    others: float
    output: str


def run_timed(command: Sequence[str], directory: Path, threads: int, **variables: str) -> Timed:
    """Run a process alone on the machine and time it from its start to its end.

    A measurement in which others took more than `max_others` is made again; after TRIES of them the
    program ends.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(PROJECT),
        **variables,
    }
    for _ in range(TRIES):
        timed = _run(command, directory, environment)
        if timed.others <= max_others:
            return timed
        print(f"again: others took {timed.others:.0%} of the machine meanwhile", flush=True)
    sys.exit("the machine is busy with something else; measure when it isn't")


def _run(command: Sequence[str], directory: Path, environment: dict[str, str]) -> Timed:
    busy, cpu, start = _busy_seconds(), _cpu_of_children(), time.monotonic()
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    wall = time.monotonic() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    cpu = _cpu_of_children() - cpu
    others = max(0.0, _busy_seconds() - busy - cpu) / (wall * (os.cpu_count() or 1))
    return Timed(wall, cpu, others, done.stdout)


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _busy_seconds() -> float:
    """Seconds that all processors together have worked, or were held back, since the start.

    Only Linux tells; 0 elsewhere.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    numbers = [int(word) for word in stat.read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = numbers
    ticks = user + nice + system + interrupts + soft_interrupts + stolen
    return ticks / os.sysconf("SC_CLK_TCK")
