"""Training depends only on its settings, and its numbers agree with independent computations."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nanogpt.config.schema import EvalSettings
from nanogpt.data import play as playwright
from nanogpt.data.batches import load
from nanogpt.errors import UserError
from nanogpt.evaluation.evaluate import evaluate
from nanogpt.model.checkpoints import load_model
from nanogpt.model.gpt import GPT
from nanogpt.training.schedules import learning_rate_at
from tests.training.trainings import (
    BASE,
    CONSTANT,
    DIVERGES,
    Training,
    read_metrics,
    split_loss,
    without_times,
)

GOLDEN = Path(__file__).parent / "golden_loss.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, play, tiny):
    return Training(tmp_path_factory.mktemp("trained")).run(play, tiny)


# --- Outputs --------------------------------------------------------------------------------


def test_the_loss_falls(trained):
    first, last = trained.metrics[0], trained.metrics[-1]
    assert last["loss"] < first["val_loss"] - 0.5
    assert last["val_loss"] < first["val_loss"] - 0.5
    assert last["train_loss"] < first["train_loss"] - 0.5


def test_steps_are_logged_at_their_intervals_with_the_documented_keys(trained):
    lines = {line["step"]: line for line in trained.metrics}
    assert list(lines) == [0, 10, 20, 30, 40, 50, 60]
    step = {"loss", "learning_rate", "grad_norm", "tokens_per_second"}
    evaluation = {"train_loss", "val_loss"}
    for number, line in lines.items():
        expected = {"step", "tokens", "seconds"}
        expected |= step if number > 0 else set()
        expected |= evaluation if number % 20 == 0 else set()
        assert line.keys() == expected
        assert line["tokens"] == number * 8 * 16
        assert all(math.isfinite(value) for value in line.values())


def test_the_last_step_is_always_logged_and_evaluated(training, play, tiny):
    training.run(play, tiny, max_iters=7, log_interval=3, eval_interval=5)
    assert [line["step"] for line in training.metrics] == [0, 3, 5, 6, 7]
    assert ["val_loss" in line for line in training.metrics] == [True, False, True, False, True]
    assert all("loss" in line for line in training.metrics[1:])


def test_seconds_never_decrease(trained):
    seconds = [line["seconds"] for line in trained.metrics]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_the_logged_learning_rate_is_the_steps(trained):
    for line in trained.metrics[1:]:
        assert line["learning_rate"] == learning_rate_at(line["step"] - 1, BASE)


def test_a_model_directory_has_the_model_and_the_datasets_tokenizer(trained, play, tiny):
    checkpoint = load_model(trained.model_directory)
    assert checkpoint.model.settings == tiny
    assert checkpoint.tokenizer == load(play).tokenizer
    names = {path.name for path in trained.results.iterdir()}
    assert names == {"model", "metrics.jsonl"}


def test_the_first_steps_loss_is_the_initial_models_on_its_batch(training, play, tiny):
    training.run(play, tiny, max_iters=1, log_interval=1)
    torch.manual_seed(BASE.seed)
    model = GPT(tiny, load(play).tokenizer.vocab_size)
    assert training.metrics[1]["loss"] == pytest.approx(split_loss(model, load(play).val), abs=0.05)


# --- Repeatability --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_same_seed_gives_the_same_bytes(training, another_training, play, tiny, dtype):
    settings = {"max_iters": 12, "log_interval": 4, "eval_interval": 6, "dtype": dtype}
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    training.run(play, with_dropout, **settings)
    torch.manual_seed(99)  # numbers drawn before must not matter
    torch.rand(7)
    np.random.default_rng().random()
    another_training.run(play, with_dropout, **settings)
    for path in training.model_directory.iterdir():
        assert path.read_bytes() == (another_training.model_directory / path.name).read_bytes()
    assert without_times(training.metrics) == without_times(another_training.metrics)


def test_another_seed_gives_another_model(training, another_training, play, tiny):
    training.run(play, tiny, max_iters=2)
    another_training.run(play, tiny, max_iters=2, seed=1338)
    assert training.weight_bytes != another_training.weight_bytes
    assert training.metrics[0]["val_loss"] != another_training.metrics[0]["val_loss"]


def test_logging_and_evaluation_intervals_do_not_change_the_model(
    training, another_training, play, tiny
):
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    settings = {"max_iters": 12, "keep": "last"}
    training.run(play, with_dropout, **settings)
    another_training.run(
        play, with_dropout, **settings, eval_interval=1, eval_iters=1, log_interval=1
    )
    assert training.weight_bytes == another_training.weight_bytes


def test_losses_match_the_golden_curve(trained, play):
    """Losses of 60 steps in float32 on one thread, to 1e-3.

    They change with the model, the batches, the initial weights or the optimizer. If a change is
    intended, write this run's `metrics`, without times, to golden_loss.json.
    """
    stored = json.loads(GOLDEN.read_text())
    assert load(play).meta.files[0].sha256 == stored["text_sha256"], "the play has changed"
    golden = stored["metrics"]
    metrics = without_times(trained.metrics)
    assert [line.keys() for line in metrics] == [line.keys() for line in golden]
    for line, expected in zip(metrics, golden, strict=True):
        assert line == pytest.approx(expected, abs=1e-3)


# --- Micro-batches --------------------------------------------------------------------------


def test_accumulated_micro_batches_equal_one_large_batch(training, another_training, play, tiny):
    settings = {"max_iters": 10, "log_interval": 1, "keep": "last"}
    training.run(play, tiny, **settings, batch_size=8, eval_iters=5)
    another_training.run(
        play, tiny, **settings, batch_size=4, gradient_accumulation_steps=2, eval_iters=10
    )
    whole, parts = without_times(training.metrics), without_times(another_training.metrics)
    for line, expected in zip(parts, whole, strict=True):
        assert line == pytest.approx(expected, abs=1e-5)
    for name, weight in training.weights.items():
        torch.testing.assert_close(another_training.weights[name], weight, atol=1e-5, rtol=0)


# --- Evaluation during training -------------------------------------------------------------


def test_the_first_val_loss_is_the_initial_models_on_the_whole_split(training, play, tiny):
    training.run(play, tiny, max_iters=1, eval_iters=10_000)
    files = load(play)
    torch.manual_seed(BASE.seed)
    model = GPT(tiny, files.tokenizer.vocab_size)
    first = training.metrics[0]
    assert first["val_loss"] == pytest.approx(split_loss(model, files.val), abs=1e-6)
    assert first["train_loss"] == pytest.approx(split_loss(model, files.train), abs=1e-6)


def test_evaluations_read_the_same_windows_every_time(training, play, tiny):
    """The steps are too small to change a float32, so only different windows could matter."""
    training.run(
        play, tiny, **CONSTANT, learning_rate=1e-30, max_iters=6, eval_interval=2, eval_iters=2
    )
    evaluated = [line for line in training.metrics if "val_loss" in line]
    assert len(evaluated) == 4
    assert len({line["val_loss"] for line in evaluated}) == 1
    assert len({line["train_loss"] for line in evaluated}) == 1


def test_evaluations_use_no_dropout(training, another_training, play, tiny):
    training.run(play, tiny, max_iters=1)
    another_training.run(play, tiny.model_copy(update={"dropout": 0.9}), max_iters=1)
    assert training.metrics[0]["val_loss"] == another_training.metrics[0]["val_loss"]
    assert training.metrics[1]["loss"] != another_training.metrics[1]["loss"]


# --- Kept weights ---------------------------------------------------------------------------

# At this rate, the first steps ruin the model and later ones repair part of it.
RISES = {
    **CONSTANT,
    "learning_rate": 1.0,
    "max_iters": 9,
    "eval_interval": 3,
    "eval_iters": 40,  # the whole validation split
}


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_kept_weights_are_the_best_or_the_last(training, play, tiny, keep):
    training.run(play, tiny, **RISES, keep=keep)
    losses = [line["val_loss"] for line in training.metrics if "val_loss" in line]
    assert len(losses) == 4
    assert losses[-1] > min(losses) + 0.1
    model = load_model(training.model_directory).model
    wanted = min(losses) if keep == "best" else losses[-1]
    assert split_loss(model, load(play).val) == pytest.approx(wanted, abs=1e-4)


def test_the_best_weights_can_come_from_the_middle_of_a_training(training, write_dataset, tiny):
    """A model that memorizes a short text first gets better on the rest of it, then worse."""
    dataset = write_dataset(playwright.write(400, seed=3), val_ratio=0.5)
    training.run(dataset, tiny, **CONSTANT, learning_rate=0.01, max_iters=80, eval_interval=10)
    losses = [line["val_loss"] for line in training.metrics if "val_loss" in line]
    assert 0 < losses.index(min(losses)) < len(losses) - 1
    model = load_model(training.model_directory).model
    assert split_loss(model, load(dataset).val) == pytest.approx(min(losses), abs=1e-4)


# --- Errors ---------------------------------------------------------------------------------


def test_a_nan_loss_ends_the_training_and_names_the_step(training, play, tiny):
    with pytest.raises(UserError) as error:
        training.run(play, tiny, **DIVERGES)
    lines = read_metrics(training.state / "metrics.jsonl")  # JSON has no NaN
    last = lines[-1]
    assert 0 < last["step"] < 10
    nulls = [name for name, value in last.items() if value is None]
    assert nulls[0] in ("loss", "grad_norm")
    assert not any(None in line.values() for line in lines[:-1])
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"training diverged: {nulls[0]} is ")
    assert f"at step {last['step']}; lower `learning_rate`, raise" in message
    assert not training.results.exists()


def test_a_nan_val_loss_ends_the_training(training, play, tiny):
    """No step is logged before the evaluation."""
    settings = DIVERGES | {"log_interval": 100, "eval_interval": 5}
    with pytest.raises(UserError, match=r"training diverged: .* at step 5;"):
        training.run(play, tiny, **settings)
    last = read_metrics(training.state / "metrics.jsonl")[-1]
    assert last["val_loss"] is None
    assert last["train_loss"] is None


def test_a_failed_training_keeps_the_earlier_model(training, play, tiny):
    training.run(play, tiny, max_iters=2)
    before = {p: p.read_bytes() for p in training.results.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="diverged"):
        training.run(play, tiny, **DIVERGES)
    assert {p: p.read_bytes() for p in training.results.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(("val_ratio", "split"), [(0.1, "val"), (0.9, "train")])
def test_a_split_shorter_than_a_window_is_refused_before_anything_is_written(
    training, write_dataset, tiny, val_ratio, split
):
    dataset = write_dataset("to be or not to be, that " * 8, val_ratio=val_ratio)
    n_tokens = getattr(load(dataset).meta, split).n_tokens
    assert 18 < n_tokens < 22
    with pytest.raises(UserError) as error:
        training.run(dataset, tiny.model_copy(update={"block_size": n_tokens}))
    message = str(error.value)
    assert "\n" not in message
    for part in (f"dataset `{dataset.name}`: the {split} split", f"block_size {n_tokens}"):
        assert part in message
    assert not training.state.exists()
    assert not training.results.exists()


def test_a_split_of_one_window_and_one_token_is_enough(training, write_dataset, tiny):
    dataset = write_dataset("to be or not to be, that " * 8)
    n_tokens = load(dataset).meta.val.n_tokens
    training.run(dataset, tiny.model_copy(update={"block_size": n_tokens - 1}), max_iters=2)
    assert training.metrics[-1]["step"] == 2


def test_a_missing_dataset_is_named(training, tiny, tmp_path):
    with pytest.raises(UserError, match="no dataset here"):
        training.run(tmp_path / "nowhere", tiny)
    assert not training.state.exists()


def test_a_seed_beyond_64_bits_is_refused_in_one_line(training, play, tiny):
    with pytest.raises(ValueError, match=r"\bseed\b"):
        training.run(play, tiny, max_iters=1, seed=2**64)


# --- torch.compile --------------------------------------------------------------------------


def test_compile_without_a_compiler_is_refused_with_advice(
    training, play, tiny, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError) as error:
        training.run(play, tiny, compile=True)
    assert "C++ compiler" in str(error.value)
    assert "set `compile: false`" in str(error.value)
    assert not training.results.exists()


def test_compile_without_a_compiler_is_refused_before_anything_is_written(
    training, play, tiny, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError):
        training.run(play, tiny, compile=True)
    assert not training.state.exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++")
def test_a_compiled_model_learns_the_same(
    training, another_training, play, tiny, monkeypatch, tmp_path
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    settings = {"max_iters": 10, "log_interval": 1, "keep": "last"}
    training.run(play, tiny, **settings)
    another_training.run(play, tiny, **settings, compile=True)
    assert any((tmp_path / "cache").iterdir())
    plain, compiled = without_times(training.metrics), without_times(another_training.metrics)
    for line, expected in zip(compiled, plain, strict=True):
        assert line == pytest.approx(expected, abs=1e-3)
    assert load_model(another_training.model_directory).model.settings == tiny


# --- Numbers that are large but finite ------------------------------------------------------


def test_a_ruined_model_can_still_be_evaluated(training, play, tiny, tmp_path):
    training.run(play, tiny, **CONSTANT, learning_rate=1e3, max_iters=1, keep="last")
    assert training.metrics[-1]["val_loss"] > 710
    settings = EvalSettings(eval_iters=2, device="cpu")
    result = evaluate("tiny", play, training.model_directory, settings, tmp_path / "eval.json")
    assert result.val.loss > 710
