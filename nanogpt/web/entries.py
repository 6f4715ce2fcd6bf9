"""An entry of the index of runs: what the list shows about a run."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat, JsonValue, ValidationError

from nanogpt.artifacts.progress import last_lines, seconds_left
from nanogpt.artifacts.records.base import field_name
from nanogpt.errors import REMAKE, UserError
from nanogpt.report.run import Run
from nanogpt.report.runs import EVALUATE, read_run
from nanogpt.web.run_files import RunFiles

# Those of the report, and: waiting, of a run that a running Snakemake will train; stalled, of a
# training whose process gives no sign of life.
Status = Literal[
    "waiting",
    "training",
    "stalled",
    "stopped",
    "failed",
    "diverged",
    "not evaluated",
    "finished",
    "damaged",
]
ACTIVE: Sequence[Status] = ("waiting", "training", "stalled")


# What fits into SQLite's integers.
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Entry(BaseModel, frozen=True):
    """What the list of runs shows about a run.

    note: why it isn't finished. step: optimizer steps so far. best_val_loss, last_loss: nats per
    token, during training. bits_per_byte: of the evaluation. seconds_left: until the last step.
    heartbeat, updated: the last sign of life of its training, and the last change of its files, in
    seconds since 1970.
    """

    name: str
    status: Status
    note: str = ""
    dataset: str = ""
    step: Whole | None = None
    max_iters: Whole | None = None
    best_val_loss: FiniteFloat | None = None
    last_loss: FiniteFloat | None = None
    bits_per_byte: FiniteFloat | None = None
    n_parameters: Whole | None = None
    seconds_left: FiniteFloat | None = None
    heartbeat: FiniteFloat | None = None
    updated: FiniteFloat = 0.0

    @property
    def is_unevaluated(self) -> bool:
        """Whether nothing went wrong: the run just hasn't been evaluated yet."""
        return self.note == EVALUATE


RunValues = dict[str, JsonValue]  # `group.name`: value


def read_entry(files: RunFiles) -> tuple[Entry, RunValues] | None:
    """Read a run's entry and its settings from its files; None if it isn't a run."""
    run = read_files(files)
    if run is None:
        return None
    try:
        return summarize(run, files), dict(run.settings)
    except ValidationError as error:
        flaw = error.errors(include_url=False)[0]
        what = f"`{field_name(flaw['loc'])}` {flaw['msg'].removeprefix('Input ')}"
        note = str(UserError(f"{files.directory}: damaged: {what}; {REMAKE}"))
        return Entry(name=run.name, status="damaged", note=note, updated=files.updated), {}


def read_files(files: RunFiles) -> Run | None:
    """Read a run, as the report does; None for other directories.

    A run with a damaged file, or one that's a link to somewhere else, has the status `damaged`.
    """
    if files.link:
        note = f"{files.link}: not followed: it's a link to another directory, or not a file"
        return _damaged(files, note)
    try:
        return read_run(files.directory, files.state)
    except UserError as error:
        return _damaged(files, str(error))
    except OSError as error:  # unreadable, or just being removed
        return _damaged(files, f"{error.filename}: can't be read: {error.strerror}")


def _damaged(files: RunFiles, note: str) -> Run:
    # The results may be in a directory whose name isn't UTF-8, which no answer can have.
    return Run(files.name, status="damaged", note=str(UserError(note)))


def summarize(run: Run, files: RunFiles) -> Entry:
    """Make a run's entry."""
    max_iters = run.settings.get("train.max_iters")
    max_iters = max_iters if isinstance(max_iters, int) else None
    is_training = run.status == "training"
    evaluation = run.evaluation
    return Entry(
        name=run.name,
        status=run.status,
        note=run.note,
        dataset=run.dataset,
        step=int(run.metrics["step"].iloc[-1]) if len(run.metrics) else None,
        max_iters=max_iters,
        best_val_loss=min(_finite(run, "val_loss"), default=None),
        last_loss=next(reversed(_finite(run, "loss")), None),
        bits_per_byte=_known(evaluation.val.bits_per_byte) if evaluation else None,
        n_parameters=run.n_parameters,
        seconds_left=_seconds_left(files, max_iters) if is_training and max_iters else None,
        heartbeat=files.moved / 1e9 if files.owner else None,
        updated=files.updated,
    )


def _finite(run: Run, measure: str) -> list[float]:
    if not len(run.metrics):
        return []
    return [value for value in run.metrics[measure] if math.isfinite(value)]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _seconds_left(files: RunFiles, max_iters: int) -> float | None:
    try:
        return seconds_left(max_iters, last_lines(files.metrics))
    except OSError:  # the training has just ended
        return None
