"""TensorBoard's view of runs: event files derived from metrics.jsonl, once or while they grow.

What stands in metrics.jsonl is left to metrics.py; which runs there are, to the caller.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from nanogpt.artifacts.metrics import number, read_lines
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import atomic_write

# Of the event file in a directory, which is a run to TensorBoard.
EVENTS_FILE = "events.out.tfevents.metrics"


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
    bytes. Returns what there is to say of it in one line.

    Errors: UserError as in `read_lines`.
    """
    lines = read_lines(metrics)
    path = directory / EVENTS_FILE
    with atomic_write(path) as file:
        _write(RecordWriter(file), [_version(), *map(_event, lines)])
    for other in directory.glob("*tfevents*"):
        if other != path:
            other.unlink()
    n_curves = len({tag for line in lines for tag in TAGS if tag in line})
    return f"{n_curves} curves, {plural(len(lines), 'line')} of metrics"


def append_events(metrics: Mapping[str, Path], directory: Path, written: dict[str, int]) -> None:
    """Bring the event files `directory`/<run>/ up to date with metrics.jsonl files that grow.

    metrics: by run; one that is absent or has no whole line yet is left for the next call.
    written: how many lines of each run are there already; brought up to date as well. Where lines
    are gone, as after a resume from an earlier state, TensorBoard is told to forget what it has.
    """
    for run, path in metrics.items():
        try:
            lines = read_lines(path)
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
    # Records rather than an EventFileWriter: that one puts the time of day into the file and its
    # name, and imports TensorFlow where there is one.
    for event in events:
        writer.write(event.SerializeToString())


def _version() -> Any:
    return Event(file_version="brain.Event:2")


def _event(line: Mapping[str, Any]) -> Any:
    values = [
        Summary.Value(tag=tag, simple_value=number(line[key]))
        for key, tag in TAGS.items()
        if key in line
    ]
    return Event(wall_time=line.get("seconds"), step=line["step"], summary=Summary(value=values))
