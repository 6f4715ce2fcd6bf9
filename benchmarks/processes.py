"""Time processes on an otherwise idle machine."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

max_others = 0.05  # largest accepted share of other processes in the machine's CPU time
TRIES = 3


@dataclass(frozen=True)
class Timed:
    """A finished process: wall seconds, CPU seconds, other processes' share, and its output."""

    wall: float
    cpu: float
    others: float
    output: str


def run_timed(command: Sequence[str], directory: Path, threads: int, **variables: str) -> Timed:
    """Time a process from start to end.

    If other processes used more than `max_others` of the machine, the measurement is repeated. The
    program exits after TRIES attempts.
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
        print(f"repeating: other processes used {timed.others:.0%} of the machine", flush=True)
    sys.exit("error: the machine is busy with other work; try again when it's idle")


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
    """CPU seconds of all processors since boot, including time stolen by the host.

    Only known on Linux; 0 elsewhere.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    numbers = [int(word) for word in stat.read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = numbers
    ticks = user + nice + system + interrupts + soft_interrupts + stolen
    return ticks / os.sysconf("SC_CLK_TCK")
