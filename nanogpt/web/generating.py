"""Continuous batching: one thread per model generates the tokens of all its requests together.

    batcher = Batcher(engine)
    batcher.submit([GenerationJob(prompt, receive, fail, loop), ...])
    batcher.cancel(jobs)

The thread joins waiting sequences while the engine has room, makes a step, and hands all its tokens
to the event loop in one call. Jobs receive them there, in the event loop's thread.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nanogpt.errors import plural, user_message
from nanogpt.inference.engine import Engine, GeneratedSequence, Prompt, Step

logger = logging.getLogger(__name__)

# Passes that the event loop may be behind. The thread waits for it then, so that tokens that it
# hasn't sent don't pile up.
MOST_AHEAD = 2
IDLE = 10.0  # seconds without work, after which keys and values give up their memory
LONGEST_WAIT = 60.0  # seconds for an event loop that is behind


class BusyError(Exception):
    """Too many sequences wait already."""


class ClosedError(Exception):
    """The model's thread has ended, so it takes no more requests."""


@dataclass(eq=False)
class GenerationJob:
    """A sequence to generate. `receive` and `fail` are called in the event loop.

    receive: called with each step. fail: called once, if the job can't end. A cancelled job gets
    no more calls.
    """

    prompt: Prompt
    receive: Callable[[Step], None]
    fail: Callable[[Exception], None]
    loop: asyncio.AbstractEventLoop
    is_cancelled: bool = False


@dataclass(frozen=True)
class Load:
    """How many sequences a batcher generates, and how many wait."""

    running: int
    waiting: int


@dataclass(frozen=True)
class _Delivery:
    """Tokens for an event loop. is_counted: whether the thread counts it as one that's ahead."""

    steps: Sequence[tuple[GenerationJob, Step]]
    is_counted: bool


