"""TensorBoard event files, made from a finished metrics.jsonl or from one that's still growing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from nanogpt.artifacts.records.metrics import MetricsLine, read_metrics
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import atomic_write

# The event file's name in a directory. TensorBoard treats each directory as a run.
EVENTS_FILE = "events.out.tfevents.metrics"

# TensorBoard's tag for each field of a metrics line.
TAGS = {
    "loss": "loss/batch",
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
}


def write_events(metrics: Path, directory: Path) -> str:
    """Write a run's metrics.jsonl as a TensorBoard event file, replacing any in `directory`.

    An event's wall time is the metrics' `seconds`, so TensorBoard's relative time is training time.
    A null becomes NaN, which TensorBoard marks. Values are float32. The same metrics give the same
    bytes. Returns a one-line summary.

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
    """Update the event files in `directory`/<run>/ from metrics.jsonl files that are growing.

    metrics: by run. A file that's missing or has no complete line yet is left for the next call.
    written: the number of lines of each run in its event file; updated in place. If a file has
    become shorter, as after a resume from an earlier state, an event resets TensorBoard's curves.
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
    # An EventFileWriter would put the time of day into the file and its name, and import TensorFlow
    # if it's installed.
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
