"""A trie's probabilities match the definition, for single tokens and whole distributions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.ngram import trie as tries
from nanogpt.ngram.counts import count
from nanogpt.ngram.probabilities import fit
from nanogpt.ngram.trie import NO_NODE, build_trie
from tests.ngram.examples import make_tokens, slow_counts, small_texts
from tests.ngram.test_probabilities import slow_discount, slow_probability

EXACT = 2e-6  # terms of probabilities are stored as float32

small_models = given(
    n_tokens=st.integers(2, 150),
    vocab_size=st.integers(1, 12),
    max_order=st.integers(1, 9),
    seed=st.integers(0, 10_000),
)


def slow_held_back(train, max_order, before):
    """The share that the longest known context leaves to tokens never seen after it."""
    for order in range(min(max_order, len(before) + 1), 0, -1):
        counts = slow_counts(train, order, is_highest=order == max_order)
        context = tuple(before[len(before) - order + 1 :])
        follow = [count for gram, count in counts.items() if gram[:-1] == context]
        if follow:
            return sum(slow_discount(counts, count) for count in follow) / sum(follow)
    return 1.0


def contexts_after(trie, tokens):
    contexts = trie.empty_contexts(1)
    for token in tokens:
        contexts = trie.read(contexts, np.array([token], dtype=np.int64))
    return contexts


@settings(max_examples=25, deadline=None)
@small_models
def test_probabilities_match_the_definition(n_tokens, vocab_size, max_order, seed):
    train = make_tokens(n_tokens, vocab_size, seed)
    text = make_tokens(12, vocab_size, seed + 1)
    predictions = build_trie(count(train, vocab_size, max_order)).probabilities(text)
    train, text, order = train.tolist(), text.tolist(), min(max_order, n_tokens)
    expected = [slow_probability(train, vocab_size, order, text[:i], text[i]) for i in range(1, 12)]
    assert predictions.p == pytest.approx(expected, rel=EXACT)
    held_back = [slow_held_back(train, order, text[:i]) for i in range(1, 12)]
    assert predictions.held_back == pytest.approx(held_back, rel=EXACT)


@settings(max_examples=25, deadline=None)
@small_models
def test_tokens_before_a_window_can_be_hidden(n_tokens, vocab_size, max_order, seed):
    train = make_tokens(n_tokens, vocab_size, seed)
    text = make_tokens(13, vocab_size, seed + 1)
    trie = build_trie(count(train, vocab_size, max_order))
    width = 1 + seed % 5
    predictions = trie.probabilities(text, np.arange(12) % width + 1)
    windows = [trie.probabilities(text[i : i + width + 1]) for i in range(0, 12, width)]
    assert predictions.p == pytest.approx(np.concatenate([one.p for one in windows]))
    held_back = np.concatenate([one.held_back for one in windows])
    assert predictions.held_back == pytest.approx(held_back)


@settings(max_examples=50, deadline=None)
@small_models
def test_distributions_have_the_same_probabilities_and_sum_to_one(
    n_tokens, vocab_size, max_order, seed
):
    train = make_tokens(n_tokens, vocab_size, seed)
    trie = build_trie(count(train, vocab_size, max_order))
    texts = [train[-9:], train[: seed % 9], make_tokens(20, vocab_size, seed + 1)]
    contexts = np.concatenate([contexts_after(trie, text) for text in texts])
    together = trie.distributions(contexts)
    assert together.p.shape == (3, vocab_size)
    assert together.p.min() > 0
    assert together.p.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for row, text in enumerate(texts):
        # The first token isn't predicted, because an empty text has no context.
        for token in range(vocab_size):
            if len(text):
                one = trie.probabilities(np.append(text, np.uint16(token)))
                assert together.p[row, token] == pytest.approx(one.p[-1], rel=1e-5)
                assert together.held_back[row] == pytest.approx(one.held_back[-1])


@settings(max_examples=10, deadline=None)
@small_texts
def test_the_highest_order_equals_the_baselines(n_tokens, vocab_size, seed):
    train = make_tokens(n_tokens, vocab_size, seed)
    text = make_tokens(50, vocab_size, seed + 1)
    for order in range(1, min(6, n_tokens + 1)):
        p = build_trie(count(train, vocab_size, order)).probabilities(text).p
        assert p == pytest.approx(
            fit(train, vocab_size, order).probabilities(text)[-1, 1:], rel=EXACT
        )


def test_every_context_of_the_text_sums_to_one():
    train = make_tokens(400, 7, 3)
    trie = build_trie(count(train, 7, 4))
    contexts, seen = trie.empty_contexts(1), []
    for token in train:
        contexts = trie.read(contexts, np.array([token], dtype=np.int64))
        seen.append(contexts)
    p = trie.distributions(np.concatenate(seen)).p
    assert p.sum(axis=1) == pytest.approx(np.ones(400), abs=1e-5)


def test_unseen_contexts_have_no_node():
    trie = build_trie(count(np.array([0, 1, 0, 1, 0], dtype=np.uint16), 3, 3))
    contexts = contexts_after(trie, [0, 2])
    assert contexts.tolist() == [[0, NO_NODE, NO_NODE]]
    assert (contexts_after(trie, [2, 0, 1]) != NO_NODE).all()


@pytest.mark.parametrize("block", [1, 3, 64])
def test_the_block_size_of_lookups_changes_nothing(monkeypatch, block):
    trie = build_trie(count(make_tokens(400, 12, 0), 12, 5))
    text = make_tokens(150, 12, 1)
    n_before = np.arange(149) % 16 + 1
    expected = [trie.probabilities(text), trie.probabilities(text, n_before)]
    monkeypatch.setattr(tries, "BLOCK", block)
    for predictions, n in zip(expected, (None, n_before), strict=True):
        assert np.array_equal(trie.probabilities(text, n).p, predictions.p)


def test_a_large_vocabulary_has_the_baselines_probabilities():
    train, text = (make_tokens(n, 12, n).astype(np.uint32) * 10_000 for n in (3_000, 100))
    table = count(train, 120_001, 4)
    assert table.tokens.dtype == np.uint32
    trie = build_trie(table)
    expected = fit(train, 120_001, 4).probabilities(text)[-1, 1:]
    assert trie.probabilities(text).p == pytest.approx(expected, rel=EXACT)
    p = trie.distributions(contexts_after(trie, text[:50])).p[0]
    assert p[text[50]] == pytest.approx(expected[49], rel=1e-5)
    assert p.sum() == pytest.approx(1, abs=1e-4)
