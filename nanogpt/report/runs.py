"""Read runs from disk: metrics, evaluations, benchmarks, samples, manifests, saved states."""

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from nanogpt.artifacts.manifests import model_among
from nanogpt.artifacts.records.base import AnyRecord, JsonObject, read_record
from nanogpt.artifacts.records.benchmarks import Benchmark
from nanogpt.artifacts.records.datasets import DatasetMeta
from nanogpt.artifacts.records.evaluations import Evaluation
from nanogpt.artifacts.records.manifests import Manifest, Request, TrainingRequest
from nanogpt.artifacts.records.ngrams import NgramEvaluation
from nanogpt.artifacts.states import METRICS, REQUEST, find_trainings
from nanogpt.config.parameters import complete
from nanogpt.config.patterns import RESERVED_RUN_NAMES
from nanogpt.config.schema import ModelSettings
from nanogpt.errors import REMAKE, UserError
from nanogpt.files import locks
from nanogpt.project import Project
from nanogpt.report.groups import relate
from nanogpt.report.metrics_table import metrics_table, read_table
from nanogpt.report.run import Run, Status, natural_order

# The note on a run that was trained, and whose evaluation didn't fail.
EVALUATE = "evaluate it with `nanogpt eval`, followed by its name"
SAMPLE_CHARACTERS = 600
SAMPLE_HEADER = 4000  # the most characters of settings above the samples


def read_runs(directories: Sequence[Path]) -> list[Run]:
    """Read finished runs from their directories, in order.

    Errors: UserError for a missing or damaged file.
    """
    return relate([_read_finished(directory) for directory in directories])


def find_runs(results: Path, project: Project) -> list[Run]:
    """Find all runs in a directory, finished or not, sorted by name.

    For the project's own results, this includes unfinished trainings. A run whose files can't be
    read has the status `damaged` and a note with the reason. Unreadable benchmarks and n-grams are
    left out, with a note.

    Errors: UserError for a missing directory.
    """
    is_own = results.resolve() == project.results.resolve()
    states = find_trainings(project) if is_own else {}
    if not results.is_dir() and not states:
        raise UserError(f"{results}: no such directory; name one that contains runs")
    names = {
        path.name
        for path in results.glob("*")
        if path.is_dir() and not RESERVED_RUN_NAMES.fullmatch(path.name)
    }
    runs = []
    for name in sorted(names | states.keys(), key=natural_order):
        try:
            run = read_run(results / name, states.get(name))
        except UserError as error:
            run = Run(name, status="damaged", note=str(error))
        if run:
            runs.append(run)
    return relate(runs)


def read_run(directory: Path, state: Path | None) -> Run | None:
    """Read a run, finished or not; None for other directories. state: its training's state.

    Errors: UserError for a damaged file.
    """
    if (directory / METRICS).exists():
        trained = _read_manifest(directory, "train")
        evaluated = _read_manifest(directory, "eval")
        if (directory / "eval.json").exists() and _is_of(evaluated, trained):
            notes: list[str] = []
            return replace(_read_finished(directory, notes), note="; ".join(notes))
        run = _read_requested(directory, trained, _manifest_path(directory, "train"))
        note = _last_error(directory / "eval.log") or EVALUATE
        run = replace(run, sample=_current_sample(directory, trained))
        return _unfinished(run, "not evaluated", note, directory / METRICS)
    note = _last_error(directory / "train.log")
    if state:
        request = _read_if_there(state / REQUEST, TrainingRequest)
        run = _read_requested(directory, request, state / REQUEST)
        status: Status = "training" if locks.owner(state) else "failed" if note else "stopped"
        return _unfinished(run, status, note, state / METRICS)
    return Run(directory.name, status="failed", note=note) if note else None


# --- Runs on disk -----------------------------------------------------------------------------


def _read_finished(directory: Path, notes: list[str] | None = None) -> Run:
    """Read an evaluated run. notes: collects problems with parts that aren't essential."""
    metrics = read_table(directory / METRICS)
    evaluation = _read_if_there(directory / "eval.json", Evaluation)
    if evaluation is None:
        raise UserError(f"{directory / 'eval.json'}: no such file; evaluate the run first")
    losses = (evaluation.val.loss, evaluation.train.loss)
    diverged = metrics.diverged or not all(map(math.isfinite, losses))
    trained = _read_manifest(directory, "train")
    settings = _trained_settings(trained) if trained else {}
    for stage in ("eval", "sample"):
        manifest = _read_manifest(directory, stage)
        settings |= _flat({stage: manifest.parameters.get(stage)} if manifest else {})
    if evaluation.mixture:
        mixed = ("max_order", "weight", "caution")
        settings |= {f"ngram.{name}": getattr(evaluation.mixture, name) for name in mixed}
    dataset = directory.parent / "datasets" / evaluation.dataset
    return Run(
        directory.name,
        evaluation.dataset,
        "diverged" if diverged else "finished",
        metrics=metrics.table,
        settings=settings,
        model=_model(trained, _manifest_path(directory, "train")),
        vocab_size=evaluation.model.vocab_size,
        environment=trained.environment if trained else None,
        evaluation=evaluation,
        ngram=_read_part(dataset / "ngram.json", NgramEvaluation, notes),
        bench=_read_part(directory / "bench.json", Benchmark, notes),
        sample=_current_sample(directory, trained),
    )


