"""What runs left is read as it is, a row a run; unfinished and failed ones are told as such."""

import json
import math
import re

import pandas as pd
import pytest

from nanogpt.errors import UserError
from nanogpt.files import locks as lock
from nanogpt.report.compare import table
from nanogpt.report.groups import shared_name
from nanogpt.report.runs import find_runs, read_metrics, read_runs
from tests.made_runs import make_run, metrics_text, write, write_ngram


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The project's directory, in which states of trainings are looked for."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(*directories):
    return table(read_runs(directories)).set_index("run")


# --- Unfinished and failed runs ---------------------------------------------------------------


def status(root, name):
    return next(run for run in find_runs(root / "results") if run.name == name)


def write_state(root, run, last_step=200):
    state = root / ".nanogpt/state/0123456789ab"
    parameters = {"model": {"n_layer": 1}, "train": {"seed": 3}}
    inputs = {"results/datasets/play/train.bin": "0" * 64}
    write(state / "run.json", {"run": run, "parameters": parameters, "inputs": inputs})
    (state / "metrics.jsonl").write_text(metrics_text(0.6, last_step=last_step))
    return state


def test_a_training_that_goes_on_is_shown_with_what_it_has(here):
    state = write_state(here, "mine")
    with lock.hold(state, "a test"):
        run = status(here, "mine")
    assert (run.status, run.dataset, len(run.metrics)) == ("training", "play", 5)
    assert run.settings["train.seed"] == 3


def test_a_training_that_was_stopped_is_shown_as_such(here):
    write_state(here, "mine")
    run = status(here, "mine")
    assert (run.status, run.note) == ("stopped", "")


@pytest.mark.parametrize("with_state", [True, False])
def test_a_run_that_failed_says_why(here, with_state):
    if with_state:
        write_state(here, "mine")
    log = here / "results/mine/train.log"
    log.parent.mkdir(parents=True)
    log.write_text(
        "2026-01-01 00:00:00,000 INFO step 1: loss 3.2\n"
        "2026-01-01 00:00:01,000 ERROR training diverged: loss is nan at step 2; lower it\n"
    )
    run = status(here, "mine")
    assert run.status == "failed"
    assert run.note == "training diverged: loss is nan at step 2; lower it"


def test_a_trained_run_without_evaluation_is_shown_with_its_curve(here):
    (make_run(here, "mine") / "eval.json").unlink()
    run = status(here, "mine")
    assert (run.status, run.dataset, len(run.metrics)) == ("not evaluated", "play", 9)
    assert math.isnan(table([run]).loc[0, "val_loss_nats_per_token"])


@pytest.mark.parametrize("name", ["eval.json", "metrics.jsonl", "train.manifest.json"])
def test_a_damaged_run_is_named_and_the_others_are_read(here, name):
    (make_run(here, "bad") / name).write_text("[")
    make_run(here, "good")
    bad, good = find_runs(here / "results")
    assert (bad.status, good.status) == ("damaged", "finished")
    assert name in bad.note


def test_what_is_no_run_is_left_out(here):
    make_run(here, "mine")
    for name in ("datasets/play", "report", "empty"):
        (here / "results" / name).mkdir(parents=True)
    (here / "results/README.md").write_text("")
    assert [run.name for run in find_runs(here / "results")] == ["mine"]


def test_run_10_comes_after_run_9(here):
    for name in ("run-10", "run-9", "a"):
        make_run(here, name)
    assert [run.name for run in find_runs(here / "results")] == ["a", "run-9", "run-10"]


def test_nothing_there_is_no_runs(here):
    (here / "results").mkdir()
    assert find_runs(here / "results") == []


def test_an_absent_directory_is_named(here):
    with pytest.raises(UserError, match="nowhere: no such directory"):
        find_runs(here / "nowhere")


def test_trainings_are_those_of_results_and_of_no_other_directory(here):
    write_state(here, "mine")
    make_run(here / "other", "theirs")
    assert [run.name for run in find_runs(here / "other/results")] == ["theirs"]


def test_an_evaluation_of_older_weights_is_not_that_of_the_run(here):
    run = make_run(here, "mine")
    for stage, digest in (("train", "1" * 64), ("eval", "2" * 64)):
        path = run / f"{stage}.manifest.json"
        files = {f"{run}/model/model.safetensors": digest}
        said = json.loads(path.read_text())
        write(path, said | ({"outputs": files} if stage == "train" else {"inputs": files}))
    assert status(here, "mine").status == "not evaluated"


def test_samples_of_older_weights_are_not_shown(here):
    run = make_run(here, "mine")
    for stage, kind, digest in (("train", "outputs", "1" * 64), ("sample", "inputs", "2" * 64)):
        path = run / f"{stage}.manifest.json"
        write(path, json.loads(path.read_text()) | {kind: {"x/model.safetensors": digest}})
    assert status(here, "mine").sample is None


def test_an_evaluation_that_failed_says_why(here):
    run = make_run(here, "mine")
    (run / "eval.json").unlink()
    (run / "eval.log").write_text("2026-01-01 00:00:00,000 ERROR out of memory; lower it\n")
    assert (status(here, "mine").status, status(here, "mine").note) == (
        "not evaluated",
        "out of memory; lower it",
    )


def test_a_training_that_diverged_is_shown_with_its_curve(here):
    state = write_state(here, "mine")
    (state / "metrics.jsonl").write_text(metrics_text(0.6, diverges_at=150))
    run = status(here, "mine")
    assert (run.status, len(run.metrics)) == ("diverged", 9)