class Batcher:
    """The thread of a model, and the jobs that it works on.

    Errors of a step, such as logits that are NaN, fail the jobs that are in it. Anything else that
    ends the thread fails all jobs, and later ones are refused.
    """

    def __init__(
        self,
        engine: Engine,
        most_waiting: int,
        name: str = "model",
        count: Callable[[int], None] = lambda _: None,
    ) -> None:
        """engine: without sequences; it belongs to the thread from now on.

        most_waiting: sequences that wait for room in it. name: of the thread. count: called with
        the number of tokens of each step.
        """
        self._engine = engine
        self._most_jobs = engine.capacity + most_waiting
        self._changed = threading.Condition()
        # The following are shared, and only used while `_changed` is held.
        self._waiting: deque[GenerationJob] = deque()
        self._cancelled: list[GenerationJob] = []
        self._n_jobs = 0  # waiting, or in the engine
        self._is_closed = False
        # Those of the thread alone.
        self._running: dict[GeneratedSequence, GenerationJob] = {}
        self._count = count
        self._ahead = threading.Semaphore(MOST_AHEAD)
        self._thread = threading.Thread(target=self._run, name=f"generate {name}", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more jobs."""
        return self._is_closed

    def load(self) -> Load:
        """Return what it does now."""
        with self._changed:
            waiting = len(self._waiting)
            return Load(self._n_jobs - waiting, waiting)

    def submit(self, jobs: Sequence[GenerationJob]) -> None:
        """Queue jobs: all, or none of them.

        Errors: BusyError if too many wait, ClosedError after the thread's end.
        """
        with self._changed:
            if self._is_closed:
                raise ClosedError
            if self._n_jobs + len(jobs) > self._most_jobs:
                raise BusyError
            self._n_jobs += len(jobs)
            self._waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, jobs: Sequence[GenerationJob]) -> None:
        """Remove jobs, within a step; ended ones are ignored."""
        with self._changed:
            for job in jobs:
                job.is_cancelled = True
            self._cancelled.extend(jobs)
            self._changed.notify()

    def close(self) -> None:
        """End the thread after its current step. Jobs fail."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        reason: Exception = ClosedError("the server stops")
        try:
            while self._admit():
                self._advance()
        except BaseException as error:
            logger.exception("the thread that generates has ended")
            reason = error if isinstance(error, Exception) else RuntimeError(str(error))
        finally:
            with self._changed:
                self._is_closed = True
                left = [*self._running.values(), *self._waiting]
                self._running.clear()
                self._waiting.clear()
                self._n_jobs = 0
            self._fail(left, reason)

    def _admit(self) -> bool:
        """Wait for work; let sequences leave and join. Returns whether to make a step."""
        engine = self._engine
        with self._changed:
            while not (self._is_closed or self._waiting or self._cancelled or self._running):
                if not self._changed.wait(IDLE if engine.reserved else None):
                    engine.free()  # other models may need the memory
            cancelled, self._cancelled = self._cancelled, []
            if cancelled:
                self._waiting = deque(job for job in self._waiting if not job.is_cancelled)
            gone = [s for s, job in self._running.items() if job.is_cancelled] if cancelled else []
        for sequence in gone:
            del self._running[sequence]
            engine.leave(sequence)
        with self._changed:
            # Only now, since a job that neither waits nor runs would miss an error.
            n_room = engine.capacity - len(engine.sequences)
            joining = [self._waiting.popleft() for _ in range(min(n_room, len(self._waiting)))]
            self._n_jobs = len(self._running) + len(joining) + len(self._waiting)
            is_closed = self._is_closed
        self._join(joining)
        return not is_closed

    def _join(self, jobs: Sequence[GenerationJob]) -> None:
        """Add jobs to the engine. If there isn't enough memory for them, they fail."""
        if not jobs:
            return
        left = deque(jobs)
        try:
            n_sequences = len(self._engine.sequences) + len(jobs)
            # A power of two, so that clients who join one by one seldom make it copy everything.
            self._engine.reserve(1 << (n_sequences - 1).bit_length())
            while left:
                self._running[self._engine.join(left[0].prompt)] = left[0]
                left.popleft()
        except Exception as error:
            if user_message(error) is None:
                logger.exception("sequences can't join")
            self._forget(len(left))
            self._fail(left, error)

    def _advance(self) -> None:
        """Make a step and hand its tokens over."""
        try:
            steps = self._engine.step()
        except Exception as error:
            if user_message(error) is None:
                logger.exception("a step has failed")
            jobs = list(self._running.values())
            for sequence in list(self._engine.sequences):
                self._engine.leave(sequence)
            self._running.clear()
            self._forget(len(jobs))
            self._fail(jobs, error)
            return
        self._count(len(steps))
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[GenerationJob, Step]]] = {}
        n_ended = 0
        for step in steps:
            job = self._running[step.sequence]
            by_loop.setdefault(job.loop, []).append((job, step))
            if step.finish:
                del self._running[step.sequence]
                n_ended += 1
        if n_ended:
            self._forget(n_ended)
        for loop, received in by_loop.items():
            is_counted = self._ahead.acquire(timeout=LONGEST_WAIT)
            if not _call(loop, self._deliver, _Delivery(received, is_counted)):
                if is_counted:
                    self._ahead.release()
                self.cancel([job for job, _ in received])

    def _forget(self, n_jobs: int) -> None:
        with self._changed:
            self._n_jobs -= n_jobs

    def _deliver(self, delivery: "_Delivery") -> None:
        """Hand steps to their jobs, in the event loop."""
        if delivery.is_counted:
            self._ahead.release()
        for job, step in delivery.steps:
            if job.is_cancelled:
                continue
            try:
                job.receive(step)
            except Exception as error:
                logger.exception("a job can't take a token")
                self.cancel([job])
                job.fail(error)

    def _fail(self, jobs: Iterable[GenerationJob], error: Exception) -> None:
        for job in jobs:
            if not job.is_cancelled:
                _call(job.loop, job.fail, error)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], argument: object) -> bool:
    """Call a function in an event loop. Returns whether the loop is still open."""
    try:
        loop.call_soon_threadsafe(function, argument)
    except RuntimeError:
        return False
    return True


def explain_failure(error: Exception) -> str:
    """Describe in one line why a job failed."""
    if isinstance(error, ClosedError):
        return f"{error or 'the model was unloaded'}; try again"
    return user_message(error) or "generation failed; the server's log has the reason"


def too_many(load: Load) -> str:
    """Describe in one line why a request can't wait."""
    return f"{plural(load.running + load.waiting, 'completion')} in progress; try again later"
