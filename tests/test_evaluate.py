"""Evaluation predicts every token once, and its numbers are those of a slow loop by hand."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt import playwright
from nanogpt.checkpoint import save_model
from nanogpt.config import EvalSettings, ModelSettings, UserError
from nanogpt.dataset import load
from nanogpt.evaluate import (
    evaluate,
    n_full_windows,
    nanogpt_estimate,
    whole_split_loss,
    window_starts,
    windows_loss,
)
from nanogpt.model import GPT
from nanogpt.tokenizer import char_tokenizer

SETTINGS = EvalSettings(batch_size=4, eval_iters=3, seed=1337, device="cpu", dtype="float32")
BLOCK = 16


def make_model(vocab_size, seed=0, scale=5.0, **changes):
    """A model of block size 16 that is sure of itself, so that each token's loss is its own."""
    small = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": BLOCK, "dropout": 0.0}
    torch.manual_seed(seed)
    model = GPT(ModelSettings(**small | changes), vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
    return model


def make_tokens(n_tokens, vocab_size, seed=0):
    return np.random.default_rng(seed).integers(vocab_size, size=n_tokens).astype(np.uint16)


@torch.no_grad()
def surprise(model, context, token):
    """The nats that a token costs after the ids of a context."""
    logits = model.eval()(torch.tensor([[int(id_) for id_ in context]]))[0, -1]
    return -logits.double().log_softmax(-1)[int(token)].item()


def slow_loss(model, tokens):
    """The summed nats of all tokens but the first, each after what its window holds before it."""
    nats = 0.0
    for i in range(1, len(tokens)):
        window = (i - 1) // BLOCK * BLOCK
        nats += surprise(model, tokens[window:i], tokens[i])
    return nats


MODEL = make_model(11)
BYTES = np.array([1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3])


@settings(max_examples=40, deadline=None)
@given(n_tokens=st.integers(2, 70), seed=st.integers(0, 1000), batch_size=st.integers(1, 6))
def test_each_token_but_the_first_is_predicted_exactly_once(n_tokens, seed, batch_size):
    tokens = make_tokens(n_tokens, 11, seed)
    loss = whole_split_loss(
        MODEL, tokens, BYTES, SETTINGS.model_copy(update={"batch_size": batch_size})
    )
    assert loss.n_tokens == n_tokens - 1
    assert loss.n_bytes == sum(BYTES[id_] for id_ in tokens[1:].tolist())
    assert loss.nats == pytest.approx(slow_loss(MODEL, tokens), rel=1e-5)
    assert loss.mean == pytest.approx(loss.nats / (n_tokens - 1), rel=1e-12)


@pytest.mark.parametrize("n_tokens", [2, 16, 17, 18, 32, 33, 34, 48, 49, 50])
def test_splits_around_whole_windows_are_read_to_their_end(n_tokens):
    tokens = make_tokens(n_tokens, 11)
    loss = whole_split_loss(MODEL, tokens, BYTES, SETTINGS)
    assert loss.n_tokens == n_tokens - 1
    assert loss.nats == pytest.approx(slow_loss(MODEL, tokens), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_the_batch_size_does_not_change_the_loss(batch_size):
    tokens = make_tokens(501, 11)
    expected = whole_split_loss(MODEL, tokens, BYTES, SETTINGS)
    other = SETTINGS.model_copy(update={"batch_size": batch_size})
    found = whole_split_loss(MODEL, tokens, BYTES, other)
    assert found.mean == pytest.approx(expected.mean, abs=1e-6)
    assert (found.n_tokens, found.n_bytes) == (expected.n_tokens, expected.n_bytes)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary():
    model = make_model(11, scale=0.0)
    loss = whole_split_loss(model, make_tokens(300, 11), np.ones(11, dtype=int), SETTINGS)
    assert loss.mean == pytest.approx(math.log(11), rel=1e-7)
    summary = loss.summary()
    assert summary["perplexity"] == pytest.approx(11, rel=1e-6)
    assert summary["bits_per_byte"] == pytest.approx(math.log2(11), rel=1e-6)


def test_the_loss_is_without_dropout_and_leaves_the_model_as_it_was():
    model = make_model(11, dropout=0.5)
    tokens = make_tokens(100, 11)
    expected = whole_split_loss(MODEL, tokens, BYTES, SETTINGS)
    for training in (True, False):
        model.train(training)
        assert whole_split_loss(model, tokens, BYTES, SETTINGS) == expected
        assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bfloat16_is_near_float32_and_not_the_same():
    tokens = make_tokens(300, 11)
    exact = whole_split_loss(MODEL, tokens, BYTES, SETTINGS).mean
    rounded = SETTINGS.model_copy(update={"dtype": "bfloat16"})
    loss = whole_split_loss(MODEL, tokens, BYTES, rounded).mean
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.02)


# --- Windows spread over a split ------------------------------------------------------------


@given(n_tokens=st.integers(2, 5000), block_size=st.integers(1, 64), n_windows=st.integers(1, 400))
def test_windows_are_spread_evenly_without_overlap(n_tokens, block_size, n_windows):
    starts = window_starts(n_tokens, block_size, n_windows)
    full = n_full_windows(n_tokens, block_size)
    assert full * block_size < n_tokens <= (full + 1) * block_size + 1
    assert len(starts) == min(n_windows, full)
    if not len(starts):
        return
    assert (starts % block_size == 0).all()
    assert starts[0] == 0
    assert starts[-1] + block_size < n_tokens  # the last target exists
    gaps = np.diff(starts) // block_size
    if len(gaps):
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1
        assert starts[-1] == (full - 1) * block_size


def test_the_loss_over_some_windows_is_theirs_alone():
    tokens = make_tokens(200, 11)
    starts = np.array([16, 96, 176])
    loss = windows_loss(MODEL, tokens, starts, SETTINGS, token_bytes=BYTES)
    expected = sum(slow_loss(MODEL, tokens[start : start + BLOCK + 1]) for start in starts)
    assert loss.nats == pytest.approx(expected, rel=1e-5)
    assert loss.n_tokens == 3 * BLOCK


# --- nanoGPT's estimate ---------------------------------------------------------------------


def test_nanogpts_estimate_is_a_function_of_its_seed():
    tokens = make_tokens(400, 11)
    first = nanogpt_estimate(MODEL, tokens, SETTINGS)
    torch.rand(3)
    assert nanogpt_estimate(MODEL, tokens, SETTINGS) == first
    assert nanogpt_estimate(MODEL, tokens, SETTINGS.model_copy(update={"seed": 1})) != first


def test_nanogpts_estimate_comes_near_the_mean_over_all_windows():
    tokens = make_tokens(60, 11)
    every = windows_loss(MODEL, tokens, np.arange(60 - BLOCK), SETTINGS).mean
    many = SETTINGS.model_copy(update={"eval_iters": 500, "batch_size": 8})
    assert nanogpt_estimate(MODEL, tokens, many) == pytest.approx(every, rel=0.02)


def test_nanogpts_estimate_reads_a_split_of_one_window():
    tokens = make_tokens(BLOCK + 1, 11)
    expected = slow_loss(MODEL, tokens) / BLOCK
    assert nanogpt_estimate(MODEL, tokens, SETTINGS) == pytest.approx(expected, rel=1e-5)


# --- eval.json ------------------------------------------------------------------------------


def save(directory, dataset, seed=0, **changes):
    """A model directory for a dataset, with random weights; returns the model."""
    tokenizer = load(dataset).tokenizer
    model = make_model(tokenizer.vocab_size, seed, **changes)
    save_model(directory, model.state_dict(), model.settings, tokenizer)
    return model


@pytest.fixture(scope="module")
def scene(write_dataset):
    """A dataset of the first 12,000 characters of a play."""
    return write_dataset(playwright.write(12_000, seed=1), builtin=True)


@pytest.fixture(scope="module")
def evaluated(scene, tmp_path_factory):
    """(model, what evaluate returns, path of eval.json) of a random model of the scene."""
    root = tmp_path_factory.mktemp("evaluated")
    model = save(root / "model", scene)
    path = root / "results" / "eval.json"
    return model, evaluate("someone", scene, root / "model", SETTINGS, path), path


def test_eval_json_has_the_documented_keys_and_is_what_is_returned(evaluated, scene):
    _, result, path = evaluated
    assert json.loads(path.read_text()) == result
    keys = {"run", "dataset", "val", "train", "nanogpt_estimate", "model", "source"}
    assert result.keys() == keys
    split = {"loss", "perplexity", "bits_per_byte", "n_tokens", "n_bytes"}
    assert result["val"].keys() == split
    assert result["train"].keys() == split | {"n_windows"}
    assert result["nanogpt_estimate"].keys() == {"train", "val", "eval_iters", "batch_size"}
    assert result["run"] == "someone"
    assert result["dataset"] == scene.name


def test_eval_json_says_what_was_evaluated(evaluated):
    model, result, _ = evaluated
    assert result["model"] == {
        "n_parameters": model.n_parameters(),
        "vocab_size": model.vocab_size,
        **model.settings.model_dump(),
    }
    assert result["nanogpt_estimate"]["eval_iters"] == 3
    assert result["nanogpt_estimate"]["batch_size"] == 4


def test_the_whole_validation_split_is_evaluated(evaluated, scene):
    model, result, _ = evaluated
    tokens = load(scene).val
    val = result["val"]
    assert val["n_tokens"] == val["n_bytes"] == len(tokens) - 1 == 1199  # the play is ASCII
    assert val["loss"] == pytest.approx(slow_loss(model, tokens) / 1199, rel=1e-5)
    assert val["perplexity"] == pytest.approx(math.exp(val["loss"]), rel=1e-12)
    assert val["bits_per_byte"] == pytest.approx(val["loss"] / math.log(2), rel=1e-12)


def test_of_the_training_split_as_many_windows_are_read_as_the_validation_split_has(
    evaluated, scene
):
    model, result, _ = evaluated
    files = load(scene)
    n_windows = (len(files.val) - 1) // BLOCK
    assert result["train"]["n_windows"] == n_windows
    assert result["train"]["n_tokens"] == n_windows * BLOCK
    n_train = (len(files.train) - 1) // BLOCK
    chosen = [round(i * (n_train - 1) / (n_windows - 1)) for i in range(n_windows)]
    nats = [slow_loss(model, files.train[BLOCK * w : BLOCK * (w + 1) + 1]) for w in chosen[:40]]
    starts = np.array(chosen[:40]) * BLOCK
    assert windows_loss(model, files.train, starts, SETTINGS).nats == pytest.approx(sum(nats))
    every = windows_loss(model, files.train, np.array(chosen) * BLOCK, SETTINGS)
    assert result["train"]["loss"] == pytest.approx(every.mean, rel=1e-9)


def test_nanogpts_estimates_stand_beside_the_exact_losses(evaluated, scene):
    model, result, _ = evaluated
    files = load(scene)
    for split, tokens in (("train", files.train), ("val", files.val)):
        expected = nanogpt_estimate(model, tokens, SETTINGS)
        assert result["nanogpt_estimate"][split] == expected
        assert expected != result[split]["loss"]
        assert expected == pytest.approx(result[split]["loss"], rel=0.2)


def test_the_excess_over_the_source_is_what_the_model_loses_beyond_the_plays_own_surprise(
    evaluated,
):
    _, result, _ = evaluated
    bits = playwright.surprisal(playwright.write(12_000, seed=1))
    entropy = bits[10_801:].sum() / 1199
    source = result["source"]
    assert source["bits_per_byte"] == pytest.approx(entropy, rel=1e-9)
    excess = result["val"]["bits_per_byte"] - entropy
    assert source["excess_bits_per_byte"] == pytest.approx(excess, rel=1e-9)
    assert source["excess_percent"] == pytest.approx(100 * excess / entropy, rel=1e-9)


def test_a_text_of_unknown_source_has_no_excess(write_dataset, tmp_path):
    dataset = write_dataset("so foul and fair a day I have not seen. " * 10)
    save(tmp_path / "model", dataset)
    result = evaluate("someone", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert "source" not in result


def test_bits_per_byte_count_the_bytes_of_the_predicted_characters(write_dataset, tmp_path):
    text = "añb日c🎭d" * 60  # characters of 1, 2, 3 and 4 bytes
    dataset = write_dataset(text)
    model = save(tmp_path / "model", dataset)
    result = evaluate("someone", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    predicted = text[int(len(text) * 0.9) :][1:]
    val = result["val"]
    assert val["n_tokens"] == len(predicted)
    assert val["n_bytes"] == len(predicted.encode("utf-8")) > len(predicted)
    nats = slow_loss(model, load(dataset).val)
    bits_per_byte = nats / math.log(2) / len(predicted.encode("utf-8"))
    assert val["bits_per_byte"] == pytest.approx(bits_per_byte, rel=1e-5)


def test_the_same_evaluation_gives_the_same_bytes(evaluated, scene, tmp_path):
    _, _, path = evaluated
    save(tmp_path / "model", scene)
    evaluate("someone", scene, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert (tmp_path / "eval.json").read_bytes() == path.read_bytes()


# --- What goes wrong ------------------------------------------------------------------------


def refusal(dataset, model_directory, tmp_path):
    with pytest.raises(UserError) as error:
        evaluate("someone", dataset, model_directory, SETTINGS, tmp_path / "eval.json")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "eval.json").exists()
    return str(error.value)


def test_a_model_of_another_vocabulary_is_refused(play, tmp_path):
    letters = "".join(map(chr, range(256, 256 + load(play).tokenizer.vocab_size)))
    model = make_model(len(letters))
    save_model(tmp_path / "model", model.state_dict(), model.settings, char_tokenizer(letters))
    message = refusal(play, tmp_path / "model", tmp_path)
    assert "another vocabulary" in message
    assert str(tmp_path / "model") in message
    assert str(play) in message


def test_a_split_shorter_than_a_window_is_refused(write_dataset, tmp_path):
    dataset = write_dataset("so foul and fair a day " * 5)
    save(tmp_path / "model", dataset)
    message = refusal(dataset, tmp_path / "model", tmp_path)
    assert dataset.name in message
    assert "block_size 16" in message


def test_a_missing_model_is_named(play, tmp_path):
    assert str(tmp_path / "nowhere") in refusal(play, tmp_path / "nowhere", tmp_path)