def _current_sample(directory: Path, trained: Manifest | None) -> str | None:
    """Return the first sample if it's from the current model."""
    is_current = _is_of(_read_manifest(directory, "sample"), trained)
    return _read_sample(directory / "samples.txt") if is_current else None


def _read_requested(directory: Path, request: Request | None, path: Path) -> Run:
    """Describe a run from its training's request. path: the request's file."""
    if request is None:
        return Run(directory.name)
    inputs = list(request.inputs)
    dataset = Path(inputs[0]).parent.name if inputs else ""
    meta = _read_if_there(directory.parent / "datasets" / dataset / "meta.json", DatasetMeta)
    return Run(
        directory.name,
        dataset,
        settings=_trained_settings(request),
        model=_model(request, path),
        vocab_size=meta.vocab_size if meta else None,
        environment=request.environment if isinstance(request, Manifest) else None,
    )


def _unfinished(run: Run, status: Status, note: str, metrics: Path) -> Run:
    try:
        found = read_table(metrics)
    except UserError:  # no line has been written yet
        return replace(run, status=status, note=note, metrics=metrics_table([]))
    if found.diverged:  # the kept weights may be from before that
        status = "diverged"
    return replace(run, status=status, note=note, metrics=found.table)


def _is_of(manifest: Manifest | None, trained: Manifest | None) -> bool:
    """Whether a stage used these weights; true if a manifest doesn't record them."""
    used = _weights(manifest.inputs) if manifest else None
    final = _weights(trained.outputs) if trained else None
    return used is None or final is None or used == final


def _weights(digests: dict[str, str]) -> str | None:
    """Find the digest of a model's weights among digests by path."""
    found = (digest for path, digest in digests.items() if path.endswith("model.safetensors"))
    return next(found, None)


def _model(request: Request | None, path: Path) -> ModelSettings | None:
    """Return the trained model's settings. path: the request's file."""
    given = request.parameters.get("model") if request else None
    if not isinstance(given, dict):
        return None
    try:
        return complete(ModelSettings, given)
    except UserError as error:
        raise UserError(f"{path}: damaged: parameters.model.{error}; {REMAKE}") from None


def _last_error(log: Path) -> str:
    """Return the last error in a stage's log; empty if the stage didn't fail."""
    with contextlib.suppress(OSError):
        errors = re.findall(r"^\S+ \S+ ERROR (.*)$", log.read_text(errors="replace"), re.MULTILINE)
        return str(errors[-1]) if errors else ""
    return ""


def _trained_settings(request: Request) -> dict[str, JsonValue]:
    """Return a training's settings, including the run or directory it started from."""
    settings = _flat(request.parameters)
    initial = model_among(request.inputs)
    if initial:
        is_run = initial.name == "model"
        settings["train.init_from"] = initial.parent.name if is_run else str(initial)
    return settings


def _flat(groups: JsonObject) -> dict[str, JsonValue]:
    """Flatten groups of settings to `group.name`: value."""
    return {
        f"{group}.{name}": value
        for group, settings in groups.items()
        if isinstance(settings, dict)
        for name, value in settings.items()
    }


# --- Files ------------------------------------------------------------------------------------


def _manifest_path(directory: Path, stage: str) -> Path:
    return directory / f"{stage}.manifest.json"


def _read_manifest(directory: Path, stage: str) -> Manifest | None:
    return _read_if_there(_manifest_path(directory, stage), Manifest)


def _read_if_there(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """Read a record; None if the file doesn't exist."""
    return read_record(path, kind) if path.exists() else None


def _read_part(path: Path, kind: type[AnyRecord], notes: list[str] | None) -> AnyRecord | None:
    """Read an optional record. notes: collects errors; None: raise them."""
    try:
        return _read_if_there(path, kind)
    except UserError as error:
        if notes is None:
            raise
        notes.append(str(error))
        return None


def _read_sample(path: Path) -> str | None:
    """Return the start of the first sample; None if there are no samples."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(SAMPLE_HEADER + SAMPLE_CHARACTERS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: can't read this file ({error.strerror}); {REMAKE}") from None
    if text.startswith("# "):  # the settings end at the first empty line
        text = text.partition("\n\n")[2]
    if text.startswith("--- sample "):  # a heading, as the next sample has
        text = text.partition("\n")[2].partition("\n\n--- sample ")[0].strip("\n")
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS] + "…"
