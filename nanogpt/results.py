"""What runs left on the disk, put side by side: a row a run, groups of seeds, power laws.

Reads the metrics, evaluations, benchmarks, samples and manifests in results/<run>/, and the states
of unfinished trainings. Measures nothing itself. How it is shown is left to plots.py and report.py.
"""

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from nanogpt import lock
from nanogpt.config import RESERVED_RUN_NAMES, ModelSettings, UserError
from nanogpt.files import read_json
from nanogpt.metrics import MEASURES, number, read_lines
from nanogpt.sizing import flops_per_token, n_parameters
from nanogpt.state import find_trainings

SAMPLE_CHARACTERS = 600
SAMPLE_HEADER = 4000  # characters that the settings above the samples may take

# What a model's size is, as a sweep over sizes changes it; learning rates often go with it.
SIZE_SETTINGS = {
    "model.n_layer",
    "model.n_head",
    "model.n_embd",
    "train.learning_rate",
    "train.min_lr",
}

# Of a run that is not finished, what manifests would say otherwise.
UNFINISHED = ("training", "stopped", "failed", "damaged", "not evaluated")

# Student's t, 97.5 %, for 1 to 30 degrees of freedom; above, the normal distribution's.
_T = """12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228 2.201 2.179 2.160 2.145 2.131
    2.120 2.110 2.101 2.093 2.086 2.080 2.074 2.069 2.064 2.060 2.056 2.052 2.048 2.045 2.042"""
T_975 = [float(value) for value in _T.split()]
NORMAL_975 = 1.960


@dataclass(frozen=True)
class Run:
    """What is known of a run; what it has not got yet is None or empty."""

    name: str
    dataset: str = ""
    status: str = "finished"  # or diverged, or one of UNFINISHED
    note: str = ""  # why it is not finished
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    settings: Mapping[str, Any] = field(default_factory=dict)  # `group.name`: value
    environment: Mapping[str, Any] = field(default_factory=dict)  # of its training
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    ngram: Mapping[str, Any] = field(default_factory=dict)
    bench: Mapping[str, Any] = field(default_factory=dict)
    vocab_size: int | None = None
    sample: str | None = None
    group: str = ""  # the name that runs share which differ in their seed only

    @cached_property
    def model(self) -> ModelSettings | None:
        """Its architecture, if a manifest or state tells it."""
        told = {
            name.removeprefix("model."): value
            for name, value in self.settings.items()
            if name.startswith("model.")
        }
        return ModelSettings(**told) if told else None

    @property
    def flops_per_token(self) -> float:
        """FLOPs of a token in training; NaN if the model is not known."""
        if self.model is None or self.vocab_size is None:
            return math.nan
        return float(flops_per_token(self.model, self.vocab_size))

    @property
    def training_flops(self) -> float:
        """FLOPs of all its training so far."""
        tokens = self.metrics["tokens"].iloc[-1] if len(self.metrics) else math.nan
        return float(tokens) * self.flops_per_token

    @property
    def source_loss(self) -> float:
        """The entropy of a built-in corpus in nats per token of the validation split, or NaN."""
        source, val = self.evaluation.get("source"), self.evaluation.get("val")
        if not source or not val:
            return math.nan
        nats_per_byte: float = source["bits_per_byte"] * math.log(2)
        return nats_per_byte * float(val["n_bytes"] / val["n_tokens"])

    @property
    def ngram_best(self) -> Mapping[str, Any]:
        """The n-gram model of its dataset with the lowest loss."""
        orders = self.ngram.get("orders", [])
        return min(orders, key=lambda order: order["loss"]) if orders else {}


def read_runs(directories: Sequence[Path]) -> list[Run]:
    """Finished runs by their directories, in this order.

    Errors: UserError for a file of a run that is absent or damaged.
    """
    return _put_together([_read_finished(directory) for directory in directories])


