"""Signals to a training: SIGTERM and SIGINT save and stop it, SIGUSR1 saves and continues.

Batch systems send SIGTERM before a time limit, and terminals send SIGINT for Ctrl-C.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Stops a training immediately. It's no Exception, so that no general handler catches it."""


class Signals:
    """The signals received while `listening`. They wait for a step, but interrupt an evaluation."""

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
        """Raise `Stopped` immediately for stop signals received inside this block."""
        self._may_raise = True
        try:
            if self.stop:
                raise Stopped
            yield
        finally:
            self._may_raise = False


@contextmanager
def listening() -> Iterator[Signals]:
    """Handle signals for a training; restore the previous handlers afterwards."""
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
    """Exit cleanly on a stop signal, with exit code 128 + n and no traceback.

    SIGUSR1, which would end the process by default, is ignored, because there's nothing to save.
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
