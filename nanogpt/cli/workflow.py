"""The workflow as a child process: signals, what is shown of what it says, locks."""

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
DIED = 128  # an exit code above is that of a signal
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

# What jobs say to the user; the rest is Snakemake's own.
OURS = re.compile(r"(?:error|warning): |[a-z][a-z_0-9]* [^ ]+: \S")
LOCKED = "Directory cannot be locked"
QUIET = ("--quiet", "progress", "rules", "reason", "host")
# As Snakemake looks for them.
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")


def make(targets: Sequence[str], cores: str, progress: Progress | None = None) -> int:
    """Make files by the workflow of the working directory; returns Snakemake's exit code.

    That of a call which signal n stopped is 128 + n, as a shell has it; Snakemake's would be 1.
    While another call holds the lock of files that this one needs, it waits for it.

    Errors: UserError where there is no Snakemake or no workflow, and for a lock without an owner.
    """
    snakemake = [*_snakemake(), "--cores", cores]
    while True:
        call = _Call([*snakemake, *QUIET, "--", *targets], progress)
        before = _locks_there()
        code = call.run()
        if code > DIED:
            _remove_own_lock(snakemake, before)
        if code and call.stopped:
            return DIED + call.stopped
        if not call.is_locked:
            return code
        _wait_for_lock(snakemake)


def _snakemake() -> list[str]:
    """The command that starts Snakemake, with the Snakefile where it doesn't find it by itself."""
    if importlib.util.find_spec("snakemake") is None:
        raise UserError("Snakemake isn't installed; run `pip install 'nanogpt[workflow]'`")
    command = [sys.executable, "-m", "snakemake"]
    if any((HERE.root / name).is_file() for name in SNAKEFILES):
        return command
    beside = Path(__file__).resolve().parents[2] / "Snakefile"
    if not beside.is_file():
        raise UserError(
            "no Snakefile here; run this in a checkout of the project, or install it from one by "
            "`pip install --editable`"
        )
    return [*command, "--snakefile", str(beside)]


@dataclass
class _Call:
    """One call of Snakemake. stopped: the signal that the user stopped it by.

    signalled: when its process group got the last one. is_interrupted: whether it got SIGINT.
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
        # A file, not a pipe: if this process is killed, the jobs can go on writing.
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
            # Nothing that this package says: then all that Snakemake said may matter.
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            print(*self.others, f"error: Snakemake ended {how}", sep="\n", file=sys.stderr)
        return code if code >= 0 else DIED - code

    def send(self, child: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to all of the child's process group."""
        self.signalled = time.monotonic()
        self.is_interrupted = self.is_interrupted or number == signal.SIGINT
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    def _insist(self, child: subprocess.Popen[bytes]) -> None:
        """Once stopped, signal again what still runs after a while.

        A job that was just being started got no signal; and Snakemake's handler of SIGTERM waits
        for a lock that its own thread may hold, which only SIGINT ends.
        """
        if self.stopped and time.monotonic() - self.signalled > REPEAT:
            self.send(child, signal.SIGTERM if self.is_interrupted else signal.SIGINT)

    @contextmanager
    def _started(self, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """The child, in a process group of its own, where Snakemake ignores SIGUSR1.

        That is for trainings, which listen to it; Snakemake would end. SIGINT must not be ignored,
        as a shell makes its background jobs do.
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
    """Pass signals on to all of the child's process group.

    Of several SIGINT, only the first: at the second one, Snakemake would leave its jobs alone, and
    its lock behind.
    """

    def forward(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and call.is_interrupted:
            print("stopping: what is trained is being saved", file=sys.stderr, flush=True)
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
    """Wait until the call that holds the directory's lock ends; remove that of a dead one.

    Errors: UserError for a lock whose owner isn't known.
    """
    said: list[str] = []
    while any(HERE.snakemake_locks.glob("*.lock")):
        holders = invocations.find_holders()
        if not holders:
            if not invocations.is_lock_stale():
                raise UserError(
                    f"{HERE.snakemake_locks}: locked by a Snakemake that isn't on this machine or "
                    "was killed; if none works here on another machine, run `snakemake --unlock`"
                )
            _unlock(snakemake)
            print("removed the lock of a Snakemake that was killed", file=sys.stderr)
            return
        if holders != said:
            said = holders
            print(f"waiting for {'; '.join(holders)}", file=sys.stderr, flush=True)
        time.sleep(LOCK_POLL)


def _locks_there() -> set[tuple[str, int]]:
    """The files of Snakemake's locks, each with its date, which tells it from a later one."""
    found = set()
    for path in HERE.snakemake_locks.glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):  # another call has just ended
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def _remove_own_lock(snakemake: list[str], before: set[tuple[str, int]]) -> None:
    """Remove the lock that a child left which a signal ended, if no other call can have made it.

    before: the locks that were there when the child began.
    """
    left = _locks_there()
    if left and not left & before and not invocations.find_holders():
        _unlock(snakemake)


def _unlock(snakemake: list[str]) -> None:
    subprocess.run([*snakemake, "--unlock"], capture_output=True, check=False)
    invocations.forget_dead()
