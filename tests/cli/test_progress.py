"""The progress line of a training."""

import json

from nanogpt.artifacts.progress import last_lines, seconds_left
from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.cli.progress import describe


def line(step, seconds=None, **measures):
    return MetricsLine(step=step, tokens=step * 10, seconds=seconds, **measures)


def test_line_has_step_losses_and_time_left():
    lines = [line(0, 0.0, val_loss=4.0), line(10, 5.0, loss=3.0), line(20, 10.0, loss=2.5)]
    assert describe("demo", 1020, lines) == (
        "train demo: step 20 of 1,020, loss 2.5000, validation 4.0000 at step 0, 8 min 20 s left"
    )


def test_validation_loss_has_its_step_unless_it_is_the_last():
    lines = [line(990, loss=3.0, val_loss=4.0), line(1000, loss=2.5, val_loss=3.5)]
    assert describe("demo", 1000, lines[1:]).endswith("loss 2.5000, validation 3.5000")
    lines.append(line(1010, loss=2.4))
    assert describe("demo", 2000, lines).endswith("loss 2.4000, validation 3.5000 at step 1,000")


def test_time_left_needs_two_measurements_and_an_unfinished_training():
    assert seconds_left(100, [line(0, 0.0)]) is None
    assert seconds_left(100, [line(0), line(10, 1.0)]) is None
    assert "left" not in describe("demo", 20, [line(10, 1.0), line(20, 2.0)])
    assert "2 h 0 min left" in describe("demo", 7210, [line(0, 0.0), line(10, 10.0)])


def test_incomplete_line_is_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = [json.dumps({"step": step, "tokens": step}) for step in range(2000)]
    path.write_text("\n".join([*whole, '{"step": 20']))
    assert last_lines(path)[-1].step == 1999
    assert 1 < len(last_lines(path)) < 2000
