"""Runs are compared by the values in their files."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nanogpt.report.compare import environments, seeds_table, settings_that_differ, table
from nanogpt.report.runs import read_runs
from tests.made_runs import LAST_STEP, STEP_TOKENS, make_run, mix_ngrams, write_ngram


def rows_of(*directories):
    return table(read_runs(directories)).set_index("run")


def test_a_row_has_the_values_in_the_files(tmp_path):
    write_ngram(tmp_path, "play", [1.2, 0.9, 1.0])
    row = rows_of(make_run(tmp_path, "demo", val_loss=0.61237, bench=True)).loc["demo"]
    assert row["status"] == "finished"
    assert row["dataset"] == "play"
    assert row["seed"] == 1337
    assert row["tokens_seen"] == LAST_STEP * STEP_TOKENS
    assert row["steps"] == LAST_STEP
    assert row["val_loss_nats_per_token"] == 0.61237
    assert (row["val_loss_low"], row["val_loss_high"]) == (0.61237 - 0.01, 0.61237 + 0.02)
    assert row["val_perplexity_per_token"] == math.exp(0.61237)
    assert row["val_bits_per_byte"] == 0.88
    assert row["val_bits_per_character"] == 0.88
    assert row["train_loss_nats_per_token"] == 0.61237 - 0.1
    assert row["excess_over_source_percent"] == 3.5
    assert row["ngram_bits_per_byte"] == 0.9 / math.log(2), "of the best order"
    assert row["calibration_error_percent"] == 2
    assert row["copied_16grams_percent"] == 25
    assert row["training_seconds"] == LAST_STEP / 2
    assert row["tokens_per_second"] == 1000
    assert row["bench_tokens_per_second"] == 12_345
    assert row["mfu_percent"] == 42
    assert row["sampling_tokens_per_second"] == 678
    assert row["peak_memory_bytes"] == 10**8
    assert not row["diverged"]


def test_training_flops_agree_with_the_formula(tmp_path):
    row = rows_of(make_run(tmp_path, "demo")).loc["demo"]
    per_token = 6 * (12 * 2 * 32**2 + 65 * 32) + 12 * 2 * 32 * 16  # docs/FORMULAS.md
    assert row["training_flops"] == LAST_STEP * STEP_TOKENS * per_token


def test_an_older_evaluation_without_details_only_leaves_gaps(tmp_path):
    row = rows_of(make_run(tmp_path, "demo", deep=False)).loc["demo"]
    assert row["val_bits_per_byte"] == 0.88
    assert math.isnan(row["val_loss_low"])
    assert math.isnan(row["copied_16grams_percent"])


def test_seeds_give_a_mean_and_students_interval(tmp_path):
    losses = [0.60, 0.62, 0.67]
    runs = [
        make_run(tmp_path, f"s.seed-{seed}", val_loss=loss, train={"seed": seed})
        for seed, loss in enumerate(losses)
    ]
    runs.append(make_run(tmp_path, "alone", model={"dropout": 0.1}))
    seeds = seeds_table(read_runs(runs))
    assert list(seeds["group"]) == ["s"]
    assert seeds.loc[0, "seeds"] == seeds.loc[0, "tried"] == 3
    assert seeds.loc[0, "val_loss_nats_per_token"] == pytest.approx(0.63)
    # 4.303 is the 97.5 % quantile of Student's t with 2 degrees of freedom.
    half_width = 4.303 * np.std(losses, ddof=1) / math.sqrt(3)
    assert seeds.loc[0, "val_loss_nats_per_token_half_width"] == pytest.approx(half_width)


def test_a_run_with_different_sampling_is_not_another_seed(tmp_path):
    runs = [
        make_run(tmp_path, f"s.seed-{seed}.{copy}", val_loss=0.5 + seed / 10, train={"seed": seed})
        for seed in (1, 2)
        for copy in ("cold", "hot")
    ]
    seeds = seeds_table(read_runs(runs))
    assert list(seeds["seeds"]) == [2]


def test_of_two_runs_with_the_same_seed_the_finished_one_counts(tmp_path):
    runs = [
        make_run(tmp_path, f"s.{n}", train={"seed": s}) for n, s in (("a", 1), ("b", 1), ("c", 2))
    ]
    early, *rest = read_runs(runs)
    found = seeds_table([replace(early, status="not evaluated"), *rest])
    assert list(found["seeds"]) == [2]


def test_seeds_that_diverged_are_counted_as_tried(tmp_path):
    runs = [
        make_run(tmp_path, f"s.seed-{seed}", train={"seed": seed}, diverges_at=step)
        for seed, step in [(1, math.inf), (2, math.inf), (3, 100)]
    ]
    seeds = seeds_table(read_runs(runs))
    assert (seeds.loc[0, "seeds"], seeds.loc[0, "tried"]) == (2, 3)


def test_a_diverged_run_is_in_no_mean(tmp_path):
    runs = [
        make_run(tmp_path, f"s.seed-{seed}", train={"seed": seed}, diverges_at=step)
        for seed, step in [(1, math.inf), (2, 100)]
    ]
    assert seeds_table(read_runs(runs)).empty


def test_settings_are_split_into_different_and_shared(tmp_path):
    runs = read_runs([make_run(tmp_path, "a"), make_run(tmp_path, "b", train={"beta1": 0.8})])
    differ, shared = settings_that_differ(runs)
    assert differ == ["train.beta1"]
    assert shared["model.n_embd"] == 32
    assert shared["sample.top_k"] == 200


def test_equal_machines_are_listed_once(tmp_path):
    runs = read_runs([make_run(tmp_path, "a"), make_run(tmp_path, "b")])
    ((environment, names),) = environments(runs)
    assert names == ["a", "b"]
    assert environment["torch"] == "2.13.0"


def test_comparing_does_not_import_matplotlib():
    code = "import sys, nanogpt.report.compare; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_loss_with_ngrams_is_separate_from_the_gpts_own(tmp_path):
    alone, mixed = make_run(tmp_path, "alone"), make_run(tmp_path, "mixed", val_loss=0.6)
    mix_ngrams(mixed, 0.5)
    rows = rows_of(alone, mixed)
    assert rows.loc["mixed", "val_loss_nats_per_token"] == 0.6
    assert rows.loc["mixed", "mixture_loss_nats_per_token"] == 0.5
    assert rows.loc["mixed", "mixture_within_windows_loss_nats_per_token"] == 0.52
    assert math.isnan(rows.loc["alone", "mixture_loss_nats_per_token"])


def test_mixing_ngrams_counts_as_a_different_setting(tmp_path):
    alone, mixed = make_run(tmp_path, "alone"), make_run(tmp_path, "mixed")
    mix_ngrams(mixed, 0.5)
    differ, _ = settings_that_differ(read_runs([alone, mixed]))
    assert differ == ["ngram.max_order", "ngram.weight", "ngram.caution"]
