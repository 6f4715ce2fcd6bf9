"""Runs are read from disk, whether they're finished, unfinished or damaged."""

import math
import re

import pandas as pd
import pytest

from nanogpt.errors import UserError
from nanogpt.files import locks
from nanogpt.project import Project
from nanogpt.report.compare import table
from nanogpt.report.metrics_table import read_table
from nanogpt.report.runs import find_runs, read_runs
from tests.made_runs import (
    VOCAB_SIZE,
    change,
    make_run,
    make_training,
    split_of,
    training_parameters,
    write_meta,
    write_ngram,
)


def rows_of(*directories):
    return table(read_runs(directories)).set_index("run")


def status(root, name):
    return next(run for run in find_runs(root / "results", Project(root)) if run.name == name)


def names(results, project):
    return [run.name for run in find_runs(results, project)]


def test_an_unfinished_training_is_shown_with_its_metrics_so_far(tmp_path):
    state = make_training(tmp_path, "mine")
    with locks.hold(state, "a test"):
        run = status(tmp_path, "mine")
    assert (run.status, run.dataset, len(run.metrics)) == ("training", "play", 5)
    assert run.settings["train.seed"] == 1337


def test_an_unfinished_trainings_vocabulary_comes_from_its_dataset(tmp_path):
    make_training(tmp_path, "mine")
    assert status(tmp_path, "mine").vocab_size is None
    write_meta(tmp_path, "play")
    assert status(tmp_path, "mine").vocab_size == VOCAB_SIZE


def test_a_stopped_training_is_shown_as_stopped(tmp_path):
    make_training(tmp_path, "mine")
    run = status(tmp_path, "mine")
    assert (run.status, run.note) == ("stopped", "")


@pytest.mark.parametrize("with_state", [True, False])
def test_a_failed_run_is_shown_with_its_error(tmp_path, with_state):
    if with_state:
        make_training(tmp_path, "mine")
    log = tmp_path / "results/mine/train.log"
    log.parent.mkdir(parents=True)
    log.write_text(
        "2026-01-01 00:00:00,000 INFO step 1: loss 3.2\n"
        "2026-01-01 00:00:01,000 ERROR training diverged: loss is nan at step 2; lower it\n"
    )
    run = status(tmp_path, "mine")
    assert run.status == "failed"
    assert run.note == "training diverged: loss is nan at step 2; lower it"


def test_a_trained_run_without_evaluation_is_shown_with_its_curve_and_sample(tmp_path):
    finished = make_run(tmp_path, "mine")
    sample = status(tmp_path, "mine").sample
    (finished / "eval.json").unlink()
    run = status(tmp_path, "mine")
    assert run.sample == sample is not None
    assert (run.status, run.dataset, len(run.metrics)) == ("not evaluated", "play", 9)
    assert math.isnan(table([run]).loc[0, "val_loss_nats_per_token"])


@pytest.mark.parametrize("name", ["eval.json", "metrics.jsonl", "train.manifest.json"])
def test_a_damaged_run_is_named_and_the_others_are_read(tmp_path, name):
    (make_run(tmp_path, "bad") / name).write_text("[")
    make_run(tmp_path, "good")
    bad, good = find_runs(tmp_path / "results", Project(tmp_path))
    assert (bad.status, good.status) == ("damaged", "finished")
    assert name in bad.note


def test_other_directories_are_left_out(tmp_path):
    make_run(tmp_path, "mine")
    for name in ("datasets/play", "report", "empty"):
        (tmp_path / "results" / name).mkdir(parents=True)
    (tmp_path / "results/README.md").write_text("")
    assert names(tmp_path / "results", Project(tmp_path)) == ["mine"]


def test_run_10_comes_after_run_9(tmp_path):
    for name in ("run-10", "run-9", "a"):
        make_run(tmp_path, name)
    assert names(tmp_path / "results", Project(tmp_path)) == ["a", "run-9", "run-10"]


def test_an_empty_directory_has_no_runs(tmp_path):
    (tmp_path / "results").mkdir()
    assert find_runs(tmp_path / "results", Project(tmp_path)) == []


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such directory"):
        find_runs(tmp_path / "nowhere", Project(tmp_path))


def test_unfinished_trainings_belong_only_to_the_projects_results(tmp_path):
    make_training(tmp_path, "mine")
    make_run(tmp_path / "other", "theirs")
    assert names(tmp_path / "other/results", Project(tmp_path)) == ["theirs"]


def test_an_evaluation_of_older_weights_is_ignored(tmp_path):
    run = make_run(tmp_path, "mine")
    for stage, digest in (("train", "1" * 64), ("eval", "2" * 64)):
        path = run / f"{stage}.manifest.json"
        kind = "outputs" if stage == "train" else "inputs"
        change(path, **{kind: {f"{run}/model/model.safetensors": digest}})
    assert status(tmp_path, "mine").status == "not evaluated"


