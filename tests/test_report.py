"""The report and the TensorBoard files say what the runs' files say, and nothing else."""

import itertools
import json
import math
import re
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nanogpt.config import UserError
from nanogpt.report import read_metrics, write_events, write_report

STEP_TOKENS = 1000
LAST_STEP = 400


def make_run(root, name, dataset="play", val_loss=0.6, diverges_at=math.inf, sample="To be"):
    """A made-up run of 400 steps, evaluated every 100, logged every 50."""
    lines = []
    for step in range(0, LAST_STEP + 1, 50):
        loss = val_loss + math.exp(-step / 100) if step < diverges_at else None
        line = {"step": step, "tokens": step * STEP_TOKENS}
        if step:
            line["loss"] = loss
        if step % 100 == 0:
            line |= {"train_loss": loss, "val_loss": loss}
        line |= {"learning_rate": 1e-3, "grad_norm": 0.4}
        line |= {"tokens_per_second": 1000.0 + step % 100, "seconds": step / 2}
        lines.append(json.dumps(line))
    split = {"loss": val_loss, "perplexity": math.exp(val_loss), "bits_per_byte": 0.88}
    evaluation = {
        "run": name,
        "dataset": dataset,
        "val": split,
        "train": {**split, "loss": val_loss - 0.1},
        "model": {"n_parameters": 803_000, "vocab_size": 65},
    }
    if dataset == "play":
        evaluation["source"] = {"excess_percent": 3.5}
    run = root / "results" / name
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run / "eval.json").write_text(json.dumps(evaluation))
    if sample:
        (run / "samples.txt").write_text(sample)
    return run


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path, "demo", val_loss=0.61237),
        make_run(tmp_path, "small", "shakespeare", 1.71236, sample="<script>alert(1)</script>"),
        make_run(tmp_path, "large", "shakespeare", 1.49876, sample=None),
    ]


@pytest.fixture
def report(runs, tmp_path):
    write_report(runs, tmp_path / "report")
    return tmp_path / "report"


def test_runs_csv_has_the_unrounded_numbers_with_units_in_their_names(report):
    table = pd.read_csv(report / "runs.csv").set_index("run")
    assert list(table.index) == ["demo", "small", "large"]
    demo = table.loc["demo"]
    assert demo["dataset"] == "play"
    assert demo["parameters"] == 803_000
    assert demo["tokens_seen"] == LAST_STEP * STEP_TOKENS
    assert demo["steps"] == LAST_STEP
    assert demo["val_loss_nats_per_token"] == 0.61237
    assert demo["val_perplexity_per_token"] == math.exp(0.61237)
    assert demo["val_bits_per_byte"] == 0.88
    assert demo["train_loss_nats_per_token"] == 0.61237 - 0.1
    assert demo["excess_over_source_percent"] == 3.5
    assert demo["training_seconds"] == LAST_STEP / 2
    assert demo["tokens_per_second"] == 1000
    assert not table["diverged"].any()
    assert math.isnan(table.loc["small", "excess_over_source_percent"])


@pytest.mark.parametrize("name", ["report.md", "index.html"])
def test_each_run_is_shown_with_its_val_loss(report, name):
    text = (report / name).read_text()
    for run, val_loss in [("demo", "0.6124"), ("small", "1.7124"), ("large", "1.4988")]:
        assert run in text
        assert val_loss in text


@pytest.mark.parametrize("name", ["index.html", "loss.svg"])
def test_nothing_is_loaded_from_the_network(report, name):
    text = (report / name).read_text()
    body = text[text.index("<svg") :] if name == "loss.svg" else text
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", body)
    assert not re.search(r"(https?:)?//\w", without_namespaces)
    assert "@import" not in text


