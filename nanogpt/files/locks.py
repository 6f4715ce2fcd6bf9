"""Locks: only one process at a time does a piece of work, and a dead process blocks nobody.

A lock guards a directory, which can be on a disk shared by many machines. The owner writes
`lock.<n>` there, with its identity, and touches the file regularly. A process that takes over
creates `lock.<n + 1>`, which only one process can do. So a live owner never loses its lock by
mistake, and an owner that was suspended can see that it has a successor.
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
# Seconds without a touch after which an owner counts as dead: several heartbeats, because a shared
# disk may show a touch late.
STALE = 90.0
POLL = 1.0  # seconds
NUMBERED = re.compile(r"lock\.([1-9][0-9]*)")
# Seconds by the clock, for callers that don't wait; long, because machines' clocks may differ.
LONG_SILENT = 3 * 3600.0


@dataclass(frozen=True)
class Owner:
    """The holder of a lock, read from its file.

    touched: nanoseconds since the epoch. started: distinguishes the process from a later one with
    the same id. machine: the scope in which process ids are unique.
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
        return f"{who} ({self.work})" if self.work else who

    def is_here(self) -> bool:
        """Whether it's a process that runs on this machine."""
        return not self.is_gone() and self.machine == _machine() and self.pid is not None

    def is_gone(self) -> bool:
        """Whether it has released the lock or is known to be dead."""
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
        """Raise UserError if another process has taken over because this one seemed dead."""
        if not self.is_mine():
            raise UserError(
                f"{self.directory}: another process took over this work while this one was "
                "suspended, or the directory was removed; stopping"
            )

    def is_mine(self) -> bool:
        """Whether this process still holds the lock."""
        if (self.directory / f"lock.{self.number + 1}").exists():
            return False
        try:
            on_disk = (self.directory / f"lock.{self.number}").stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(on_disk, os.fstat(self.descriptor))


@contextmanager
def hold(directory: Path, work: str) -> Iterator[Lock]:
    """Hold the lock of a directory, waiting until its current owner releases it or is dead.

    The directory is created if it doesn't exist. work: a description for processes that wait. An
    owner counts as dead if it hasn't touched its lock for STALE seconds. An owner on this machine
    counts as dead as soon as its process has ended.
    """
    lock = _acquire(directory, work)
    done = threading.Event()

    def touch() -> None:
        while not done.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # a network disk may be unreachable for a while
                os.utime(lock.descriptor)

    heartbeat = threading.Thread(target=touch, daemon=True)
    heartbeat.start()
    try:
        yield lock
    finally:
        done.set()
        heartbeat.join()
        # An error here, as on a full disk, is harmless: waiters also see that this process ended.
        with contextlib.suppress(OSError):
            _write(lock.descriptor, {"released": True})
        os.close(lock.descriptor)


def owner(directory: Path) -> Owner | None:
    """The owner of a directory's lock; None if it's free or the owner is known to be dead."""
    try:
        with _opened(directory) as opened:
            _, found = _newest(opened)
    except FileNotFoundError:
        return None
    # A silent owner on another machine may be a process of this one from before a reboot.
    if found is None or found.is_gone() or time.time() - found.touched / 1e9 > LONG_SILENT:
        return None
    return found


def identify(pid: int, work: str) -> Owner:
    """Describe a process of this machine, so that a later one with its id isn't taken for it."""
    return Owner(time.time_ns(), pid, _started(pid), socket.gethostname(), _machine(), work)


def _acquire(directory: Path, work: str) -> Lock:
    last_logged = ""
    seen: tuple[int, int] | None = None  # number and last touch of the other process's lock
    watched_since = time.monotonic()
    while True:
        # A finished owner removes the directory, so it may vanish or be recreated at any time.
        with _vanishing():
            directory.mkdir(parents=True, exist_ok=True)
        with _vanishing(), _opened(directory) as opened:
            number, found = _newest(opened)
            # Update this before judging: this process may have been suspended since the last look.
            touched = (number, found.touched) if found else None
            if touched != seen:
                seen, watched_since = touched, time.monotonic()
            silent = time.monotonic() - watched_since > STALE
            if found is None or found.is_gone() or silent:
                lock = _create(directory, opened, number + 1, work)
                if lock and found and not found.released:
                    logger.info("%s: took over from %s", directory, found)
                if lock:
                    return lock
            elif str(found) != last_logged:
                last_logged = str(found)
                logger.warning("%s: waiting for %s", directory, found)
        time.sleep(POLL)


@contextmanager
def _vanishing() -> Iterator[None]:
    """Ignore vanished files, and stale handles of files on a network disk."""
    try:
        yield
    except FileExistsError as error:
        # mkdir raises this for a directory that vanished meanwhile, which is fine, but also for a
        # file or a broken link, which isn't.
        if Path(error.filename).is_symlink() or Path(error.filename).is_file():
            raise
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """A descriptor that refers to the same directory even after its path is reused."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _newest(opened: int) -> tuple[int, Owner | None]:
    """The highest lock number and its owner; 0 and None if there's no lock."""
    matches = (NUMBERED.fullmatch(name) for name in os.listdir(opened))
    number = max((int(match[1]) for match in matches if match), default=0)
    return number, _read(opened, f"lock.{number}") if number else None


def _create(directory: Path, opened: int, number: int, work: str) -> Lock | None:
    """Create a lock; None if another process was faster or the directory was removed."""
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
        # This process may have been suspended since it looked. Others may have used this number
        # and a higher one and removed the lower one, or recreated the directory.
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
    os.pwrite(descriptor, text, 0)  # before truncating, so a full disk keeps the old content
    os.ftruncate(descriptor, len(text))
    os.fsync(descriptor)


def _read(opened: int, name: str) -> Owner:
    """Read a lock's owner and the time of its last touch.

    A lock without an owner is still being written, or its writer was killed.
    """
    # A network file system refreshes a file's times when it's opened, but not for stat alone.
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
    """Identify the scope of process ids: one boot of a host, or a container on it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    parts = [
        socket.gethostname(),
        boot.read_text().strip() if boot.exists() else "",
        str(namespace.stat().st_ino) if namespace.exists() else "",
    ]
    return " ".join(parts)


def _started(pid: int | None) -> str | None:
    """A start time that distinguishes a process from later ones with its id; None if it's gone."""
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
        # The process name, in parentheses, can contain spaces. Fields: see proc(5).
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else start_ticks