def find_runs(results: Path) -> list[Run]:
    """All runs that lie there, finished or not, and the trainings that go on, by name.

    A run whose files cannot be read has the status `damaged` and says why.
    """
    states = find_trainings()
    directories = {
        path.name: path
        for path in sorted(results.glob("*"))
        if path.is_dir() and not RESERVED_RUN_NAMES.fullmatch(path.name)
    }
    runs = []
    for name in sorted({*directories, *states}, key=_by_number):
        directory = directories.get(name, results / name)
        try:
            run = _read_found(directory, states.get(name))
        except UserError as error:
            run = Run(name, status="damaged", note=str(error))
        if run:
            runs.append(run)
    return _put_together(runs)


def _by_number(name: str) -> list[Any]:
    """A key that puts run-10 after run-9."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _read_finished(directory: Path) -> Run:
    metrics = directory / "metrics.jsonl"
    lines = read_lines(metrics)
    evaluation = _read_evaluation(directory / "eval.json")
    losses = [evaluation["val"]["loss"], evaluation["train"]["loss"]]
    # The weights that were kept may be older than the divergence, and eval.json sound. In metrics
    # a null is told from an absent key only before they become a table.
    for line in lines:
        losses += [line.get(key, 0) for key in ("loss", "train_loss", "val_loss")]
    diverged = not np.isfinite([number(loss) for loss in losses]).all()
    trained = _read_if_there(directory / "train.manifest.json")
    settings = _flat(trained.get("parameters", {}))
    for stage in ("eval", "sample"):
        parameters = _read_if_there(directory / f"{stage}.manifest.json").get("parameters", {})
        settings |= _flat({stage: parameters.get(stage, {})})
    dataset = evaluation["dataset"]
    return Run(
        directory.name,
        dataset,
        "diverged" if diverged else "finished",
        metrics=_frame(lines),
        settings=settings,
        environment=trained.get("environment", {}),
        evaluation=evaluation,
        vocab_size=evaluation["model"]["vocab_size"],
        ngram=_read_if_there(directory.parent / "datasets" / dataset / "ngram.json"),
        bench=_read_if_there(directory / "bench.json"),
        sample=_read_sample(directory / "samples.txt"),
    )


def _read_found(directory: Path, state: Path | None) -> Run | None:
    """A run as it stands; None for a directory that is no run's."""
    if (directory / "eval.json").exists() and (directory / "metrics.jsonl").exists():
        return _read_finished(directory)
    if (directory / "metrics.jsonl").exists():
        trained = _read_if_there(directory / "train.manifest.json")
        return _unfinished(directory.name, "not evaluated", directory / "metrics.jsonl", trained)
    note = _last_error(directory / "train.log")
    if state:
        status = "training" if lock.owner(state) else "failed" if note else "stopped"
        said = _read_if_there(state / "run.json")
        return _unfinished(directory.name, status, state / "metrics.jsonl", said, note)
    return Run(directory.name, status="failed", note=note) if note else None


def _unfinished(
    name: str, status: str, metrics: Path, asked: Mapping[str, Any], note: str = ""
) -> Run:
    try:
        frame = _frame(read_lines(metrics))
    except UserError:  # nothing of it was written yet
        frame = _frame([])
    inputs = list(asked.get("inputs", {}))
    dataset = Path(inputs[0]).parent if inputs else None
    meta = _read_if_there(dataset / "meta.json") if dataset else {}
    return Run(
        name,
        dataset.name if dataset else "",
        status,
        note,
        frame,
        _flat(asked.get("parameters", {})),
        asked.get("environment", {}),
        vocab_size=meta.get("vocab_size"),
    )


def _last_error(log: Path) -> str:
    """What the log of a stage that failed says last; nothing for one that did not."""
    with contextlib.suppress(OSError):
        errors = re.findall(r"^\S+ \S+ ERROR (.*)$", log.read_text(errors="replace"), re.MULTILINE)
        return str(errors[-1]) if errors else ""
    return ""


