"""Copied n-grams agree with a search by Python sets."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.data.batches import load
from nanogpt.evaluation import copying as copying_module
from nanogpt.evaluation.copying import COPYING, NGRAMS, copied_shares, measure_copying
from nanogpt.inference.engine import Engine, Prompt, continuations
from nanogpt.model.losses import window_starts
from tests.model.slow_losses import (
    SETTINGS,
    make_model,
    make_tokens,
)


def naive_share(text, tokens, n):
    """Return the share of the rows' n-grams that occur in a list of tokens."""
    there = {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
    sought = [tuple(row[i : i + n]) for row in text.tolist() for i in range(len(row) - n + 1)]
    return sum(gram in there for gram in sought) / len(sought) if sought else None


def by_length(shares):
    """Return the shares by n-gram length; None for NaN."""
    found = {8: shares.of_8, 16: shares.of_16, 32: shares.of_32}
    return {n: None if math.isnan(share) else share for n, share in found.items()}


def mapped(directory, dtype):
    return np.memmap(directory / "train.bin", dtype, mode="r")


def found_shares(text, tokens, tmp_path, vocab_size, dtype):
    array = np.array(tokens, dtype=dtype)
    array.tofile(tmp_path / "train.bin")
    shares = copied_shares([text], mapped(tmp_path, array.dtype), vocab_size)
    return by_length(shares[0])


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_tokens=st.integers(1, 300),
    vocab_size=st.sampled_from([1, 2, 3, 70_000]),
    width=st.integers(0, 70),
    at_once=st.sampled_from([1, 13, 100, 1 << 16]),
)
def test_found_n_grams_agree_with_a_search_by_sets(
    directory, seed, n_tokens, vocab_size, width, at_once
):
    random = np.random.default_rng(seed)
    tokens = random.integers(vocab_size, size=n_tokens).tolist()
    # Each row is half copied from a random place and half random.
    rows = random.integers(vocab_size, size=(3, width))
    for row in rows:
        n_copied = int(random.integers(min(width, n_tokens) + 1))
        source, place = (
            random.integers(n_tokens - n_copied + 1),
            random.integers(width - n_copied + 1),
        )
        row[place : place + n_copied] = tokens[source : source + n_copied]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying_module, "SEARCHED_AT_ONCE", at_once)
        dtype = np.uint16 if vocab_size <= 0xFFFF else np.uint32
        found = found_shares(rows, tokens, directory, vocab_size, dtype)
    assert found == {n: naive_share(rows, tokens, n) for n in NGRAMS}


def test_a_large_file_is_searched_in_little_memory(tmp_path):
    tokens = make_tokens(2_000_000, 1000)
    tokens.tofile(tmp_path / "train.bin")
    text = tokens[None, -200:].astype(int)
    tracemalloc.start()
    shares = copied_shares([text], mapped(tmp_path, tokens.dtype), 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [by_length(found) for found in shares] == [{8: 1.0, 16: 1.0, 32: 1.0}]
    assert peak < 6e6  # all hashes together would take 16 MB


def test_each_of_several_texts_gets_its_own_share(tmp_path):
    tokens = make_tokens(1000, 50)
    tokens.tofile(tmp_path / "train.bin")
    copied, other = tokens[None, 100:200].astype(int), make_tokens(100, 50, seed=1)[None]
    both = np.concatenate([copied[:, :60], other[:, :60]], axis=1)
    shares = copied_shares([copied, other, both], mapped(tmp_path, tokens.dtype), 50)
    assert by_length(shares[0]) == {8: 1.0, 16: 1.0, 32: 1.0}
    assert by_length(shares[1]) == {8: 0.0, 16: 0.0, 32: 0.0}
    assert shares[2].of_32 == (60 - 31) / (120 - 31)


def test_copying_is_measured_on_continuations_of_validation_prompts(play):
    model, files = make_model(load(play).tokenizer.vocab_size), load(play)
    copying = measure_copying(model, files.train, files.val, SETTINGS)
    starts = window_starts(len(files.val), 16 + 128, 32)
    val = files.val.astype(np.int64)
    prompts = [val[start : start + 16].tolist() for start in starts]
    assert len(prompts) == 32
    sampling = COPYING.model_copy(update={"device": "cpu", "dtype": "float32"})
    seeded = [sampling.model_copy(update={"seed": 1337 + n}) for n in range(32)]
    written = np.array(continuations(Engine(model, sampling), list(map(Prompt, prompts, seeded))))
    train = files.train.tolist()
    assert copying.n_tokens == 32 * 128
    assert copying.of_8 == naive_share(written, train, 8)
    reference = np.stack([val[start + 16 : start + 144] for start in starts])
    assert copying.reference.n_tokens == 32 * 128
    assert by_length(copying.reference) == {n: naive_share(reference, train, n) for n in NGRAMS}
    assert copying.reference.of_8 > copying.of_8  # the model is not trained
