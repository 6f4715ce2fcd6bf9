"""What a report shows, as data: findings, tables, samples, settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nanogpt.errors import plural
from nanogpt.report.columns import COLUMNS
from nanogpt.report.compare import environments, seeds_table, settings_that_differ
from nanogpt.report.looks import Look
from nanogpt.report.run import Run

MOST_SAMPLES = 24  # on the page

SMALLEST_FILTERED = 15  # runs from which on the page has a field to choose among them

DASH = "\N{EN DASH}"


def gather(runs: Sequence[Run], rows: pd.DataFrame, look: Mapping[str, Look]) -> dict[str, Any]:
    differ, shared = settings_that_differ(runs)
    shown = _samples_to_show(runs)
    return {
        "title": f"{plural(len(runs), 'run')} on {_listed(dict.fromkeys(rows['dataset']))}",
        "findings": _findings(runs, rows),
        "runs": _table(rows, look),
        "seeds": _seeds_table(seeds_table(runs)),
        "kinds": _kinds_table(runs),
        "copying": _copying_table(runs),
        "samples": [
            {"run": run.name, "look": look[run.group], "text": run.sample} for run in shown
        ],
        "n_left_out": sum(run.sample is not None for run in runs) - len(shown),
        "key": [(look[group], group) for group in look if look[group].named],
        "settings": {
            "headings": ["run", *differ],
            "rows": [[run.name, *(_value(run, name) for name in differ)] for run in runs],
        },
        "shared": {name: _written(value) for name, value in shared.items()},
        "environments": [
            ({name: _written(value) for name, value in said.items()}, _few(names))
            for said, names in environments(runs)
        ],
        "notes": _notes(runs),
        "dictionary": [column for column in COLUMNS if column.meaning],
        "filtered": len(runs) >= SMALLEST_FILTERED,
    }


def _samples_to_show(runs: Sequence[Run]) -> list[Run]:
    """The first run of each group and settings of sampling."""
    firsts: dict[str, Run] = {}
    for run in runs:
        if run.sample is not None:
            settings = {n: v for n, v in run.settings.items() if n.startswith("sample.")}
            firsts.setdefault(f"{run.group} {settings}", run)
    return list(firsts.values())[:MOST_SAMPLES]


def _notes(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """What hinders runs: names, status and reason; runs with the same reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if run.note:
            found.setdefault((run.status, run.note), []).append(run.name)
    return [(_few(names), status, note) for (status, note), names in found.items()]


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    names = [name for name in names if name]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or DASH


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + rest


def _first_of_groups(runs: Sequence[Run]) -> list[Run]:
    firsts: dict[str, Run] = {}
    for run in runs:
        if run.evaluation:
            firsts.setdefault(run.group, run)
    return list(firsts.values())


def _findings(runs: Sequence[Run], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The best run of each dataset, and what its loss is held against, in bits per byte."""
    found = []
    evaluated = rows[rows["val_bits_per_byte"].notna() & (rows["status"] == "finished")]
    for dataset, members in evaluated.groupby("dataset", sort=False):
        best = members.sort_values("val_bits_per_byte", kind="stable").iloc[0]
        run = next(run for run in runs if run.name == best["run"])
        found.append(
            {
                "dataset": dataset,
                "run": run.name,
                "bits_per_byte": f"{best['val_bits_per_byte']:.3f}",
                "ngram": f"{best['ngram_bits_per_byte']:.3f}" if run.ngram else None,
                "order": run.ngram_best.get("order"),
                "source": f"{run.evaluation['source']['bits_per_byte']:.3f}"
                if run.evaluation.get("source")
                else None,
            }
        )
    return found


def _table(rows: pd.DataFrame, look: Mapping[str, Look]) -> dict[str, Any]:
    """The columns that anything is known of, each cell with what it is sorted by."""
    columns = [
        column
        for column in COLUMNS
        if column.form and (column.name in ("run", "dataset") or rows[column.name].notna().any())
    ]
    lines = []
    for _, row in rows.iterrows():
        cells = []
        for column in columns:
            value = row[column.name]
            known = not (pd.isna(value) or value == "")
            assert column.form
            cells.append(
                {"text": column.form(value) if known else DASH, "value": value if known else ""}
            )
        lines.append({"cells": cells, "look": look[row["group"]], "status": row["status"]})
    return {"columns": columns, "lines": lines}


def _seeds_table(seeds: pd.DataFrame) -> dict[str, Any]:
    lines = [
        [
            row["group"],
            row["dataset"],
            f"{row['seeds']} of {row['tried']}"
            if row["seeds"] < row["tried"]
            else str(row["seeds"]),
            f"{row[loss]:.4f} ± {row[f'{loss}_half_width']:.4f}",
            f"{row[bits]:.4f} ± {row[f'{bits}_half_width']:.4f}",
            f"{row['training_seconds']:,.0f} ± {row['training_seconds_half_width']:,.0f}",
        ]
        for _, row in seeds.iterrows()
        for loss, bits in [("val_loss_nats_per_token", "val_bits_per_byte")]
    ]
    headings = ["group", "dataset", "seeds", "val loss (nats/token)", "bits per byte"]
    return {"headings": [*headings, "training time (s)"], "rows": lines}


def _kinds_table(runs: Sequence[Run]) -> dict[str, Any]:
    """Loss by kind of token, and how much of all loss it is; the first run of each group."""
    having = [run for run in _first_of_groups(runs) if run.evaluation.get("by_kind")]
    kinds = list(dict.fromkeys(kind for run in having for kind in run.evaluation["by_kind"]))

    def cell(run: Run, kind: str) -> str:
        said = run.evaluation["by_kind"].get(kind)
        if said is None or said["loss"] is None or said["share_of_loss"] is None:
            return DASH
        return f"{said['loss']:.3f} ({100 * said['share_of_loss']:.0f} %)"

    rows = [[run.name, *(cell(run, kind) for kind in kinds)] for run in having]
    return {"headings": ["run", *(kind.replace("_", " ") for kind in kinds)], "rows": rows}


def _copying_table(runs: Sequence[Run]) -> dict[str, Any]:
    """How much of a generated text stands in the training split, and of the validation split."""
    lengths = ("8", "16", "32")
    having = [run for run in _first_of_groups(runs) if run.evaluation.get("copying")]

    def percent(share: float | None) -> str:
        return DASH if share is None else f"{100 * share:.1f} %"

    rows = []
    for run in having:
        copying = run.evaluation["copying"]
        cells = [percent(copying[length]) for length in lengths]
        cells += [percent(copying["reference"][length]) for length in lengths]
        rows.append([run.name, *cells])
    headings = [f"{length}-grams" for length in lengths]
    headings += [f"validation text, {length}-grams" for length in lengths]
    return {"headings": ["run", *headings], "rows": rows}


def _value(run: Run, name: str) -> str:
    return _written(run.settings[name]) if name in run.settings else DASH


def _written(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)