def _put_together(runs: list[Run]) -> list[Run]:
    """Give runs what they share: a benchmark of the same model, and a name for a group of seeds."""

    def measured(run: Run) -> str:
        """What a benchmark is of."""
        computed = [run.settings.get(f"train.{name}") for name in ("device", "dtype", "compile")]
        model = run.model.model_dump() if run.model else run.name
        return json.dumps([run.dataset, model, computed])

    benches: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        if run.bench:
            benches.setdefault(measured(run), run.bench)
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(_same_but(run, {"train.seed"}), []).append(run.name)
    names = [shared_name(members) for members in seeds.values()]
    group_of = {
        member: name if names.count(name) == 1 else members[0]
        for name, members in zip(names, seeds.values(), strict=True)
        for member in members
    }
    return [
        replace(run, bench=run.bench or benches.get(measured(run), {}), group=group_of[run.name])
        for run in runs
    ]


def _same_but(run: Run, settings: set[str]) -> str:
    """What runs have in common that differ in these settings only; a run without any, its name."""
    kept = {
        name: value
        for name, value in run.settings.items()
        if name not in settings and name.startswith(("model.", "train."))
    }
    return json.dumps([run.dataset, kept] if kept else run.name, sort_keys=True)


def shared_name(names: Sequence[str]) -> str:
    """What the names of some runs have in common, part by part between dots; a single one's own."""
    parts = [name.split(".") for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    return ".".join(shared) or names[0]


# --- Files ----------------------------------------------------------------------------------


def read_metrics(path: Path) -> pd.DataFrame:
    """The metrics.jsonl of a run, one row a line; NaN where a line has null or lacks the key.

    Columns: step, tokens (seen so far), loss, train_loss, val_loss (nats per token), learning_rate,
    grad_norm, tokens_per_second, seconds (of training so far). A last line that was cut off is
    left out. Errors: UserError for a file that is absent, empty or no metrics.
    """
    return _frame(read_lines(path))


def _frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=["step", "tokens", *MEASURES, "seconds"])
    return frame.astype(float).astype({"step": int, "tokens": int})


def _read_evaluation(path: Path) -> dict[str, Any]:
    try:
        result = read_json(path)
        for split in ("val", "train"):
            for name in ("loss", "perplexity", "bits_per_byte"):
                number(result[split][name])
        result["model"]["n_parameters"], result["model"]["vocab_size"], result["dataset"]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; evaluate the run first") from None
    except KeyError as error:
        raise UserError(
            f"{path}: no evaluation: `{error.args[0]}` is missing; evaluate the run again"
        ) from None
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise UserError(f"{path}: damaged; evaluate the run again") from None
    return dict(result)


def _read_if_there(path: Path) -> dict[str, Any]:
    try:
        said = read_json(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise UserError(f"{path}: damaged; remove it, and make it again")
    return said


def _read_sample(path: Path) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(SAMPLE_HEADER + SAMPLE_CHARACTERS)
    except FileNotFoundError:
        return None
    if text.startswith("# "):  # the settings, up to the first empty line
        text = text.partition("\n\n")[2]
    if text.startswith("--- sample "):  # a heading
        text = text.partition("\n")[2]
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS] + "…"


