"""Show the progress of a training, from the metrics that it writes."""

import contextlib
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from nanogpt.artifacts.progress import last_lines, seconds_left
from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.artifacts.states import METRICS, REQUEST, find_trainings
from nanogpt.project import HERE, Project

LOOK = 1.0  # seconds between reads of the metrics
LINE = 10.0  # seconds between lines, if standard error isn't a terminal
COLUMNS = 80  # of a terminal whose width isn't known


@dataclass
class Progress:
    """Prints the progress of a run's training to standard error.

    On a terminal, it updates a single line. In a file, it adds a line every few seconds. before:
    when each unfinished training had started before this one, in nanoseconds of any clock.
    """

    run: str
    max_iters: int
    project: Project = HERE
    before: dict[Path, int] = field(default_factory=dict, init=False)
    looked: float = 0.0
    shown: str = ""
    printed: float = 0.0

    def __post_init__(self) -> None:
        state = find_trainings(self.project).get(self.run)
        if state:
            with contextlib.suppress(OSError):  # the training just ended
                self.before[state] = _started(state)

    def show(self) -> None:
        """Show new progress, if the last check is long enough ago."""
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
        """Clear the line, to print something else."""
        if self.shown:
            self._write("")

    def _write(self, text: str) -> None:
        if text != self.shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self.shown = text

    def _lines(self) -> list[MetricsLine]:
        """Return the last lines of the metrics, if this training is running now."""
        state = find_trainings(self.project).get(self.run)
        try:
            # The state may be an older one, with other settings.
            if state is None or self.before.get(state) == _started(state):
                return []
            return last_lines(state / METRICS)
        except OSError:  # the training just ended
            return []


def _started(state: Path) -> int:
    """Return when a training was started or resumed."""
    return (state / REQUEST).stat().st_mtime_ns


def describe(run: str, max_iters: int, lines: list[MetricsLine]) -> str:
    """Describe a training's progress in one line, from the last lines of its metrics."""
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


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
