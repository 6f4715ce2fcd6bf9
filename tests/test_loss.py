"""The loss over windows is that of a slow loop by hand, and tokens add up to their text."""

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt import manifest
from nanogpt.config import EvalSettings, ModelSettings
from nanogpt.loss import (
    n_full_windows,
    predictions,
    token_characters,
    token_nats,
    token_texts,
    window_starts,
    windows_loss,
)
from nanogpt.model import GPT
from nanogpt.tokenizer import ByteTokenizer, char_tokenizer, train_byte_pairs

ROOT = Path(__file__).resolve().parent.parent
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
def log_probabilities(model, context):
    """What a model gives each token, (V,), after the ids of a context."""
    logits = model.eval()(torch.tensor([[int(id_) for id_ in context]]))[0, -1]
    return logits.double().log_softmax(-1).numpy()


def slow_nats(model, tokens):
    """The nats of all tokens but the first, each after what its window holds before it."""
    return [
        -log_probabilities(model, tokens[(i - 1) // BLOCK * BLOCK : i])[int(tokens[i])]
        for i in range(1, len(tokens))
    ]


def slow_loss(model, tokens):
    return sum(slow_nats(model, tokens))


MODEL = make_model(11)


# --- The loss over windows ------------------------------------------------------------------


def test_the_loss_over_some_windows_is_theirs_alone():
    tokens = make_tokens(200, 11)
    starts = np.array([16, 96, 176])
    loss = windows_loss(MODEL, tokens, starts, SETTINGS)
    expected = sum(slow_loss(MODEL, tokens[start : start + BLOCK + 1]) for start in starts)
    assert loss.nats == pytest.approx(expected, rel=1e-5)
    assert loss.n_tokens == 3 * BLOCK
    assert loss.mean == pytest.approx(expected / 48, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_the_batch_size_does_not_change_the_loss(batch_size):
    tokens = make_tokens(501, 11)
    starts = np.arange(0, 480, 7)
    expected = windows_loss(MODEL, tokens, starts, SETTINGS)
    other = SETTINGS.model_copy(update={"batch_size": batch_size})
    found = windows_loss(MODEL, tokens, starts, other)
    assert found.mean == pytest.approx(expected.mean, abs=1e-6)
    assert found.n_tokens == expected.n_tokens


def test_the_loss_is_without_dropout_and_leaves_the_model_as_it_was():
    model = make_model(11, dropout=0.5)
    tokens = make_tokens(100, 11)
    starts = np.array([0, 30, 60])
    expected = windows_loss(MODEL, tokens, starts, SETTINGS)
    for training in (True, False):
        model.train(training)
        assert windows_loss(model, tokens, starts, SETTINGS) == expected
        assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bfloat16_is_near_float32_and_not_the_same():
    tokens = make_tokens(300, 11)
    starts = np.arange(0, 280, BLOCK)
    exact = windows_loss(MODEL, tokens, starts, SETTINGS).mean
    rounded = SETTINGS.model_copy(update={"dtype": "bfloat16"})
    loss = windows_loss(MODEL, tokens, starts, rounded).mean
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.02)


def test_the_nats_are_added_in_float64():
    tokens = make_tokens(5000, 11)
    starts = np.arange(0, 4900, 3)
    batches = predictions(MODEL, tokens, starts, SETTINGS)
    nats = [token_nats(logits, targets).flatten().tolist() for targets, logits in batches]
    expected = math.fsum(itertools.chain(*nats))
    assert windows_loss(MODEL, tokens, starts, SETTINGS).nats == pytest.approx(expected, rel=1e-13)


def test_predictions_are_those_of_the_asked_windows_and_length():
    tokens = make_tokens(100, 11)
    (first, second) = predictions(MODEL, tokens, np.array([0, 7, 9, 11, 90]), SETTINGS, 5)
    targets, logits = second
    assert targets.tolist() == [tokens[91:96].tolist()]
    assert first[0].shape == (4, 5)
    assert first[1].shape == (4, 5, 11)
    expected = log_probabilities(MODEL, tokens[90:93])
    assert logits[0, 2].log_softmax(-1).numpy() == pytest.approx(expected, abs=1e-4)


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


# --- What tokens are in text ----------------------------------------------------------------

SEEN = "so foul and fair a day I have not seen. Ñandú, 日本語 🎭🎭 123 456\n" * 3
BYTE_PAIRS = train_byte_pairs([SEEN], 300, threads=1)


@given(text=st.text())
def test_the_characters_of_a_texts_tokens_add_up_to_the_text(text):
    for tokenizer in (ByteTokenizer(), BYTE_PAIRS, char_tokenizer(text)):
        counts = token_characters(tokenizer)
        assert counts.shape == (tokenizer.vocab_size,)
        assert counts[tokenizer.encode(text)].sum() == len(text)


def test_characters_are_counted_where_they_begin():
    counts = token_characters(ByteTokenizer())
    assert counts["é".encode()[0]] == 1
    assert counts["é".encode()[1]] == 0
    assert counts.tolist() == [1] * 0x80 + [0] * 0x40 + [1] * 0x40


def test_the_end_of_a_text_has_neither_characters_nor_text():
    end = BYTE_PAIRS.end_of_document("\n")[0]
    assert token_characters(BYTE_PAIRS)[end] == 0
    assert token_texts(BYTE_PAIRS)[end] == b""


def test_the_texts_of_tokens_are_those_that_they_decode_to():
    for tokenizer in (ByteTokenizer(), BYTE_PAIRS, char_tokenizer(SEEN)):
        texts = token_texts(tokenizer)
        assert b"".join(texts[id_] for id_ in tokenizer.encode(SEEN)) == SEEN.encode()
        some = range(0, tokenizer.vocab_size - 1, 7)
        assert [texts[id_] for id_ in some] == [tokenizer.to_bytes([id_]) for id_ in some]


# --- Who depends on what --------------------------------------------------------------------


@pytest.fixture
def digests_after(tmp_path, monkeypatch):
    """A function: which stages' digests an edit of a module's code changes."""
    package = tmp_path / "nanogpt"
    shutil.copytree(ROOT / "nanogpt", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(manifest, "PACKAGE", package)
    scripts = ROOT / "workflow" / "scripts"

    def digests():
        names = ("prepare", "train", "eval", "sample")
        return {name: manifest.code_digest(scripts / f"{name}.py") for name in names}

    def changed(module):
        before = digests()
        with open(package / f"{module}.py", "a") as file:
            file.write("\nassert True\n")
        return {name for name, digest in digests().items() if digest != before[name]}

    return changed


def test_an_edit_of_evaluation_trains_nothing_again(digests_after):
    assert digests_after("evaluate") == {"eval"}


def test_an_edit_of_the_loss_trains_again_and_samples_only_what_that_changes(digests_after):
    assert digests_after("loss") == {"train", "eval"}
