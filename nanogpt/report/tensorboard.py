"""TensorBoard's event files, derived from metrics.jsonl once or while it grows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from nanogpt.artifacts.records.metrics import MetricsLine, read_metrics
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import atomic_write

# The name of the event file in a directory; a directory is a run to TensorBoard.
EVENTS_FILE = "events.out.tfevents.metrics"

# Tags of curves, by what a line of metrics measures.
TAGS = {
    "loss": "loss/batch",
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
}


def write_events(metrics: Path, directory: Path) -> str:
    """Write a run's metrics.jsonl as a TensorBoard event file, in place of those in `directory`.

    The wall time of an event is the metrics' `seconds`, so relative time is the training's own; a
    null becomes NaN, which TensorBoard marks. Values are float32. The same metrics give the same
    bytes. Returns a summary in one line.

    Errors: UserError as in `read_metrics`.
    """
    lines = read_metrics(metrics)
    path = directory / EVENTS_FILE
    with atomic_write(path) as file:
        _write(RecordWriter(file), [_version(), *map(_event, lines)])
    for other in directory.glob("*tfevents*"):
        if other != path:
            other.unlink()
    n_curves = len({name for line in lines for name in TAGS if getattr(line, name) is not None})
    return f"{n_curves} curves, {plural(len(lines), 'line')} of metrics"


def append_events(metrics: Mapping[str, Path], directory: Path, written: dict[str, int]) -> None:
    """Bring the event files `directory`/<run>/ up to date with metrics.jsonl files that grow.

    metrics: by run; one that is absent or has no whole line yet is left for the next call.
    written: how many lines of each run the event files have; updated. Where lines are gone, as
    after a resume from an earlier state, an event makes TensorBoard forget what it has.
    """
    for run, path in metrics.items():
        try:
            lines = read_metrics(path)
        except UserError:
            continue
        known = written.get(run, 0)
        if len(lines) == known:
            continue
        events = list(map(_event, lines[known:]))
        if not known:
            events.insert(0, _version())
        elif len(lines) < known:
            restart = Event(step=0, session_log=SessionLog(status=SessionLog.START))
            events = [restart, *map(_event, lines)]
        (directory / run).mkdir(parents=True, exist_ok=True)
        with open(directory / run / EVENTS_FILE, "ab" if known else "wb") as file:
            _write(RecordWriter(file), events)
        written[run] = len(lines)


def _write(writer: Any, events: list[Any]) -> None:
    # Not by an EventFileWriter: it puts the time of day into the file and its name, and imports
    # TensorFlow if that is installed.
    for event in events:
        writer.write(event.SerializeToString())


def _version() -> Any:
    return Event(file_version="brain.Event:2")


def _event(line: MetricsLine) -> Any:
    values = [
        Summary.Value(tag=tag, simple_value=getattr(line, name))
        for name, tag in TAGS.items()
        if getattr(line, name) is not None
    ]
    return Event(wall_time=line.seconds, step=line.step, summary=Summary(value=values))
