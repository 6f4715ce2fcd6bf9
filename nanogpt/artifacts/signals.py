"""What signals ask of a training: SIGTERM and SIGINT to save and stop, SIGUSR1 to save and go on.

A batch system sends SIGTERM before a time limit, a terminal SIGINT for Ctrl-C.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Raised where a training may be left at once. No Exception: nothing but a stop catches it."""


class Signals:
    """The signals that came while `listening`. A step is finished first, an evaluation is left."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.save = False
        self._may_raise = False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number not in STOPPING:
            self.save = True
            return
        self.stop = self.stop or signal.Signals(number)
        if self._may_raise:
            raise Stopped

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside, a signal to stop raises `Stopped` at once."""
        self._may_raise = True
        try:
            if self.stop:
                raise Stopped
            yield
        finally:
            self._may_raise = False


@contextmanager
def listening() -> Iterator[Signals]:
    """Take signals for a training; afterwards they mean what they meant before."""
    signals = Signals()
    numbers = [*STOPPING, signal.SIGUSR1]
    before = {number: signal.signal(number, signals._receive) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def exiting() -> Iterator[None]:
    """Let a signal to stop end the program in order, with exit code 128 + n and no traceback.

    SIGUSR1, which would end it, is ignored: there is nothing to save.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in STOPPING}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
