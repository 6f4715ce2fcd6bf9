"""How far a training is, from the last lines of its metrics."""

import json
import os
from pathlib import Path

from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.errors import UserError

TAIL = 16_384  # bytes to read from the end of metrics.jsonl, about a hundred lines


def last_lines(path: Path) -> list[MetricsLine]:
    """Return the last complete lines of a metrics.jsonl."""
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


def seconds_left(max_iters: int, lines: list[MetricsLine]) -> float | None:
    """Estimate the seconds until the last step from these lines; None if there are too few."""
    timed = [(line.step, line.seconds) for line in lines if line.seconds is not None]
    if len(timed) < 2:
        return None
    (first, begun), (last, now) = timed[0], timed[-1]
    steps, seconds = last - first, now - begun
    return (max_iters - last) * seconds / steps if steps > 0 and seconds > 0 else None
