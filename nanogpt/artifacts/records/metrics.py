"""metrics.jsonl: a line for each logged or evaluated step of a training."""

import json
import math
from pathlib import Path

from nanogpt.artifacts.records.base import Count, OptionalNumber, Record
from nanogpt.errors import REMAKE, UserError

# The possible measures of a line, in the order of its keys.
MEASURES = ("loss", "learning_rate", "grad_norm", "train_loss", "val_loss", "tokens_per_second")


class MetricsLine(Record):
    """A line of metrics.jsonl. Losses are in nats per token; a missing measure is None.

    step: optimizer steps so far. tokens: training tokens so far. seconds: training time so far.
    """

    step: Count
    tokens: Count
    loss: OptionalNumber = None
    learning_rate: OptionalNumber = None
    grad_norm: OptionalNumber = None
    train_loss: OptionalNumber = None
    val_loss: OptionalNumber = None
    tokens_per_second: OptionalNumber = None
    seconds: OptionalNumber = None

    def diverged(self) -> str | None:
        """The first measure that's NaN or infinite; None if all are finite."""
        for name in ("loss", "grad_norm", "train_loss", "val_loss"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                return name
        return None


def read_metrics(path: Path) -> list[MetricsLine]:
    """Read the lines of a metrics.jsonl, without an incomplete last line.

    Errors: UserError for a missing or empty file, and for an invalid line.
    """
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train the run first") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; train the run first") from None
    lines = []
    for place, text in enumerate(texts, 1):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            if place == len(texts):
                break  # a line that's still being written
            raise UserError(f"{path}: line {place}: not JSON; {REMAKE}") from None
        lines.append(MetricsLine.parse(content, f"{path}: line {place}", REMAKE))
    if not lines:
        raise UserError(f"{path}: no metrics in it; train the run first")
    return lines
