"""An entry of the index of runs: what the list shows about a run."""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, JsonValue

from nanogpt.artifacts.progress import last_lines, seconds_left
from nanogpt.errors import UserError
from nanogpt.report.run import Run
from nanogpt.report.runs import read_run
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
    step: int | None = None
    max_iters: int | None = None
    best_val_loss: float | None = None
    last_loss: float | None = None
    bits_per_byte: float | None = None
    n_parameters: int | None = None
    seconds_left: float | None = None
    heartbeat: float | None = None
    updated: float = 0.0


Settings = dict[str, JsonValue]


def read_entry(files: RunFiles) -> tuple[Entry, Settings] | None:
    """Read a run's entry and its settings from its files; None if it isn't a run."""
    run = read_files(files)
    return (summarize(run, files), dict(run.settings)) if run else None


def read_files(files: RunFiles) -> Run | None:
    """Read a run, as the report does; None for other directories.

    A run with a damaged file, or one that's a link to somewhere else, has the status `damaged`.
    """
    if files.link:
        note = f"{files.link}: not followed: it's a link to another directory, or not a file"
        return Run(files.name, status="damaged", note=note)
    try:
        return read_run(files.directory, files.state)
    except UserError as error:
        return Run(files.name, status="damaged", note=str(error))
    except OSError as error:  # unreadable, or just being removed
        note = f"{error.filename}: can't be read: {error.strerror}"
        return Run(files.name, status="damaged", note=note)


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
