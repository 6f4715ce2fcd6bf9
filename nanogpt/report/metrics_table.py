"""metrics.jsonl as a table, quickly: a long training logs 100,000 lines."""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from nanogpt.artifacts.records.metrics import MEASURES, MetricsLine, read_metrics

WHOLE = ("step", "tokens")
NUMBERS = (*MEASURES, "seconds")


class Metrics(NamedTuple):
    """The metrics of a run. diverged: whether any loss or gradient was NaN or infinite.

    table: columns step, tokens (seen so far), MEASURES, seconds (of training so far); NaN for
    anything that wasn't measured.
    """

    table: pd.DataFrame
    diverged: bool


def read_table(path: Path) -> Metrics:
    """Read a metrics.jsonl, without an incomplete last line.

    Errors: as of `read_metrics`.
    """
    table = _read_quickly(path)
    if table is not None:
        return Metrics(table, diverged=False)
    lines = read_metrics(path)
    return Metrics(metrics_table(lines), any(line.diverged() for line in lines))


def metrics_table(lines: Sequence[MetricsLine]) -> pd.DataFrame:
    """Return lines as a table, as in Metrics."""
    columns = {name: [getattr(line, name) for line in lines] for name in (*WHOLE, *NUMBERS)}
    return pd.DataFrame(columns).astype(float).astype(dict.fromkeys(WHOLE, int))


def _read_quickly(path: Path) -> pd.DataFrame | None:
    """Read a file of good lines only, 30 times as fast; None if any line needs a closer look."""
    import pyarrow
    from pyarrow import compute, json

    try:
        data = path.read_bytes()
        if b"null" in data:  # a number that wasn't finite
            return None
        found = json.read_json(
            BytesIO(data), json.ReadOptions(use_threads=False), parse_options=_parse_options()
        )
    except (pyarrow.ArrowException, OSError):
        return None
    whole, numbers = found.select(WHOLE).columns, found.select(NUMBERS).columns
    is_good = found.num_rows and all(
        not column.null_count and compute.min(column).as_py() >= 0 for column in whole
    )
    if not is_good or not all(
        compute.all(compute.is_finite(column), min_count=0).as_py() for column in numbers
    ):
        return None
    table: pd.DataFrame = found.select((*WHOLE, *NUMBERS)).to_pandas()
    return table


@cache
def _parse_options() -> Any:
    import pyarrow
    from pyarrow import json

    fields = [(name, pyarrow.int64()) for name in WHOLE]
    fields += [(name, pyarrow.float64()) for name in NUMBERS]
    return json.ParseOptions(pyarrow.schema(fields), unexpected_field_behavior="error")
