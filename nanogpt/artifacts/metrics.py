"""The lines of a metrics.jsonl, as a training wrote them: checked, and nothing else.

Light, since TensorBoard's files need nothing more. Tables of them are left to results.py.
"""

import json
import math
from pathlib import Path
from typing import Any

from nanogpt.errors import UserError

MEASURES = ("loss", "train_loss", "val_loss", "learning_rate", "grad_norm", "tokens_per_second")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last one that was cut off is left out.

    Each has `step` and `tokens` (seen so far), and may have any of MEASURES and `seconds`; null
    stands for what is no number.
    Errors: UserError for a file that is absent, empty or no metrics.
    """
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; train the run first") from None
    lines = []
    for place, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            if place == len(texts):
                break  # cut off while it was written
            line = None
        if not _is_of_metrics(line):
            raise UserError(f"{path}: line {place} is no line of metrics; train the run again")
        lines.append(line)
    if not lines:
        raise UserError(f"{path}: no metrics in it; train the run first")
    return lines


def _is_of_metrics(line: Any) -> bool:
    return (
        isinstance(line, dict)
        and all(type(line.get(name)) is int for name in ("step", "tokens"))
        and all(isinstance(line.get(name), int | float | None) for name in (*MEASURES, "seconds"))
    )


def number(value: float | None) -> float:
    """A number of a JSON file, which has null for what is none."""
    return math.nan if value is None else float(value)
