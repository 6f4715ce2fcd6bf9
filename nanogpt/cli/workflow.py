"""Run the workflow as a child process: signals, output and locks."""

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from nanogpt.artifacts import invocations
from nanogpt.cli.progress import Progress
from nanogpt.errors import UserError
from nanogpt.project import HERE

POLL = 0.1  # seconds
LOCK_POLL = 1.0  # seconds
REPEAT = 5.0  # seconds
DIED = 128  # higher exit codes stand for signals
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

# Lines that our jobs print for the user; other lines are Snakemake's own.
OURS = re.compile(r"(?:error|warning): |[a-z][a-z_0-9]* [^ ]+: \S")
LOCKED = "Directory cannot be locked"
QUIET = ("--quiet", "progress", "rules", "reason", "host")
# In the order in which Snakemake looks for them.
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")


def make(targets: Sequence[str], cores: str, progress: Progress | None = None) -> int:
    """Make files with the workflow in the working directory. Returns Snakemake's exit code.

    If signal n stops it, the exit code is 128 + n as in a shell, instead of Snakemake's 1. If
    another Snakemake process has the lock of the same files, this waits for it.

    Errors: UserError if Snakemake or the workflow is missing, and for a lock without an owner.
    """
    snakemake = [*_snakemake(), "--cores", cores]
    while True:
        call = _Call([*snakemake, *QUIET, "--", *targets], progress)
        before = _find_locks()
        code = call.run()
        if code > DIED:
            _remove_own_lock(snakemake, before)
        if code and call.stopped:
            return DIED + call.stopped
        if not call.is_locked:
            return code
        _wait_for_lock(snakemake)


def _snakemake() -> list[str]:
    """Return the command that starts Snakemake, with the Snakefile if it wouldn't find it."""
    if importlib.util.find_spec("snakemake") is None:
        raise UserError("Snakemake isn't installed; run `pip install 'nanogpt[workflow]'`")
    command = [sys.executable, "-m", "snakemake"]
    if any((HERE.root / name).is_file() for name in SNAKEFILES):
        return command
    shipped = Path(__file__).resolve().parents[2] / "Snakefile"
    if not shipped.is_file():
        raise UserError(
            "no Snakefile here; run this in a checkout of the project, or install nanogpt from a "
            "checkout with `pip install --editable`"
        )
    return [*command, "--snakefile", str(shipped)]


@dataclass
class _Call:
    """One Snakemake process.

    stopped: the signal that the user sent to stop it. signalled: the time of the last signal to its
    process group. is_interrupted: whether that group got SIGINT.
    """

    command: list[str]
    progress: Progress | None
    stopped: int = 0
    signalled: float = 0.0
    is_interrupted: bool = False
    is_locked: bool = False
    has_error: bool = False
    others: list[str] = field(default_factory=list)

    def run(self) -> int:
        # A file, not a pipe: if this process is killed, the jobs can still write to it.
        with tempfile.TemporaryFile() as output, self._started(output) as child:
            with _forwarding(self, child), open(output.fileno(), "rb", closefd=False) as reader:
                position, rest = 0, b""
                while True:
                    code = child.poll()
                    new = os.pread(reader.fileno(), 1 << 20, position)
                    position += len(new)
                    *lines, rest = (rest + new).split(b"\n")
                    for line in lines:
                        self._show(line.decode(errors="replace"))
                    if code is not None and not new:
                        break
                    if self.progress:
                        self.progress.show()
                    self._insist(child)
                    if code is None:
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            child.wait(POLL)
            if rest:
                self._show(rest.decode(errors="replace"))
        if self.progress:
            self.progress.clear()
        if code and not (self.has_error or self.is_locked or self.stopped):
            # None of our jobs reported an error, so show all of Snakemake's output.
            how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
            print(*self.others, f"error: Snakemake {how}", sep="\n", file=sys.stderr)
        return code if code >= 0 else DIED - code

    def send(self, child: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to the child's process group."""
        self.signalled = time.monotonic()
        self.is_interrupted = self.is_interrupted or number == signal.SIGINT
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    def _insist(self, child: subprocess.Popen[bytes]) -> None:
        """After a stop, repeat the signal if something still runs after a while.

        A job that was just starting may have missed it. Also, Snakemake's SIGTERM handler waits for
        a lock that its own thread may hold, and only SIGINT ends that.
        """
        if self.stopped and time.monotonic() - self.signalled > REPEAT:
            self.send(child, signal.SIGTERM if self.is_interrupted else signal.SIGINT)

    @contextmanager
    def _started(self, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """Start the child in its own process group, where Snakemake ignores SIGUSR1.

        SIGUSR1 is for trainings, and would end Snakemake. SIGINT is enabled, since a shell makes
        its background jobs ignore it.
        """
        before = {
            signal.SIGUSR1: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        }
        try:
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        with child:
            yield child

    def _show(self, line: str) -> None:
        line = line.rpartition("\r")[2]
        self.is_locked = self.is_locked or LOCKED in line
        if not OURS.match(line):
            self.others.append(line)
            return
        self.has_error = self.has_error or line.startswith("error: ")
        if self.progress:
            self.progress.clear()
        print(line, file=sys.stderr, flush=True)


@contextmanager
def _forwarding(call: _Call, child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Forward signals to the child's process group.

    Only the first SIGINT is forwarded. At a second one, Snakemake would abandon its jobs and leave
    its lock behind.
    """

    def forward(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and call.is_interrupted:
            print("stopping: saving the training", file=sys.stderr, flush=True)
            return
        if number != signal.SIGUSR1:
            call.stopped = number
        call.send(child, number)

    before = {number: signal.signal(number, forward) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_lock(snakemake: list[str]) -> None:
    """Wait for the Snakemake process that has the directory's lock. Removes a dead one's lock.

    Errors: UserError for a lock whose owner isn't known.
    """
    said: list[str] = []
    while any(HERE.snakemake_locks.glob("*.lock")):
        holders = invocations.find_holders()
        if not holders:
            if not invocations.is_lock_stale():
                raise UserError(
                    f"{HERE.snakemake_locks}: locked by a Snakemake process that was killed or is "
                    "on another machine; if none is running there, run `snakemake --unlock`"
                )
            _unlock(snakemake)
            print("removed the lock of a killed Snakemake process", file=sys.stderr)
            return
        if holders != said:
            said = holders
            print(f"waiting for {'; '.join(holders)}", file=sys.stderr, flush=True)
        time.sleep(LOCK_POLL)


def _find_locks() -> set[tuple[str, int]]:
    """Return Snakemake's lock files with their dates, so that a later lock differs."""
    found = set()
    for path in HERE.snakemake_locks.glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):  # another call has just ended
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def _remove_own_lock(snakemake: list[str], before: set[tuple[str, int]]) -> None:
    """Remove the lock left by our killed child, if it can't belong to another process.

    before: the locks that existed when the child started.
    """
    left = _find_locks()
    if left and not left & before and not invocations.find_holders():
        _unlock(snakemake)


def _unlock(snakemake: list[str]) -> None:
    subprocess.run([*snakemake, "--unlock"], capture_output=True, check=False)
    invocations.forget_dead()
