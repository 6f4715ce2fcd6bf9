"""What runs left on the disk: metrics, evaluations, benchmarks, samples, settings, machines.

Reads the metrics, evaluations, benchmarks, samples and manifests in results/<run>/, and the states
of unfinished trainings. Measures nothing itself. How runs compare is left to compare.py.
"""

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nanogpt import lock
from nanogpt.config import RESERVED_RUN_NAMES, ModelSettings, UserError
from nanogpt.files import read_json
from nanogpt.metrics import MEASURES, number, read_lines
from nanogpt.sizing import flops_per_token
from nanogpt.state import find_trainings

SAMPLE_CHARACTERS = 600
SAMPLE_HEADER = 4000  # characters that the settings above the samples may take

# Of a run that is not finished, what manifests would say otherwise.
UNFINISHED = ("training", "stopped", "failed", "damaged", "not evaluated")


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
        seeds.setdefault(same_but(run, {"train.seed"}), []).append(run.name)
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


def same_but(run: Run, settings: set[str]) -> str:
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
    if text.startswith("--- sample "):  # a heading; the next sample has another
        text = text.partition("\n")[2].partition("\n\n--- sample ")[0].strip("\n")
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS] + "…"


def _flat(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of settings as `group.name`: value."""
    return {
        f"{group}.{name}": value
        for group, settings in groups.items()
        if isinstance(settings, dict)
        for name, value in settings.items()
    }
