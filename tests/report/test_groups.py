"""Runs that differ only in their seed form a group, and equal models share a benchmark."""

import pytest

from nanogpt.report.groups import shared_name
from nanogpt.report.runs import read_runs
from tests.made_runs import make_run


def test_runs_that_differ_only_in_their_seed_are_one_group(tmp_path):
    runs = [
        make_run(tmp_path, f"sizes.model-{model}.seed-{seed}", model=settings, train={"seed": seed})
        for model, settings in [("tiny", {}), ("wide", {"dropout": 0.1})]
        for seed in (1, 2)
    ]
    groups = [run.group for run in read_runs(runs)]
    assert groups == ["sizes.model-tiny"] * 2 + ["sizes.model-wide"] * 2


def test_runs_on_different_data_are_different_groups(tmp_path):
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
def test_a_group_is_named_by_what_its_runs_names_share(names, shared):
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