@pytest.mark.parametrize("name", ["bench.json", "../datasets/play/ngram.json"])
def test_a_damaged_benchmark_or_count_is_left_out_with_a_note(here, name):
    run = make_run(here, "mine", bench=True)
    write_ngram(here, "play", [0.9])
    for content in ("{", "[]", "{}", '{"orders": [{}], "model": null}'):
        (run / name).write_text(content)
        found = status(here, "mine")
        assert found.status == "finished"
        assert name.rpartition("/")[2] in found.note
        table([found])


NULLS = ["by_position", "by_kind", "calibration", "copying", "source"]


@pytest.mark.parametrize("part", NULLS)
def test_a_part_of_an_evaluation_that_is_null_is_left_out(here, part):
    run = make_run(here, "mine")
    evaluation = json.loads((run / "eval.json").read_text())
    write(run / "eval.json", evaluation | {part: None})
    assert status(here, "mine").status == "finished"
    table([status(here, "mine")])


@pytest.mark.parametrize("part", [*NULLS[:-1], "model", "val"])
def test_a_part_of_an_evaluation_that_is_another_thing_is_damage(here, part):
    run = make_run(here, "mine")
    evaluation = json.loads((run / "eval.json").read_text())
    write(run / "eval.json", evaluation | {part: {"unknown": [1]}})
    assert status(here, "mine").status == "damaged"


def test_settings_of_another_version_are_damage(here):
    run = make_run(here, "mine")
    said = json.loads((run / "train.manifest.json").read_text())
    said["parameters"]["model"]["n_experts"] = 8
    write(run / "train.manifest.json", said)
    assert status(here, "mine").status == "damaged"


@pytest.mark.parametrize("step", [0, 50, 300])
def test_a_run_that_diverged_is_told_from_one_that_did_not(tmp_path, step):
    runs = [make_run(tmp_path, "good"), make_run(tmp_path, "bad", diverges_at=step)]
    rows = rows_of(*runs)
    assert list(rows["status"]) == ["finished", "diverged"]
    assert list(rows["diverged"]) == [False, True]


def test_an_evaluation_without_numbers_is_of_a_run_that_diverged(tmp_path):
    run = make_run(tmp_path, "bad", deep=False)
    evaluation = json.loads((run / "eval.json").read_text())
    for name in ("loss", "perplexity", "bits_per_byte"):
        evaluation["val"][name] = evaluation["train"][name] = None
    write(run / "eval.json", evaluation)
    row = rows_of(run).loc["bad"]
    assert row["status"] == "diverged"
    assert math.isnan(row["val_loss_nats_per_token"])


# --- Files ------------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        read_metrics(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [None, "", "[]", '{"dataset": "play"}'])
def test_an_evaluation_that_is_none_is_named_in_one_line(tmp_path, text):
    run = make_run(tmp_path, "demo")
    (run / "eval.json").unlink()
    if text is not None:
        (run / "eval.json").write_text(text)
    with pytest.raises(UserError, match=r"demo.eval\.json") as error:
        read_runs([run])
    assert "\n" not in str(error.value)


# --- Groups of seeds, and benchmarks -----------------------------------------------------------


def test_runs_that_differ_in_their_seed_only_are_one_group(tmp_path):
    runs = [
        make_run(tmp_path, f"sizes.model-{model}.seed-{seed}", model=settings, train={"seed": seed})
        for model, settings in [("tiny", {}), ("wide", {"dropout": 0.1})]
        for seed in (1, 2)
    ]
    groups = [run.group for run in read_runs(runs)]
    assert groups == ["sizes.model-tiny"] * 2 + ["sizes.model-wide"] * 2


def test_other_data_are_another_group(tmp_path):
    runs = [make_run(tmp_path, "a", "play"), make_run(tmp_path, "b", "other", train={"seed": 2})]
    assert [run.group for run in read_runs(runs)] == ["a", "b"]


def test_two_groups_never_share_a_name(tmp_path):
    runs = [
        make_run(tmp_path, f"{letter}.{number}", train={"seed": seed, "beta1": beta1})
        for letter, number, seed, beta1 in [("a", 1, 1, 0.8), ("a", 2, 2, 0.8), ("a", 3, 1, 0.9)]
    ]
    runs.append(make_run(tmp_path, "a.4", train={"seed": 2, "beta1": 0.9}))
    groups = [run.group for run in read_runs(runs)]
    assert groups == ["a.1", "a.1", "a.3", "a.3"]


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["demo"], "demo"),
        (["s.seed-1", "s.seed-2"], "s"),
        (["s.seed-1.model-a", "s.seed-2.model-a"], "s.model-a"),
        (["s.learning_rate-0.001.seed-1", "s.learning_rate-0.001.seed-2"], "s.learning_rate-0.001"),
        (["one", "two"], "one"),
    ],
)
def test_a_group_is_called_what_its_runs_names_share(names, shared):
    assert shared_name(names) == shared


def test_a_benchmark_serves_all_runs_of_the_same_model(tmp_path):
    runs = [
        make_run(tmp_path, "a", bench=True),
        make_run(tmp_path, "b", train={"seed": 2, "learning_rate": 0.1}),
        make_run(tmp_path, "c", model={"dropout": 0.1}),
        make_run(tmp_path, "d", train={"dtype": "bfloat16"}),
        make_run(tmp_path, "e", train={"batch_size": 3}),
    ]
    assert [bool(run.bench) for run in read_runs(runs)] == [True, True, False, False, False]
