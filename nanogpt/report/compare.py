"""Compare runs: a row each, means over seeds, settings that differ, machines."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nanogpt.artifacts.metrics import number
from nanogpt.model.sizing import n_parameters
from nanogpt.report.columns import COLUMNS
from nanogpt.report.groups import grouped, one_of_each_seed
from nanogpt.report.intervals import t_975
from nanogpt.report.run import Run


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run, in their order, with COLUMNS; NaN for what is not there."""
    return pd.DataFrame([_row(run) for run in runs], columns=[column.name for column in COLUMNS])


def _row(run: Run) -> dict[str, Any]:
    """A run's row. Speed is the median over its metrics, which a slow first step does not move."""
    last: Any = run.metrics.iloc[-1] if len(run.metrics) else {}
    row = {
        "run": run.name,
        "status": run.status,
        "group": run.group,
        "seed": run.settings.get("train.seed"),
        "dataset": run.dataset,
        "tokens_seen": last.get("tokens"),
        "steps": last.get("step"),
        "training_seconds": last.get("seconds"),
        "diverged": run.status == "diverged",
    }
    if len(run.metrics):
        row["tokens_per_second"] = run.metrics["tokens_per_second"].median()
        row["training_flops"] = run.training_flops
    if run.model and run.vocab_size:
        row["parameters"] = n_parameters(run.model, run.vocab_size)
    if run.evaluation:
        val, train = run.evaluation["val"], run.evaluation["train"]
        low, high = (val.get("interval") or {}).get("loss") or (None, None)
        row |= {
            "parameters": run.evaluation["model"]["n_parameters"],
            "val_loss_nats_per_token": number(val["loss"]),
            "val_loss_low": number(low),
            "val_loss_high": number(high),
            "val_perplexity_per_token": number(val["perplexity"]),
            "val_bits_per_byte": number(val["bits_per_byte"]),
            "val_bits_per_character": number(val.get("bits_per_character")),
            "train_loss_nats_per_token": number(train["loss"]),
            "excess_over_source_percent": number(
                run.evaluation.get("source", {}).get("excess_percent")
            ),
            "calibration_error_percent": 100
            * number(run.evaluation.get("calibration", {}).get("expected_calibration_error")),
            "copied_16grams_percent": 100 * number(run.evaluation.get("copying", {}).get("16")),
        }
    if run.ngram:
        row["ngram_bits_per_byte"] = number(run.ngram_best["bits_per_byte"])
    if run.bench:
        row |= {
            "bench_tokens_per_second": run.bench["tokens_per_second"],
            "mfu_percent": 100 * run.bench["mfu"],
            "sampling_tokens_per_second": run.bench["generation"]["tokens_per_second"],
            "peak_memory_bytes": run.bench["peak_memory_bytes"],
        }
    return row


def seeds_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Mean and half-width of its 95 % interval (Student's t) over the seeds of each group.

    Only groups of two finished runs and more. Columns: group, dataset, seeds, tried (those that
    failed or diverged as well), and of each measure `<measure>` and `<measure>_half_width`.
    """
    measures = ["val_loss_nats_per_token", "val_bits_per_byte", "training_seconds"]
    found = []
    for group, members in grouped(runs).items():
        tried = one_of_each_seed(members)
        finished = table([run for run in tried if run.status == "finished"])
        if len(finished) < 2:
            continue
        row: dict[str, Any] = {"group": group, "dataset": members[0].dataset}
        row |= {"seeds": len(finished), "tried": len(tried)}
        for measure in measures:
            values = finished[measure].to_numpy(dtype=float)
            row[measure] = values.mean()
            error = values.std(ddof=1) / math.sqrt(len(values))
            row[f"{measure}_half_width"] = t_975(len(values) - 1) * error
        found.append(row)
    columns = ["group", "dataset", "seeds", "tried"]
    columns += [name for measure in measures for name in (measure, f"{measure}_half_width")]
    return pd.DataFrame(found, columns=columns)


def settings_that_differ(runs: Sequence[Run]) -> tuple[list[str], dict[str, Any]]:
    """The names of settings in which runs differ, and the values of those which all share."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    shared, differ = {}, []
    for name in names:
        group = name.partition(".")[0]
        # A run that was not evaluated has no settings of an evaluation, which is no difference.
        having = [run for run in runs if any(n.startswith(f"{group}.") for n in run.settings)]
        values = {json.dumps(run.settings.get(name)) for run in having}
        if len(values) > 1:
            differ.append(name)
        else:
            shared[name] = json.loads(values.pop())
    return differ, shared


# What the page says of a machine, by the manifests' names.
ENVIRONMENT = ("nanogpt", "python", "torch", "platform", "cpu", "cpu_capability", "gpu", "threads")


def environments(runs: Sequence[Run]) -> list[tuple[dict[str, Any], list[str]]]:
    """The different environments of trainings, each with the names of its runs."""
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for run in runs:
        said = {name: run.environment[name] for name in ENVIRONMENT if name in run.environment}
        if said:
            found.setdefault(json.dumps(said), (said, []))[1].append(run.name)
    return list(found.values())
