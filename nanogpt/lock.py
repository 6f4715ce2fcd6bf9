"""Locks: one process at a time does a piece of work, and one that died keeps nobody out.

What is guarded is a directory, which may lie on a disk that many machines share. An owner writes
`lock.<n>` there, which tells who it is, and touches it while it lives. Whoever takes over writes
`lock.<n + 1>`, which only one process can create; so nobody's lock is ever removed from under it
by mistake, and an owner that slept sees that it has a successor.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nanogpt.config import UserError

logger = logging.getLogger(__name__)

HEARTBEAT = 10.0  # seconds between touches
# Seconds without a touch after which an owner on another machine counts as dead. Several
# heartbeats, as a shared disk may show a touch late.
STALE = 90.0
POLL = 1.0  # seconds


class Lock:
    """A lock that this process holds."""

    def __init__(self, directory: Path, number: int, descriptor: int) -> None:
        self.directory = directory
        self.number = number
        self.descriptor = descriptor

    def check(self) -> None:
        """UserError if another process has taken over, as this one seemed dead."""
        if (self.directory / f"lock.{self.number + 1}").exists() or not self._is_there():
            raise UserError(
                f"{self.directory}: another process has taken over this work while this one "
                "slept; it goes on there, and this one stops"
            )

    def _is_there(self) -> bool:
        try:
            there = (self.directory / f"lock.{self.number}").stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.descriptor))


@contextmanager
def hold(directory: Path, work: str) -> Iterator[Lock]:
    """Hold the lock of a directory, made if need be, once its present owner lets go or is dead.

    work: what is done, for whoever waits. An owner on this machine is dead when its process is;
    one on another, when it has not touched its lock for STALE seconds.
    """
    lock = _acquire(directory, work)
    done = threading.Event()

    def touch() -> None:
        while not done.wait(HEARTBEAT):
            os.utime(lock.descriptor)

    heartbeat = threading.Thread(target=touch, daemon=True)
    heartbeat.start()
    try:
        yield lock
    finally:
        done.set()
        heartbeat.join()
        # On a full disk too, what was done counts: that this process has ended can be seen.
        with contextlib.suppress(OSError):
            _write(lock.descriptor, {"released": True})
        os.close(lock.descriptor)


def owner(directory: Path) -> dict[str, Any] | None:
    """Who holds the lock of a directory, if anyone does who is not known to be dead."""
    number = _newest(directory)
    found = _read(directory / f"lock.{number}") if number else None
    if found is None or _is_over(found):
        return None
    return found


def _acquire(directory: Path, work: str) -> Lock:
    told = ""
    seen: tuple[int, int] | None = None  # number and time of touch of the lock that is waited for
    watched_since = time.monotonic()
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        number = _newest(directory)
        path = directory / f"lock.{number}"
        found = _read(path) if number else None
        if found is None or _is_over(found) or time.monotonic() - watched_since > STALE:
            lock = _create(directory, number + 1, work)
            if lock:
                if found and not found.get("released"):
                    logger.info("%s: taken over from %s", directory, _who(found))
                return lock
            continue
        touched = (number, found["touched"])
        if touched != seen:
            seen, watched_since = touched, time.monotonic()
        if _who(found) != told:
            told = _who(found)
            logger.info("%s: waiting for %s", directory, told)
        time.sleep(POLL)


def _newest(directory: Path) -> int:
    """The highest number of a lock, 0 if there is none."""
    numbers = [path.suffix[1:] for path in directory.glob("lock.*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _create(directory: Path, number: int, work: str) -> Lock | None:
    """Create a lock; None if another process was first, or the directory is just being removed."""
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
        descriptor = os.open(directory / f"lock.{number}", flags, 0o666)
    except (FileExistsError, FileNotFoundError):
        return None
    me = {
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "host": socket.gethostname(),
        "machine": _machine(),
        "work": work,
    }
    try:
        _write(descriptor, me)
    except OSError:
        os.close(descriptor)
        (directory / f"lock.{number}").unlink(missing_ok=True)
        raise
    for earlier in range(1, number):
        (directory / f"lock.{earlier}").unlink(missing_ok=True)
    return Lock(directory, number, descriptor)


def _write(descriptor: int, said: dict[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(said).encode(), 0)
    os.fsync(descriptor)


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says, and when it was touched; None if it has just gone.

    One that says nothing is just being written, or its writer was killed in the middle of it.
    """
    try:
        # A file system over the network looks anew when a file is opened, not when asked for it.
        with open(path, encoding="utf-8") as file:
            touched = os.fstat(file.fileno()).st_mtime_ns
            text = file.read()
    except FileNotFoundError:
        return None
    try:
        said = json.loads(text)
    except ValueError:
        said = {}
    return {**(said if isinstance(said, dict) else {}), "touched": touched}


def _is_over(found: dict[str, Any]) -> bool:
    """Whether an owner has let go, or is known to be dead."""
    if found.get("released"):
        return True
    if found.get("machine") != _machine():
        return False
    return _started(found.get("pid")) != found.get("started")


def _who(found: dict[str, Any] | None) -> str:
    said = found or {}
    who = f"process {said.get('pid', '?')} on {said.get('host', 'an unknown host')}"
    return f"{who}, {said['work']}" if "work" in said else who


def _machine() -> str:
    """Names where process ids have one meaning: a boot of a host, or a container on it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    parts = [
        socket.gethostname(),
        boot.read_text().strip() if boot.exists() else "",
        str(namespace.stat().st_ino) if namespace.exists() else "",
    ]
    return " ".join(parts)


def _started(pid: Any) -> str | None:
    """What tells a process from a later one with the same id; None if there is none that runs."""
    if not isinstance(pid, int) or pid <= 0:
        return None
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():  # not Linux
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "runs"
    try:
        # The name, in parentheses, may itself hold blanks. Fields: proc(5).
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else start_ticks
