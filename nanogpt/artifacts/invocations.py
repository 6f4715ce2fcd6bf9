"""Track which Snakemake processes use a project, and detect locks left by dead ones.

Snakemake's own lock lists files, but not its owner. So each process also holds one of nanogpt's
locks, which identifies it.
"""

import atexit
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from nanogpt.files import locks
from nanogpt.project import HERE, Project

PROCESSES = Path("/proc")  # exists on Linux only


def register(project: Project = HERE) -> None:
    """Register this process, until it ends, as a Snakemake process that uses the project."""
    directory = project.invocations / f"{os.uname().nodename}-{os.getpid()}"
    stack = ExitStack()
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    stack.enter_context(locks.hold(directory, _work(sys.argv[1:])))
    atexit.register(stack.close)


def find_holders(project: Project = HERE) -> list[str]:
    """Describe the processes that use the project and aren't known to be dead."""
    registered = (locks.owner(path) for path in project.invocations.glob("*"))
    holders = [str(owner) for owner in registered if owner]
    return holders or _find_processes(project)


def is_lock_stale(project: Project = HERE) -> bool:
    """Whether the owner of Snakemake's lock is known to be dead.

    A process locks its files before it registers. So if it's the dead owner, the lock is older
    than the last heartbeat of its registration.
    """
    left = [path.stat().st_mtime for path in project.snakemake_locks.glob("*.lock")]
    seen = [path.stat().st_mtime for path in project.invocations.glob("*/lock.*")]
    return bool(left and seen) and max(left) <= max(seen) and not find_holders(project)


def forget_dead(project: Project = HERE) -> None:
    """Remove the registrations of dead processes."""
    for directory in project.invocations.glob("*"):
        if locks.owner(directory) is None:
            shutil.rmtree(directory, ignore_errors=True)


def _find_processes(project: Project) -> list[str]:
    """Describe the processes on this machine that run Snakemake in the project."""
    root, found = project.root.resolve(), []
    for directory in PROCESSES.glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            is_here = (directory / "cwd").resolve() == root
        except OSError:  # it has ended or belongs to another user
            continue
        is_snakemake = any(Path(word).name == "snakemake" for word in words[:3])
        if is_here and is_snakemake and "--unlock" not in words:
            found.append(f"process {directory.name} ({_work(words)})")
    return found


def _work(words: list[str]) -> str:
    """Describe the work of a Snakemake process, given the words of its command line."""
    files = [word for word in words if word.startswith("results/")]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"making {files[0]}{more}" if files else "running the workflow"