def test_samples_are_escaped(report):
    page = (report / "index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_long_samples_are_cut(tmp_path):
    write_report([make_run(tmp_path, "demo", sample="word " * 1000)], tmp_path)
    assert (tmp_path / "index.html").read_text().count("word ") == 120


def test_datasets_have_panels_of_their_own(report):
    svg = (report / "loss.svg").read_text()
    assert len(re.findall(r'id="axes_\d+"', svg)) == 2
    assert ">play</text>" in svg
    assert ">shakespeare</text>" in svg


def test_a_run_has_the_same_colour_on_the_page_and_in_the_plot(report):
    page, svg = (report / "index.html").read_text(), (report / "loss.svg").read_text()
    colours = re.findall(r'<th scope="row"><span style="color: (#\w{6})"', page)
    assert len(set(colours)) == 3
    for colour in colours:
        assert f"stroke: {colour}" in svg


def test_labels_of_equal_runs_do_not_overlap(tmp_path):
    names = [f"run{i}" for i in range(20)]
    write_report([make_run(tmp_path, name) for name in names], tmp_path)
    svg = (tmp_path / "loss.svg").read_text()
    found = re.findall(r'<text [^>]* y="([\d.]+)"[^>]*>run\d+</text>', svg)
    heights = sorted(float(y) for y in found)
    assert len(heights) == 20
    assert all(b - a > 10 for a, b in itertools.pairwise(heights))  # 10 pt letters


def test_the_same_runs_give_the_same_bytes(runs, report, tmp_path):
    write_report(runs, tmp_path / "again")
    names = {path.name for path in report.iterdir()}
    assert names == {"index.html", "report.md", "runs.csv", "loss.svg"}
    for name in names:
        assert (report / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_readers_matplotlib_settings_do_not_matter_and_are_kept(runs, report, tmp_path):
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5}):
        write_report(runs, tmp_path / "again")
        assert matplotlib.rcParams["font.size"] == 20
    assert (report / "loss.svg").read_bytes() == (tmp_path / "again/loss.svg").read_bytes()


def test_one_run_is_a_report(tmp_path):
    write_report([make_run(tmp_path, "alone", val_loss=0.5)], tmp_path)
    assert "0.5000" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("step", [0, 50, 300])
def test_a_run_that_diverged_is_marked_beside_one_that_did_not(tmp_path, step):
    runs = [make_run(tmp_path, "good"), make_run(tmp_path, "bad", diverges_at=step)]
    write_report(runs, tmp_path)
    assert "| bad (diverged) |" in (tmp_path / "report.md").read_text()
    assert "(diverged)</span>" in (tmp_path / "index.html").read_text()
    assert list(pd.read_csv(tmp_path / "runs.csv")["diverged"]) == [False, True]


def test_an_evaluation_without_numbers_is_shown_as_diverged(tmp_path):
    run = make_run(tmp_path, "bad", diverges_at=0)
    evaluation = json.loads((run / "eval.json").read_text())
    evaluation["val"] = evaluation["train"] = dict.fromkeys(evaluation["val"])
    (run / "eval.json").write_text(json.dumps(evaluation))
    write_report([run], tmp_path)
    assert pd.isna(pd.read_csv(tmp_path / "runs.csv")["val_loss_nats_per_token"]).all()
    assert "nan" not in (tmp_path / "report.md").read_text()


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = make_run(tmp_path, "demo") / "metrics.jsonl"
    whole = read_metrics(path)
    path.write_text(path.read_text()[:-20])
    pd.testing.assert_frame_equal(read_metrics(path), whole[:-1])


def test_null_and_absent_metrics_are_nan(tmp_path):
    metrics = read_metrics(make_run(tmp_path, "demo", diverges_at=400) / "metrics.jsonl")
    assert metrics["step"].tolist() == list(range(0, 401, 50))
    assert metrics["loss"].isna().tolist() == [True, *[False] * 7, True]
    assert metrics["val_loss"].isna().tolist() == [False, True] * 4 + [True]


@pytest.mark.parametrize("text", [None, "", '{"step": 0', '[1]\n{"step": 1}\n', "x\ny\n"])
def test_metrics_that_are_none_are_named_in_one_line(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    for use in (read_metrics, lambda path: write_events(path, tmp_path / "events")):
        with pytest.raises(UserError, match=re.escape(str(path))) as error:
            use(path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "events").exists()


@pytest.mark.parametrize("text", [None, "", "[]", '{"dataset": "play"}'])
def test_an_evaluation_that_is_none_is_named_in_one_line(tmp_path, text):
    run = make_run(tmp_path, "demo")
    (run / "eval.json").unlink()
    if text is not None:
        (run / "eval.json").write_text(text)
    with pytest.raises(UserError, match=r"demo.eval\.json") as error:
        write_report([run], tmp_path / "report")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report").exists()


def test_no_runs_are_told(tmp_path):
    with pytest.raises(UserError, match=r"report\.runs"):
        write_report([], tmp_path)


def read_events(directory: Path):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    return accumulator.Reload()


def test_tensorboard_reads_the_metrics_back(tmp_path):
    path = make_run(tmp_path, "demo", diverges_at=400) / "metrics.jsonl"
    write_events(path, tmp_path / "events")
    events = read_events(tmp_path / "events")
    metrics = read_metrics(path)
    tags = {
        "loss/batch": "loss",
        "loss/train": "train_loss",
        "loss/val": "val_loss",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
        "tokens_per_second": "tokens_per_second",
    }
    assert set(events.Tags()["scalars"]) == set(tags)
    for tag, column in tags.items():
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
