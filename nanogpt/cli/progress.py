"""How far a training is, from the metrics that it writes as it goes."""

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.artifacts.states import METRICS, REQUEST, find_trainings
from nanogpt.errors import UserError
from nanogpt.project import HERE, Project

LOOK = 1.0  # seconds between two looks at the metrics
LINE = 10.0  # seconds between two lines in a file
COLUMNS = 80  # of a terminal that doesn't know
TAIL = 16_384  # bytes at the end of metrics.jsonl that are read: the last hundred lines or so


@dataclass
class Progress:
    """The progress of one run's training, on standard error.

    A terminal shows one line that changes; a file gets a line now and then. before: when each
    training that is unfinished had begun, by the clock of whatever machine.
    """

    run: str
    max_iters: int
    project: Project = HERE
    before: dict[Path, int] = field(default_factory=dict)
    looked: float = 0.0
    shown: str = ""
    printed: float = 0.0

    def __post_init__(self) -> None:
        state = find_trainings(self.project).get(self.run)
        with contextlib.suppress(OSError):  # it has just ended
            self.before |= {state: _begun(state)} if state else {}

    def show(self) -> None:
        """Show what is new, if it's time to look."""
        if time.monotonic() - self.looked < LOOK:
            return
        self.looked = time.monotonic()
        lines = self._lines()
        if not lines:
            return
        text = describe(self.run, self.max_iters, lines)
        if sys.stderr.isatty():
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or COLUMNS
            self._write(text[: columns - 1])
        elif time.monotonic() - self.printed >= LINE:
            self.printed = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for another line."""
        if self.shown:
            self._write("")

    def _write(self, text: str) -> None:
        if text != self.shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self.shown = text

    def _lines(self) -> list[MetricsLine]:
        """The last lines of the metrics, if this training is the one that goes on now."""
        state = find_trainings(self.project).get(self.run)
        try:
            # An older state of the run may wait for its settings to come back.
            if state is None or self.before.get(state) == _begun(state):
                return []
            return last_lines(state / METRICS)
        except OSError:  # it ended just now
            return []


def _begun(state: Path) -> int:
    """When a training was begun or resumed."""
    return (state / REQUEST).stat().st_mtime_ns


def last_lines(path: Path) -> list[MetricsLine]:
    """The last lines of a metrics.jsonl, without one that is cut off."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        texts = file.read().decode("utf-8", "replace").split("\n")
    found = []
    for text in texts[:-1] if size <= TAIL else texts[1:-1]:
        try:
            found.append(MetricsLine.parse(json.loads(text), str(path), "train again"))
        except (ValueError, UserError):
            continue
    return found


def describe(run: str, max_iters: int, lines: list[MetricsLine]) -> str:
    """A line on the progress of a training, from the last lines of its metrics."""
    parts = [f"step {lines[-1].step:,} of {max_iters:,}"]
    for name, measure in (("loss", "loss"), ("validation", "val_loss")):
        known = [(line.step, getattr(line, measure)) for line in lines]
        step, value = next((one for one in reversed(known) if one[1] is not None), (0, None))
        if value is not None:
            parts.append(f"{name} {value:.4f}")
        if value is not None and measure == "val_loss" and step != lines[-1].step:
            parts[-1] += f" at step {step:,}"
    left = seconds_left(max_iters, lines)
    if left is not None and lines[-1].step < max_iters:
        parts.append(f"{_duration(left)} left")
    return f"train {run}: {', '.join(parts)}"


def seconds_left(max_iters: int, lines: list[MetricsLine]) -> float | None:
    """Seconds until the last step, at the pace of these lines; None before there is one."""
    timed = [(line.step, line.seconds) for line in lines if line.seconds is not None]
    if len(timed) < 2:
        return None
    (first, begun), (last, now) = timed[0], timed[-1]
    steps, seconds = last - first, now - begun
    return (max_iters - last) * seconds / steps if steps > 0 and seconds > 0 else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
