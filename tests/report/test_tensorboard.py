"""TensorBoard's own reader finds every curve, in finished and in growing files."""

import json
import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nanogpt.artifacts.records.metrics import read_metrics
from nanogpt.errors import UserError
from nanogpt.report.metrics_table import metrics_table
from nanogpt.report.tensorboard import EVENTS_FILE, TAGS, append_events, write_events
from tests.made_runs import make_run, metrics_text


def read_events(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    return accumulator.Reload()


def test_tensorboard_reads_the_metrics_back(tmp_path):
    path = make_run(tmp_path, "demo", diverges_at=400) / "metrics.jsonl"
    assert write_events(path, tmp_path / "events") == "6 curves, 9 lines of metrics"
    events = read_events(tmp_path / "events")
    metrics = metrics_table(read_metrics(path))
    assert set(events.Tags()["scalars"]) == set(TAGS.values())
    for column, tag in TAGS.items():
        logged = metrics[metrics[column].notna() | (metrics["step"] == 400)]
        found = events.Scalars(tag)
        assert [event.step for event in found] == logged["step"].tolist()
        assert [event.wall_time for event in found] == logged["seconds"].tolist()
        values = [event.value for event in found]
        assert values == pytest.approx(logged[column].tolist(), rel=1e-6, nan_ok=True)


def test_writing_events_again_replaces_them(tmp_path):
    path = make_run(tmp_path, "demo") / "metrics.jsonl"
    directory = tmp_path / "events"
    write_events(path, directory)
    first = next(directory.iterdir()).read_bytes()
    (directory / "events.out.tfevents.1700000000.host.1.0").write_bytes(first)
    write_events(path, directory)
    assert [file.read_bytes() for file in directory.iterdir()] == [first]


@pytest.mark.parametrize("text", [None, "", '{"step": 0', '[1]\n{"step": 1}\n', "x\ny\n"])
def test_bad_metrics_are_named_in_one_line(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        write_events(path, tmp_path / "events")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "events").exists()


def steps(directory, tag="loss/val"):
    return [event.step for event in read_events(directory).Scalars(tag)]


def test_growing_metrics_are_followed(tmp_path):
    path, out, written = tmp_path / "metrics.jsonl", tmp_path / "out", {}
    append_events({"mine": path}, out, written)  # nothing is there yet
    assert written == {}
    whole = metrics_text(0.6)
    for n_characters in (10, len(whole) // 2, len(whole) - 20, len(whole)):
        path.write_text(whole[:n_characters])  # usually with a truncated line
        append_events({"mine": path}, out, written)
        append_events({"mine": path}, out, written)  # nothing new
    assert steps(out / "mine") == [0, 100, 200, 300, 400]
    once = tmp_path / "once"
    write_events(path, once)
    assert (out / "mine" / EVENTS_FILE).read_bytes() == (once / EVENTS_FILE).read_bytes()


def test_a_training_resumed_from_an_earlier_state_shows_no_step_twice(tmp_path):
    path, written = tmp_path / "metrics.jsonl", {}
    whole = metrics_text(0.6)
    path.write_text(whole)
    append_events({"mine": path}, tmp_path / "out", written)
    lines = whole.splitlines(keepends=True)
    other = json.loads(lines[2]) | {"val_loss": 7.0}
    path.write_text("".join([*lines[:2], json.dumps(other) + "\n"]))
    append_events({"mine": path}, tmp_path / "out", written)
    assert steps(tmp_path / "out/mine") == [0, 100]
    assert read_events(tmp_path / "out/mine").Scalars("loss/val")[-1].value == 7.0
