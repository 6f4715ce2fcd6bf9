"""Which calls of Snakemake work in a project, and whether one that left a lock is dead.

Snakemake's own lock names files, not its owner. Each call also holds one of nanogpt's locks, which
tells who it is.
"""

import atexit
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from nanogpt.files import locks
from nanogpt.project import HERE, Project

PROCESSES = Path("/proc")  # Linux alone has it


def register(project: Project = HERE) -> None:
    """Say that this process is a call of Snakemake that works in the project, until it ends."""
    directory = project.invocations / f"{os.uname().nodename}-{os.getpid()}"
    stack = ExitStack()
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    stack.enter_context(locks.hold(directory, _work(sys.argv[1:])))
    atexit.register(stack.close)


def find_holders(project: Project = HERE) -> list[str]:
    """Who works in the project, as far as isn't known to be dead, in words."""
    registered = (locks.owner(path) for path in project.invocations.glob("*"))
    holders = [str(owner) for owner in registered if owner]
    return holders or _find_processes(project)


def is_lock_stale(project: Project = HERE) -> bool:
    """Whether whoever left Snakemake's lock is known to be dead.

    A call locks its files first, and registers then. So what it left is older than the last sign
    of life of its registration.
    """
    left = [path.stat().st_mtime for path in project.snakemake_locks.glob("*.lock")]
    seen = [path.stat().st_mtime for path in project.invocations.glob("*/lock.*")]
    return bool(left and seen) and max(left) <= max(seen) and not find_holders(project)


def forget_dead(project: Project = HERE) -> None:
    """Remove the registrations of calls that are dead."""
    for directory in project.invocations.glob("*"):
        if locks.owner(directory) is None:
            shutil.rmtree(directory, ignore_errors=True)


def _find_processes(project: Project) -> list[str]:
    """Processes of this machine that run Snakemake in the project, in words."""
    root, found = project.root.resolve(), []
    for directory in PROCESSES.glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            is_here = (directory / "cwd").resolve() == root
        except OSError:  # it ended, or is another user's
            continue
        is_snakemake = any(Path(word).name == "snakemake" for word in words[:3])
        if is_here and is_snakemake and "--unlock" not in words:
            found.append(f"process {directory.name}, {_work(words)}")
    return found


def _work(words: list[str]) -> str:
    """What a call of Snakemake does, by the words of its command line."""
    files = [word for word in words if word.startswith("results/")]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"which makes {files[0]}{more}" if files else "which runs the workflow"