def _flat(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of settings as `group.name`: value."""
    return {
        f"{group}.{name}": value
        for group, settings in groups.items()
        if isinstance(settings, dict)
        for name, value in settings.items()
    }


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
    Column("parameters", "parameters", "1", "numbers learned, embeddings included", three_digits),
    Column("tokens_seen", "tokens seen", "tokens", "steps times tokens of a step", three_digits),
    Column("steps", "steps", "1", "optimizer steps", _whole),
    Column("training_flops", "training (FLOPs)", "FLOPs", "tokens seen times FLOPs per token of "
           "docs/FORMULAS.md", three_digits),
    Column("val_loss_nats_per_token", "val loss (nats/token)", "nats per token",
           "of the whole validation split", _4),
    Column("val_loss_low", "", "nats per token", "lower end of its bootstrap interval, 95 %"),
    Column("val_loss_high", "", "nats per token", "upper end"),
    Column("val_perplexity_per_token", "perplexity (per token)", "1", "e to the loss",
           "{:.2f}".format),
    Column("val_bits_per_byte", "bits per byte", "bits per byte",
           "of the validation split; compares across tokenizers", _4),
    Column("val_bits_per_character", "", "bits per character", "of the validation split"),
    Column("train_loss_nats_per_token", "train loss (nats/token)", "nats per token",
           "of as many windows of the training split", _4),
    Column("excess_over_source_percent", "above the source's entropy (%)", "%",
           "bits per byte over those of a built-in corpus' source", _1),
    Column("ngram_bits_per_byte", "n-grams (bits per byte)", "bits per byte",
           "of the best Kneser-Ney model of orders 1 to 5 on the same split", _4),
    Column("calibration_error_percent", "calibration error (%)", "%",
           "expected calibration error of the likeliest token", _1),
    Column("copied_16grams_percent", "16-grams copied (%)", "%",
           "of a generated text, that stand in the training split", _1),
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
        low, high = val.get("interval", {}).get("loss") or (None, None)
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
                (run.evaluation.get("source") or {}).get("excess_percent")
            ),
            "calibration_error_percent": 100
            * number(run.evaluation.get("calibration", {}).get("expected_calibration_error")),
            "copied_16grams_percent": 100 * number((run.evaluation.get("copying") or {}).get("16")),
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


def seeds_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and half-width of its 95 % interval (Student's t) over the seeds of each group.

    Only groups of two finished runs and more. Columns: group, dataset, runs, and of each measure
    `<measure>` and `<measure>_half_width`.
    """
    measures = ["val_loss_nats_per_token", "val_bits_per_byte", "training_seconds"]
    found = []
    for (group, dataset), members in rows[rows["status"] == "finished"].groupby(
        ["group", "dataset"], sort=False
    ):
        if len(members) < 2:
            continue
        row: dict[str, Any] = {"group": group, "dataset": dataset, "runs": len(members)}
        for measure in measures:
            values = members[measure].to_numpy(dtype=float)
            row[measure] = values.mean()
            error = values.std(ddof=1) / math.sqrt(len(values))
            row[f"{measure}_half_width"] = t_975(len(values) - 1) * error
        found.append(row)
    columns = ["group", "dataset", "runs"]
    columns += [name for measure in measures for name in (measure, f"{measure}_half_width")]
    return pd.DataFrame(found, columns=columns)


def t_975(degrees: int) -> float:
    """Student's t distribution, 97.5 %."""
    return T_975[degrees - 1] if degrees <= len(T_975) else NORMAL_975


# --- Power laws -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * x^exponent; low and high: of the exponent, 95 %."""

    coefficient: float
    exponent: float
    low: float
    high: float

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = self.coefficient * x**self.exponent
        return result


def fit_power_law(x: NDArray[np.float64], y: NDArray[np.float64]) -> PowerLaw | None:
    """Least squares in logarithms, from three different x up; None for fewer.

    As Kaplan et al. 2020 (arXiv:2001.08361) draw their laws. y must be positive.
    """
    good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    log_x, log_y = np.log(x[good]), np.log(y[good])
    if len(np.unique(log_x)) < 3:
        return None
    exponent, intercept = np.polyfit(log_x, log_y, 1)
    rest = log_y - (intercept + exponent * log_x)
    degrees = len(log_x) - 2
    variance = (rest**2).sum() / degrees / ((log_x - log_x.mean()) ** 2).sum()
    half_width = t_975(degrees) * math.sqrt(variance)
    return PowerLaw(
        math.exp(intercept), float(exponent), exponent - half_width, exponent + half_width
    )


def size_families(runs: Sequence[Run]) -> list[list[Run]]:
    """Finished runs that differ in size (SIZE_SETTINGS) and seed only, of two sizes and more."""
    families: dict[str, list[Run]] = {}
    for run in runs:
        if run.status == "finished" and run.model:
            families.setdefault(_same_but(run, SIZE_SETTINGS | {"train.seed"}), []).append(run)
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
        values = {
            json.dumps(run.settings[name], default=str) for run in runs if name in run.settings
        }
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
