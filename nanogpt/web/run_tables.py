"""Tables about runs: their settings, and the numbers of their evaluations, side by side."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from nanogpt.report.columns import COLUMNS
from nanogpt.report.compare import settings_that_differ, table
from nanogpt.report.formats import setting_text
from nanogpt.report.run import Run
from nanogpt.web.wording import DASH, number

# Columns of the report's table that the pages show elsewhere.
ELSEWHERE = ("run", "status", "group", "dataset", "seed", "diverged")
MOST_ROWS = 100  # of a table of a curve


Key = TypeVar("Key")


@dataclass(frozen=True)
class Table:
    """Headings, and rows whose first cell names the row."""

    headings: list[str]
    rows: list[list[str]]


def numbers_table(runs: Sequence[Run]) -> Table:
    """Return a row for each number of the report that's known of a run, and a column per run."""
    frame = table(runs)
    rows = []
    for column in COLUMNS:
        values = frame[column.name]
        if column.form is None or column.name in ELSEWHERE or not values.notna().any():
            continue
        form = column.form
        rows.append([column.heading, *(form(v) if pd.notna(v) else DASH for v in values)])
    return Table(["", *(run.name for run in runs)], rows)


def differences_table(runs: Sequence[Run]) -> tuple[Table, dict[str, str]]:
    """Return the settings that differ, a column per run, and those that all runs share.

    Different datasets come first, since losses on them can't be compared.
    """
    differ, shared = settings_that_differ(runs)
    rows = [
        [
            name,
            *(setting_text(run.settings[name]) if name in run.settings else DASH for run in runs),
        ]
        for name in differ
    ]
    datasets = [run.dataset or DASH for run in runs]
    if len(set(datasets)) > 1:
        rows.insert(0, ["dataset", *datasets])
    table = Table(["setting", *(run.name for run in runs)], rows)
    return table, {name: setting_text(value) for name, value in sorted(shared.items())}


def curve_table(run: Run) -> Table:
    """Return the losses of a training's evaluations, a row each, thinned out."""
    if not len(run.metrics):
        return Table([], [])
    evaluated = run.metrics[run.metrics["val_loss"].notna() | run.metrics["train_loss"].notna()]
    step = math.ceil(len(evaluated) / MOST_ROWS) or 1
    rows = [
        [f"{step:,}", f"{tokens:,}", *map(_loss, losses)]
        for step, tokens, *losses in evaluated.iloc[::step][
            ["step", "tokens", "train_loss", "val_loss"]
        ].itertuples(index=False)
    ]
    return Table(["step", "tokens", "training loss", "validation loss"], rows)


def positions_table(runs: Sequence[Run]) -> Table:
    """Return the loss by position in the window, a column per run."""
    buckets = {run.name: _positions(run) for run in runs}
    places = _in_order(buckets.values())
    rows = [
        [
            f"{first}" if first == last else f"{first} to {last}",
            *(_loss(buckets[run.name].get((first, last), math.nan)) for run in runs),
        ]
        for first, last in sorted(places)
    ]
    return Table(["position", *(run.name for run in runs)], rows)


def _positions(run: Run) -> dict[tuple[int, int], float]:
    found = run.evaluation.by_position if run.evaluation else None
    return {(bucket.first, bucket.last): bucket.loss for bucket in found or ()}


def kinds_table(runs: Sequence[Run]) -> Table:
    """Return the loss by kind of token, a column per run."""
    losses = {
        run.name: {kind: found.loss for kind, found in (run.evaluation.by_kind or {}).items()}
        if run.evaluation
        else {}
        for run in runs
    }
    rows = [
        [kind.replace("_", " "), *(_loss(losses[run.name].get(kind, math.nan)) for run in runs)]
        for kind in _in_order(losses.values())
    ]
    return Table(["kind of token", *(run.name for run in runs)], rows)


def _in_order(found: Iterable[Iterable[Key]]) -> list[Key]:
    return list(dict.fromkeys(key for keys in found for key in keys))


def _loss(value: float) -> str:
    return number(value if math.isfinite(value) else None)