def test_samples_of_older_weights_are_not_shown(tmp_path):
    run = make_run(tmp_path, "mine")
    for stage, kind, digest in (("train", "outputs", "1" * 64), ("sample", "inputs", "2" * 64)):
        path = run / f"{stage}.manifest.json"
        change(path, **{kind: {"x/model.safetensors": digest}})
    assert status(tmp_path, "mine").sample is None


def test_a_failed_evaluation_is_shown_with_its_error(tmp_path):
    run = make_run(tmp_path, "mine")
    (run / "eval.json").unlink()
    (run / "eval.log").write_text("2026-01-01 00:00:00,000 ERROR out of memory; lower it\n")
    assert (status(tmp_path, "mine").status, status(tmp_path, "mine").note) == (
        "not evaluated",
        "out of memory; lower it",
    )


def test_a_diverged_training_is_shown_with_its_curve(tmp_path):
    make_training(tmp_path, "mine", last_step=400, diverges_at=150)
    run = status(tmp_path, "mine")
    assert (run.status, len(run.metrics)) == ("diverged", 9)


@pytest.mark.parametrize("name", ["bench.json", "../datasets/play/ngram.json"])
def test_a_damaged_benchmark_or_count_is_left_out_with_a_note(tmp_path, name):
    run = make_run(tmp_path, "mine", bench=True)
    write_ngram(tmp_path, "play", [0.9])
    for content in ("{", "[]", "{}", '{"orders": [{}], "model": null}'):
        (run / name).write_text(content)
        found = status(tmp_path, "mine")
        assert found.status == "finished"
        assert name.rpartition("/")[2] in found.note
        table([found])


NULLS = ["by_position", "by_kind", "calibration", "copying", "source"]


@pytest.mark.parametrize("part", NULLS)
def test_a_null_part_of_an_evaluation_is_left_out(tmp_path, part):
    run = make_run(tmp_path, "mine")
    change(run / "eval.json", **{part: None})
    assert status(tmp_path, "mine").status == "finished"
    table([status(tmp_path, "mine")])


@pytest.mark.parametrize("part", [*NULLS[:-1], "model", "val"])
def test_an_evaluation_with_a_malformed_part_is_damaged(tmp_path, part):
    run = make_run(tmp_path, "mine")
    change(run / "eval.json", **{part: {"unknown": [1]}})
    assert status(tmp_path, "mine").status == "damaged"


def test_unknown_model_settings_are_reported_as_damage(tmp_path):
    run = make_run(tmp_path, "mine")
    parameters = training_parameters()
    parameters["model"]["n_experts"] = 8
    change(run / "train.manifest.json", parameters=parameters)
    damaged = status(tmp_path, "mine")
    assert damaged.status == "damaged"
    assert "train.manifest.json" in damaged.note
    assert "n_experts" in damaged.note


@pytest.mark.parametrize("step", [0, 50, 300])
def test_a_run_with_a_nan_loss_has_the_status_diverged(tmp_path, step):
    runs = [make_run(tmp_path, "good"), make_run(tmp_path, "bad", diverges_at=step)]
    rows = rows_of(*runs)
    assert list(rows["status"]) == ["finished", "diverged"]
    assert list(rows["diverged"]) == [False, True]


def test_an_evaluation_with_nan_losses_means_the_run_diverged(tmp_path):
    run = make_run(tmp_path, "bad", deep=False)
    split = split_of(0.6, deep=False)
    split |= dict.fromkeys(("loss", "perplexity", "bits_per_byte"))
    change(run / "eval.json", val=split, train=split)
    row = rows_of(run).loc["bad"]
    assert row["status"] == "diverged"
    assert math.isnan(row["val_loss_nats_per_token"])


def test_a_truncated_last_line_is_ignored(tmp_path):
    path = make_run(tmp_path, "demo") / "metrics.jsonl"
    whole = read_table(path).table
    path.write_text(path.read_text()[:-20])
    pd.testing.assert_frame_equal(read_table(path).table, whole[:-1])


def test_null_and_missing_metrics_are_nan(tmp_path):
    metrics = read_table(make_run(tmp_path, "demo", diverges_at=400) / "metrics.jsonl").table
    assert metrics["step"].tolist() == list(range(0, 401, 50))
    assert metrics["loss"].isna().tolist() == [True, *[False] * 7, True]
    assert metrics["val_loss"].isna().tolist() == [False, True] * 4 + [True]


@pytest.mark.parametrize("text", [None, "", '{"step": 0', '[1]\n{"step": 1}\n', "x\ny\n"])
def test_bad_metrics_are_named_in_one_line(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        read_table(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [None, "", "[]", '{"dataset": "play"}'])
def test_a_bad_evaluation_is_named_in_one_line(tmp_path, text):
    run = make_run(tmp_path, "demo")
    (run / "eval.json").unlink()
    if text is not None:
        (run / "eval.json").write_text(text)
    with pytest.raises(UserError, match=r"demo.eval\.json") as error:
        read_runs([run])
    assert "\n" not in str(error.value)
