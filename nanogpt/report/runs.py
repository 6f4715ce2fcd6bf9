"""Collect what runs left on disk: metrics, evaluations, benchmarks, samples, manifests, states."""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nanogpt.artifacts.metrics import MEASURES, number, read_lines
from nanogpt.artifacts.states import find_trainings
from nanogpt.config.patterns import RESERVED_RUN_NAMES
from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError
from nanogpt.files import locks
from nanogpt.files.atomic import read_json
from nanogpt.project import HERE
from nanogpt.report.groups import put_together
from nanogpt.report.run import Run, natural_order

SAMPLE_CHARACTERS = 600

SAMPLE_HEADER = 4000  # characters that the settings above the samples may take


def read_runs(directories: Sequence[Path]) -> list[Run]:
    """Finished runs by their directories, in this order.

    Errors: UserError for a file of a run that is absent or damaged.
    """
    return put_together([_read_finished(directory) for directory in directories])


def find_runs(results: Path) -> list[Run]:
    """All runs that lie there, finished or not, by name; with the trainings that go on in results/.

    A run whose files cannot be read has the status `damaged` and says why. Benchmarks and n-grams
    that cannot be read are left out with a note.
    Errors: UserError for a directory that is absent.
    """
    states = find_trainings(HERE) if results.resolve() == HERE.results.resolve() else {}
    if not results.is_dir() and not states:
        raise UserError(f"{results}: no such directory; name one that has runs")
    directories = {
        path.name: path
        for path in results.glob("*")
        if path.is_dir() and not RESERVED_RUN_NAMES.fullmatch(path.name)
    }
    runs = []
    for name in sorted({*directories, *states}, key=natural_order):
        try:
            run = _read_found(results / name, states.get(name))
        except UserError as error:
            run = Run(name, status="damaged", note=str(error))
        if run:
            runs.append(run)
    return put_together(runs)


def _read_finished(directory: Path, notes: list[str] | None = None) -> Run:
    """A run that was evaluated. notes: get what is wrong with parts that it can do without."""
    lines = read_lines(directory / "metrics.jsonl")
    evaluation = _read(directory / "eval.json", _check_evaluation)
    if not evaluation:
        raise UserError(f"{directory / 'eval.json'}: no such file; evaluate the run first")
    losses = [evaluation["val"]["loss"], evaluation["train"]["loss"]]
    diverged = _is_diverged(lines) or not np.isfinite([number(loss) for loss in losses]).all()
    stages = {
        stage: _read(directory / f"{stage}.manifest.json", _check_manifest)
        for stage in ("train", "eval", "sample")
    }
    settings = _flat(stages["train"].get("parameters", {}))
    for stage in ("eval", "sample"):
        settings |= _flat({stage: stages[stage].get("parameters", {}).get(stage, {})})
    dataset = evaluation["dataset"]

    def part(path: Path, check: Callable[[Any], object]) -> dict[str, Any]:
        try:
            return _read(path, check)
        except UserError as error:
            if notes is None:
                raise
            notes.append(str(error))
            return {}

    return Run(
        directory.name,
        dataset,
        "diverged" if diverged else "finished",
        metrics=_frame(lines),
        settings=settings,
        environment=stages["train"].get("environment", {}),
        evaluation={name: said for name, said in evaluation.items() if said is not None},
        vocab_size=evaluation["model"]["vocab_size"],
        ngram=part(directory.parent / "datasets" / dataset / "ngram.json", _check_ngram),
        bench=part(directory / "bench.json", _check_bench),
        sample=_read_sample(directory / "samples.txt")
        if _is_of(stages["sample"], stages["train"])
        else None,
    )


def _read_found(directory: Path, state: Path | None) -> Run | None:
    """A run as it stands; None for a directory that is no run's."""
    if (directory / "metrics.jsonl").exists():
        trained, evaluated = (
            _read(directory / f"{stage}.manifest.json", _check_manifest)
            for stage in ("train", "eval")
        )
        if (directory / "eval.json").exists() and _is_of(evaluated, trained):
            notes: list[str] = []
            return replace(_read_finished(directory, notes), note="; ".join(notes))
        note = _last_error(directory / "eval.log")
        metrics = directory / "metrics.jsonl"
        return _unfinished(directory.name, "not evaluated", metrics, trained, note)
    note = _last_error(directory / "train.log")
    if state:
        status = "training" if locks.owner(state) else "failed" if note else "stopped"
        said = _read(state / "run.json", _check_manifest)
        return _unfinished(directory.name, status, state / "metrics.jsonl", said, note)
    return Run(directory.name, status="failed", note=note) if note else None


