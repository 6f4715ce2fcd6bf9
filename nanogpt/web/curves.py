"""The curves of a run: the lines of its metrics.jsonl, or only those that are new."""

import json
import math
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel

from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.errors import UserError

AT_ONCE = 2 << 20  # the most bytes to read for one answer, about 10,000 lines
BEFORE = 256  # bytes before a place, by which we recognize it
PLACE = re.compile(r"([0-9]{1,18})-([0-9a-f]{8})")

# What's shown over what.
COLUMNS = (
    "step",
    "tokens",
    "seconds",
    "loss",
    "train_loss",
    "val_loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
)


class Curves(BaseModel):
    """Lines of metrics by column; null where there's no finite value.

    since: where these lines begin; "" for the start, also if the file isn't the one that an earlier
    answer was about. next: the `since` of the next request. has_more: whether there are more
    lines already. n_damaged: lines left out because they can't be read.
    """

    since: str
    next: str
    has_more: bool
    n_damaged: int
    columns: dict[str, list[float | None]]


def read_curves(path: Path, since: str = "") -> Curves:
    """Read the complete lines after a place, at most a few megabytes.

    since: the `next` of the previous answer, or "" for the start. A training that's resumed writes
    its metrics again; then it's the start too.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, str(path), since)
    except OSError:  # not written yet, or being moved to the results
        return no_curves()


def no_curves() -> Curves:
    """Return the curves of a run without metrics."""
    return Curves(since="", next="", has_more=False, n_damaged=0, columns=_empty())


def _read(file: BinaryIO, name: str, since: str) -> Curves:
    offset = _offset(file, since)
    file.seek(offset)
    data = file.read(AT_ONCE)
    has_more = len(data) == AT_ONCE
    end = data.rfind(b"\n") + 1
    if has_more and not end:  # a line of megabytes: skip this part of it
        end = len(data)
    columns, n_damaged = _empty(), 0
    for text in data[:end].splitlines():
        try:
            line = MetricsLine.parse(json.loads(text), name, "train again")
        except (ValueError, RecursionError, UserError):
            n_damaged += 1
            continue
        for column, values in columns.items():
            values.append(_finite(getattr(line, column)))
    return Curves(
        since=since if offset else "",
        next=_place(file, offset + end),
        has_more=has_more,
        n_damaged=n_damaged,
        columns=columns,
    )


def _offset(file: BinaryIO, since: str) -> int:
    """Return the offset of a place; 0 if the file isn't the one that the place was in."""
    match = PLACE.fullmatch(since)
    if match is None:
        return 0
    offset = int(match[1])
    return offset if _place(file, offset) == since else 0


def _place(file: BinaryIO, offset: int) -> str:
    """Describe an offset in a file by what's before it."""
    start = max(0, offset - BEFORE)
    file.seek(start)
    before = file.read(offset - start)
    if len(before) < offset - start:
        return ""
    return f"{offset}-{zlib.crc32(before):08x}"


def _empty() -> dict[str, list[float | None]]:
    return {column: [] for column in COLUMNS}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
