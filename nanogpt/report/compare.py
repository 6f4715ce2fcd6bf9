"""Compare runs: one row per run, means over seeds, settings that differ, machines."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from pydantic import JsonValue

from nanogpt.artifacts.records.evaluations import Evaluation
from nanogpt.report.columns import COLUMNS
from nanogpt.report.groups import grouped, one_of_each_seed
from nanogpt.report.intervals import t_975
from nanogpt.report.run import Run

# The columns that are averaged over seeds.
MEASURES = ("val_loss_nats_per_token", "val_bits_per_byte", "training_seconds")

# The fields of an environment to compare.
ENVIRONMENT = ("nanogpt", "python", "torch", "platform", "cpu", "cpu_capability", "gpu", "threads")


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run, in order, with COLUMNS; NaN for unknown values."""
    return pd.DataFrame([_row(run) for run in runs], columns=[column.name for column in COLUMNS])


def _row(run: Run) -> dict[str, Any]:
    """Return a run's row. Its speed is a median, so a slow first step doesn't distort it."""
    row = {
        "run": run.name,
        "status": run.status,
        "group": run.group,
        "seed": run.settings.get("train.seed"),
        "dataset": run.dataset,
        "diverged": run.status == "diverged",
    }
    if len(run.metrics):
        last = run.metrics.iloc[-1]
        row |= {
            "tokens_seen": last["tokens"],
            "steps": last["step"],
            "training_seconds": last["seconds"],
            "tokens_per_second": run.metrics["tokens_per_second"].median(),
            "training_flops": run.training_flops,
        }
    if run.n_parameters is not None:
        row["parameters"] = run.n_parameters
    if run.evaluation:
        row |= _evaluation_cells(run.evaluation)
    if run.ngram:
        row["ngram_bits_per_byte"] = run.ngram.best.bits_per_byte
    if run.bench:
        row |= {
            "bench_tokens_per_second": run.bench.tokens_per_second,
            "mfu_percent": 100 * run.bench.mfu,
            "sampling_tokens_per_second": run.bench.generation.tokens_per_second,
            "peak_memory_bytes": run.bench.peak_memory_bytes,
        }
    return row


def _evaluation_cells(evaluation: Evaluation) -> dict[str, float | None]:
    val = evaluation.val
    cells = {
        "val_loss_nats_per_token": val.loss,
        "val_perplexity_per_token": val.perplexity,
        "val_bits_per_byte": val.bits_per_byte,
        "val_bits_per_character": val.bits_per_character,
        "train_loss_nats_per_token": evaluation.train.loss,
    }
    if val.interval:
        cells["val_loss_low"], cells["val_loss_high"] = val.interval.loss
    if evaluation.source:
        cells["excess_over_source_percent"] = evaluation.source.excess_percent
    if evaluation.mixture:
        mixed = evaluation.mixture
        cells["mixture_loss_nats_per_token"] = mixed.across_windows.loss
        cells["mixture_within_windows_loss_nats_per_token"] = mixed.within_windows.loss
        cells["mixture_bits_per_byte"] = mixed.across_windows.bits_per_byte
    if evaluation.calibration:
        error = evaluation.calibration.expected_calibration_error
        cells["calibration_error_percent"] = 100 * error
    if evaluation.copying:
        cells["copied_16grams_percent"] = 100 * evaluation.copying.of_16
    return cells


def seeds_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return each group's mean over seeds and the half-width of its 95 % interval (Student's t).

    Leaves out groups with fewer than two finished runs. Columns: group, dataset, seeds, tried
    (including seeds that failed or diverged), and `<measure>` and `<measure>_half_width` for each
    of MEASURES.
    """
    rows = []
    for group, members in grouped(runs).items():
        tried = one_of_each_seed(members)
        finished = table([run for run in tried if run.status == "finished"])
        if len(finished) < 2:
            continue
        row: dict[str, Any] = {"group": group, "dataset": members[0].dataset}
        row |= {"seeds": len(finished), "tried": len(tried)}
        for measure in MEASURES:
            values = finished[measure].to_numpy(dtype=float)
            row[measure] = values.mean()
            error = values.std(ddof=1) / math.sqrt(len(values))
            row[f"{measure}_half_width"] = t_975(len(values) - 1) * error
        rows.append(row)
    columns = ["group", "dataset", "seeds", "tried"]
    columns += [name for measure in MEASURES for name in (measure, f"{measure}_half_width")]
    return pd.DataFrame(rows, columns=columns)


def settings_that_differ(runs: Sequence[Run]) -> tuple[list[str], dict[str, JsonValue]]:
    """Return the names of settings that differ between runs, and the values that all share."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    shared, differ = {}, []
    for name in names:
        # A run evaluated without n-grams has no n-gram settings, which counts as a difference.
        group = name.partition(".")[0].replace("ngram", "eval")
        # A run that wasn't evaluated has no evaluation settings, which doesn't.
        having = [run for run in runs if any(n.startswith(f"{group}.") for n in run.settings)]
        values = {json.dumps(run.settings.get(name)) for run in having}
        if len(values) > 1:
            differ.append(name)
        else:
            shared[name] = json.loads(values.pop())
    return differ, shared


def environments(runs: Sequence[Run]) -> list[tuple[dict[str, str | int | None], list[str]]]:
    """Return the distinct environments that runs were trained in, each with its runs' names."""
    found: dict[str, tuple[dict[str, str | int | None], list[str]]] = {}
    for run in runs:
        if run.environment:
            recorded = run.environment.model_fields_set
            values = {
                name: getattr(run.environment, name) for name in ENVIRONMENT if name in recorded
            }
            found.setdefault(json.dumps(values), (values, []))[1].append(run.name)
    return list(found.values())
