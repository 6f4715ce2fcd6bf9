"""Makes a process one of another machine, with another clock, or a view of the disk that is late.

`write` puts this file into a project as sitecustomize.py, which each Python there runs first. A
process is on the node that Slurm names, or else on `rank <n>`, or else on `login`.
"""

import json
import os
import shutil
import stat
import sys
import time
from pathlib import Path

VARIABLE = "TEST_MACHINES"
SHARED = ("results", ".nanogpt/state")  # where a view is late


def write(project, **nodes):
    """Give a project machines; the variables that its processes need.

    nodes: of each, ahead: seconds by which its clock is; stamps: whether files get their dates by
    that clock, as on some parallel disks (an NFS server has its own); late: seconds after which it
    sees a file that others wrote, from when it first looks for it; knows: whether it has seen
    those that are there when a process begins.
    """
    shutil.copy(__file__, project / "sitecustomize.py")
    return {VARIABLE: json.dumps(nodes)}


def node():
    """The node of this process."""
    rank = os.environ.get("RANK")
    return os.environ.get("SLURMD_NODENAME") or (f"rank {rank}" if rank else "login")


def set_clock(ahead):
    """Set the clock of this process; monotonic clocks stay, as they do on a machine."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + ahead
    time.time_ns = lambda: now_ns() + int(ahead * 1e9)


def stamp_by_own_clock():
    """Let files have the dates of this process's clock once they're done."""
    utime, replace, fsync = os.utime, os.replace, os.fsync

    def own_utime(path, times=None, **more):
        utime(path, times if times or more.get("ns") else (time.time(),) * 2, **more)

    def own_replace(source, target, **more):
        replace(source, target, **more)
        own_utime(target)

    def own_fsync(descriptor):
        fsync(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            own_utime(descriptor)

    os.utime, os.replace, os.fsync = own_utime, own_replace, own_fsync


class LateView:
    """What a node sees of a shared disk some time after others have written it."""

    def __init__(self, late, *, knows=False):
        self.late = late
        self.here = str(Path.cwd())
        self.roots = tuple(f"{self.here}/{name}/" for name in SHARED)
        self.seen = {}  # by path, since when it would be there; its own are there at once
        self.stat = os.stat
        if knows:
            for root in self.roots:
                self.seen |= {str(path): 0.0 for path in Path(root).rglob("*")}

    def check(self, path, writes=False):
        """FileNotFoundError for a file that isn't seen yet."""
        if not isinstance(path, str | os.PathLike):
            return
        path = str(path) if str(path).startswith("/") else f"{self.here}/{path}"
        if not path.startswith(self.roots) or f".{os.getpid()}." in path:
            return
        if writes:
            self.seen[path] = 0.0
            return
        try:
            is_file = stat.S_ISREG(self.stat(path).st_mode)
        except OSError:
            return
        if is_file and time.monotonic() - self.seen.setdefault(path, time.monotonic()) < self.late:
            raise FileNotFoundError(2, "No such file or directory", path)

    def install(self):
        """Look through this view from now on."""
        for name in ("stat", "lstat", "open"):
            setattr(os, name, self._looking(getattr(os, name)))
        replace = os.replace

        def own_replace(source, target, **more):
            replace(source, target, **more)
            self.check(target, writes=True)

        os.replace = own_replace
        import builtins
        import io

        import safetensors

        builtins.open = io.open = self._looking(open)
        safetensors.safe_open = self._looking(safetensors.safe_open)

    def _looking(self, function):
        def looking(path, *arguments, **more):
            if "dir_fd" not in more or more["dir_fd"] is None:
                how = arguments[0] if arguments else more.get("mode", "r")
                writes = how & os.O_CREAT if isinstance(how, int) else set(how) & set("wax")
                self.check(path, bool(writes))
            return function(path, *arguments, **more)

        return looking


def begin():
    """Make this process one of its node."""
    settings = json.loads(os.environ.get(VARIABLE, "{}")).get(node())
    if not settings:
        return
    import socket

    socket.gethostname = node
    if settings.get("ahead"):
        set_clock(settings["ahead"])
    if settings.get("stamps"):
        stamp_by_own_clock()
    if settings.get("late"):
        LateView(settings["late"], knows=settings.get("knows", False)).install()


if Path(__file__).name == "sitecustomize.py" and Path(sys.argv[0] or "-").name != "pip":
    begin()
