"""Locks: one process at a time does a piece of work, and one that died keeps nobody out.

What is guarded is a directory, which may lie on a disk that many machines share. An owner writes
`lock.<n>` there, which tells who it is, and touches it while it lives. Whoever takes over writes
`lock.<n + 1>`, which only one process can create; so nobody's lock is ever removed from under it
by mistake, and an owner that slept sees that it has a successor.
"""

import contextlib
import errno
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nanogpt.errors import UserError

logger = logging.getLogger(__name__)

HEARTBEAT = 10.0  # seconds between touches
# Seconds without a touch after which an owner counts as dead: several heartbeats, as a shared disk
# may show a touch late.
STALE = 90.0
POLL = 1.0  # seconds
NUMBERED = re.compile(r"lock\.([1-9][0-9]*)")
# Seconds by the clock, for those who don't wait: more than clocks of two machines differ by.
LONG_SILENT = 3 * 3600.0


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, as its file says.

    touched: nanoseconds since the epoch. started: tells its process from a later one of the same
    id. machine: where process ids have one meaning.
    """

    touched: int
    pid: int | None = None
    started: str | None = None
    host: str = "an unknown host"
    machine: str = ""
    work: str = ""
    released: bool = False

    def __str__(self) -> str:
        who = f"process {'?' if self.pid is None else self.pid} on {self.host}"
        return f"{who}, {self.work}" if self.work else who

    def is_gone(self) -> bool:
        """Whether it has let go, or is known to be dead."""
        if self.released:
            return True
        if self.machine != _machine():
            return False
        return _started(self.pid) != self.started


class Lock:
    """A lock that this process holds."""

    def __init__(self, directory: Path, number: int, descriptor: int) -> None:
        self.directory = directory
        self.number = number
        self.descriptor = descriptor

    def check(self) -> None:
        """UserError if another process has taken over, as this one seemed dead."""
        if not self.is_mine():
            raise UserError(
                f"{self.directory}: another process has taken over this work while this one slept, "
                "or the directory was removed; this one stops"
            )

    def is_mine(self) -> bool:
        """Whether no other process has taken over."""
        if (self.directory / f"lock.{self.number + 1}").exists():
            return False
        try:
            there = (self.directory / f"lock.{self.number}").stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.descriptor))


@contextmanager
def hold(directory: Path, work: str) -> Iterator[Lock]:
    """Hold the lock of a directory, made if need be, once its present owner lets go or is dead.

    work: what is done, for whoever waits. An owner is dead when it has not touched its lock for
    STALE seconds; one on this machine at once, when its process is.
    """
    lock = _acquire(directory, work)
    done = threading.Event()

    def touch() -> None:
        while not done.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # a disk over the network that is away for a while
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


def owner(directory: Path) -> Owner | None:
    """Who holds the lock of a directory, if anyone does who is not known to be dead."""
    try:
        with _opened(directory) as opened:
            _, found = _newest(opened)
    except FileNotFoundError:
        return None
    # Of another machine, which may have been this one before it was booted anew.
    if found is None or found.is_gone() or time.time() - found.touched / 1e9 > LONG_SILENT:
        return None
    return found


def _acquire(directory: Path, work: str) -> Lock:
    last_logged = ""
    seen: tuple[int, int] | None = None  # number and time of touch of the lock that is waited for
    watched_since = time.monotonic()
    while True:
        # An owner that has finished removes the directory: it may go, or be another one, any time.
        with _vanishing():
            directory.mkdir(parents=True, exist_ok=True)
        with _vanishing(), _opened(directory) as opened:
            number, found = _newest(opened)
            # Before it is judged, as this process may have slept since it looked last.
            touched = (number, found.touched) if found else None
            if touched != seen:
                seen, watched_since = touched, time.monotonic()
            silent = time.monotonic() - watched_since > STALE
            if found is None or found.is_gone() or silent:
                lock = _create(directory, opened, number + 1, work)
                if lock and found and not found.released:
                    logger.info("%s: taken over from %s", directory, found)
                if lock:
                    return lock
            elif str(found) != last_logged:
                last_logged = str(found)
                logger.warning("%s: waiting for %s", directory, found)
        time.sleep(POLL)


@contextmanager
def _vanishing() -> Iterator[None]:
    """Let files vanish; on a disk over the network, their handles get stale."""
    try:
        yield
    except FileExistsError as error:
        # It was there, and has gone since; but a file, or a link that leads nowhere, stays.
        if Path(error.filename).is_symlink() or Path(error.filename).is_file():
            raise
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """A descriptor of a directory, which means the same one when its name does not any more."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _newest(opened: int) -> tuple[int, Owner | None]:
    """The highest number of a lock, and its owner; 0 and None if there isn't one."""
    matches = (NUMBERED.fullmatch(name) for name in os.listdir(opened))
    number = max((int(match[1]) for match in matches if match), default=0)
    return number, _read(opened, f"lock.{number}") if number else None


def _create(directory: Path, opened: int, number: int, work: str) -> Lock | None:
    """Create a lock; None if another process was first, or the directory has been removed."""
    name = f"lock.{number}"
    try:
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666, dir_fd=opened)
    except (FileExistsError, FileNotFoundError):
        return None
    won = False
    try:
        _write(
            descriptor,
            {
                "pid": os.getpid(),
                "started": _started(os.getpid()),
                "host": socket.gethostname(),
                "machine": _machine(),
                "work": work,
            },
        )
        # This process may have slept since it looked: others may have taken this number and a
        # higher one, and removed the lower, or have made the directory anew.
        same = os.path.samestat(directory.stat(), os.fstat(opened))
        won = same and _newest(opened)[0] == number
    finally:
        if not won:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=opened)
    if not won:
        return None
    for earlier in os.listdir(opened):
        match = NUMBERED.fullmatch(earlier)
        if match and int(match[1]) < number:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(earlier, dir_fd=opened)
    return Lock(directory, number, descriptor)


def _write(descriptor: int, content: dict[str, str | int | bool | None]) -> None:
    text = json.dumps(content).encode()
    os.pwrite(descriptor, text, 0)  # first, so that on a full disk the old content stays
    os.ftruncate(descriptor, len(text))
    os.fsync(descriptor)


def _read(opened: int, name: str) -> Owner:
    """The owner that a lock names, and when it touched the lock.

    A lock that names nobody is being written, or its writer was killed in the middle of it.
    """
    # A network file system looks again when a file is opened, not when it's asked for its times.
    with open(os.open(name, os.O_RDONLY, dir_fd=opened), encoding="utf-8") as file:
        touched = os.fstat(file.fileno()).st_mtime_ns
        try:
            content = json.load(file)
        except (ValueError, RecursionError):
            content = {}
    known = content if isinstance(content, dict) else {}
    pid = known.get("pid")
    texts = {
        key: value
        for key in ("started", "host", "machine", "work")
        if isinstance(value := known.get(key), str)
    }
    return Owner(
        touched,
        pid if isinstance(pid, int) else None,
        released=bool(known.get("released")),
        **texts,
    )


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


def _started(pid: int | None) -> str | None:
    """What tells a process from a later one with the same id; None if there is none that runs."""
    if pid is None or pid <= 0:
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