def _unfinished(name: str, status: str, metrics: Path, asked: Mapping[str, Any], note: str) -> Run:
    try:
        lines = read_lines(metrics)
    except UserError:  # nothing of it was written yet
        lines = []
    inputs = list(asked.get("inputs", {}))
    dataset = Path(inputs[0]).parent if inputs else None
    meta = _read(dataset / "meta.json", lambda meta: meta["vocab_size"] + 0) if dataset else {}
    return Run(
        name,
        dataset.name if dataset else "",
        "diverged" if _is_diverged(lines) else status,
        note,
        _frame(lines),
        _flat(asked.get("parameters", {})),
        asked.get("environment", {}),
        vocab_size=meta.get("vocab_size"),
    )


def _is_diverged(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a loss on the way was not a number; the weights that were kept may be older.

    A null is told from an absent key only before lines become a table.
    """
    names = ("loss", "train_loss", "val_loss", "grad_norm")
    return any(line.get(name, 0) is None for line in lines for name in names)


def _is_of(stage: Mapping[str, Any], trained: Mapping[str, Any]) -> bool:
    """Whether a stage was made of these weights, as far as manifests tell."""

    def digest(paths: Mapping[str, str]) -> str | None:
        return next((d for path, d in paths.items() if path.endswith("model.safetensors")), None)

    used, made = digest(stage.get("inputs", {})), digest(trained.get("outputs", {}))
    return used is None or made is None or used == made


def _last_error(log: Path) -> str:
    """What the log of a stage that failed says last; nothing for one that did not."""
    with contextlib.suppress(OSError):
        errors = re.findall(r"^\S+ \S+ ERROR (.*)$", log.read_text(errors="replace"), re.MULTILINE)
        return str(errors[-1]) if errors else ""
    return ""


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


def _read(path: Path, check: Callable[[Any], object]) -> dict[str, Any]:
    """The mapping of a JSON file, empty if there is none. check: fails for another form."""
    try:
        said = read_json(path)
        check(said)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ArithmeticError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: damaged, or of another version; make it again") from None
    return dict(said)


def _check_evaluation(said: Any) -> None:
    for split in ("val", "train"):
        for name in ("loss", "perplexity", "bits_per_byte"):
            number(said[split][name])
    said["model"]["n_parameters"] + said["model"]["vocab_size"]
    Path(said["dataset"])
    if said.get("source"):
        number(said["source"]["bits_per_byte"]) + number(said["source"]["excess_percent"])
        said["val"]["n_bytes"] / said["val"]["n_tokens"]
    for bucket in said.get("by_position") or []:
        bucket["first"] + bucket["last"] + number(bucket["loss"])
    for kind in (said.get("by_kind") or {}).values():
        number(kind["loss"]) + number(kind["share_of_loss"])
    if said.get("calibration"):
        number(said["calibration"]["expected_calibration_error"])
        for one in said["calibration"]["bins"]:
            number(one["confidence"]) + number(one["accuracy"]) + one["n_tokens"]
    if said.get("copying"):
        for text in (said["copying"], said["copying"]["reference"]):
            number(text["8"]) + number(text["16"]) + number(text["32"])


def _check_manifest(said: Any) -> None:
    for name in ("inputs", "outputs", "parameters", "environment"):
        said.get(name, {}).items()
    for digested in ("inputs", "outputs"):
        list(map(Path, said.get(digested, {})))
    ModelSettings(**said.get("parameters", {}).get("model", {}))


def _check_ngram(said: Any) -> None:
    for order in said["orders"]:
        order["order"] + order["loss"] + number(order["bits_per_byte"])


def _check_bench(said: Any) -> None:
    said["tokens_per_second"] + said["mfu"] + said["peak_memory_bytes"]
    said["generation"]["tokens_per_second"] + said["model"]["n_parameters"]
    str(said["run"])


def _read_sample(path: Path) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(SAMPLE_HEADER + SAMPLE_CHARACTERS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
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
