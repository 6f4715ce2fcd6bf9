"""Runs side by side: a row each, means over seeds, power laws over size, settings that differ.

What a run is, and how it is read, results.py says; how it is shown, plots.py and report.py.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from nanogpt.artifacts.metrics import number
from nanogpt.model.sizing import n_parameters
from nanogpt.report.runs import Run, same_but

# What a model's size is, as a sweep over sizes changes it.
SIZE_SETTINGS = {"model.n_layer", "model.n_head", "model.n_embd"}

# Student's t, 97.5 %, for 1 to 30 degrees of freedom, and the normal distribution's.
_T = """12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228 2.201 2.179 2.160 2.145 2.131
    2.120 2.110 2.101 2.093 2.086 2.080 2.074 2.069 2.064 2.060 2.056 2.052 2.048 2.045 2.042"""
T_975 = [float(value) for value in _T.split()]
NORMAL_975 = 1.95996


# --- Tables ---------------------------------------------------------------------------------

_si = EngFormatter(sep="\N{NO-BREAK SPACE}")


def three_digits(value: float) -> str:
    """`1.23 M`, with a prefix of the SI."""
    return _si(float(f"{value:.3g}"))


@dataclass(frozen=True)
class Column:
    """A column of runs.csv: what it is, and how the page shows it, if it does."""

    name: str
    heading: str
    unit: str
    meaning: str
    form: Callable[[Any], str] | None = None


_4 = "{:.4f}".format
_1 = "{:.1f}".format
_whole = "{:,.0f}".format

COLUMNS = (
    Column("run", "run", "", "name of the run", str),
    Column("status", "status", "", "finished, diverged, or what hinders it"),
    Column("group", "group", "", "what runs are called together that differ in their seed only"),
    Column("seed", "seed", "", "train.seed"),
    Column("dataset", "dataset", "", "name of the dataset", str),
    Column("val_bits_per_byte", "bits per byte", "bits per byte",
           "of the validation split; compares across tokenizers", _4),
    Column("excess_over_source_percent", "over entropy (%)", "%",
           "bits per byte over those of a built-in corpus' source", _1),
    Column("ngram_bits_per_byte", "n-grams (bits per byte)", "bits per byte",
           "of the best Kneser-Ney model of orders 1 to 5 on the same split", _4),
    Column("val_loss_nats_per_token", "val loss (nats/token)", "nats per token",
           "of the whole validation split", _4),
    Column("val_loss_low", "", "nats per token", "lower end of its bootstrap interval, 95 %"),
    Column("val_loss_high", "", "nats per token", "upper end"),
    Column("train_loss_nats_per_token", "train loss (nats/token)", "nats per token",
           "of as many windows of the training split", _4),
    Column("val_perplexity_per_token", "perplexity", "1", "e to the validation loss, per token",
           "{:.2f}".format),
    Column("val_bits_per_character", "", "bits per character", "of the validation split"),
    Column("calibration_error_percent", "calibration error (%)", "%",
           "expected calibration error of the likeliest token", _1),
    Column("copied_16grams_percent", "16-grams copied (%)", "%",
           "of a generated text, that stand in the training split", _1),
    Column("parameters", "parameters", "1", "numbers learned, embeddings included", three_digits),
    Column("tokens_seen", "tokens seen", "tokens", "steps times tokens of a step", three_digits),
    Column("steps", "steps", "1", "optimizer steps", _whole),
    Column("training_flops", "training (FLOPs)", "FLOPs",
           "tokens seen times FLOPs per token of docs/FORMULAS.md", three_digits),
    Column("training_seconds", "training time (s)", "s", "evaluations in it included", _whole),
    Column("tokens_per_second", "speed (tokens/s)", "tokens per second",
           "in training; median over the lines of metrics.jsonl", _whole),
    Column("bench_tokens_per_second", "", "tokens per second",
           "in training, as measured by bench alone on the machine"),
    Column("mfu_percent", "MFU (%)", "%",
           "share of the machine's measured rate of matrix products", _1),
    Column("sampling_tokens_per_second", "sampling (tokens/s)", "tokens per second",
           "one stream, as measured by bench", _whole),
    Column("peak_memory_bytes", "", "bytes", "of the process that bench was"),
    Column("diverged", "", "", "whether a loss was not a number"),
)  # fmt: skip


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


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each group, in their order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return groups


def one_of_each_seed(group: Sequence[Run]) -> list[Run]:
    """The runs of a group without those that differ in evaluation or sampling alone."""
    seeds: dict[Any, Run] = {}
    for run in sorted(group, key=lambda run: run.status != "finished"):
        seeds.setdefault(run.settings.get("train.seed", run.name), run)
    chosen = {run.name for run in seeds.values()}
    return [run for run in group if run.name in chosen]


def t_975(degrees: int) -> float:
    """Student's t distribution, 97.5 %; above the table to within 0.0001."""
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    return NORMAL_975 + 2.3722 / degrees + 2.8225 / degrees**2


# --- Power laws -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * x^exponent. half_width: of the exponent's 95 % interval, if of any use."""

    coefficient: float
    exponent: float
    half_width: float | None

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = self.coefficient * x**self.exponent
        return result


def fit_power_law(x: NDArray[np.float64], y: NDArray[np.float64]) -> PowerLaw | None:
    """Least squares in logarithms, of the mean of each x, from three of them up; None for fewer.

    As Kaplan et al. 2020 (arXiv:2001.08361) draw their laws. The interval is that of the
    regression, with as many degrees of freedom as there are x less two: several seeds of a size
    tell nothing of whether the law holds. Three sizes leave one, and no interval worth telling.
    """
    good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    sizes, place = np.unique(x[good], return_inverse=True)
    if len(sizes) < 3:
        return None
    log_x = np.log(sizes)
    log_y = np.bincount(place, np.log(y[good])) / np.bincount(place)
    exponent, intercept = np.polyfit(log_x, log_y, 1)
    rest = log_y - (intercept + exponent * log_x)
    degrees = len(sizes) - 2
    variance = (rest**2).sum() / degrees / ((log_x - log_x.mean()) ** 2).sum()
    half_width = t_975(degrees) * math.sqrt(variance) if degrees > 1 else None
    return PowerLaw(math.exp(intercept), float(exponent), half_width)


def size_families(runs: Sequence[Run]) -> list[list[Run]]:
    """Finished runs that differ in size (SIZE_SETTINGS) and seed only, of two sizes and more."""
    families: dict[str, list[Run]] = {}
    for run in runs:
        if run.status == "finished" and run.model:
            families.setdefault(same_but(run, SIZE_SETTINGS | {"train.seed"}), []).append(run)
    return [
        family
        for family in families.values()
        if len({run.evaluation["model"]["n_parameters"] for run in family}) > 1
    ]


# --- Settings and machines ------------------------------------------------------------------


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
