"""N-gram models match their definition."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import settings

from nanogpt.ngram import probabilities
from nanogpt.ngram.probabilities import MAX_ORDER, fit
from tests.ngram.examples import ORDERS, make_tokens, slow_counts, small_texts


def slow_discount(counts, count):
    n = Counter(counts.values())
    by_count = [0.5, 1.0, 1.5]
    if n[1] and n[2] and n[3]:
        y = n[1] / (n[1] + 2 * n[2])
        estimated = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        if all(discount > 0 for discount in estimated):
            by_count = estimated
    return by_count[min(count, 3) - 1]


def slow_probability(train, vocab_size, order, before, token, is_highest=True):
    """The probability of a token given all before it, in the model of an order."""
    if order == 0:
        return 1 / vocab_size
    lower = slow_probability(train, vocab_size, order - 1, before, token, is_highest=False)
    if len(before) < order - 1:
        return lower
    counts = slow_counts(train, order, is_highest)
    context = tuple(before[len(before) - order + 1 :])
    follow = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == context}
    if not follow:
        return lower
    discount = {w: slow_discount(counts, count) for w, count in follow.items()}
    seen = follow[token] - discount[token] if token in follow else 0
    return (seen + sum(discount.values()) * lower) / sum(follow.values())


@settings(max_examples=25, deadline=None)
@small_texts
def test_probabilities_match_the_definition(n_tokens, vocab_size, seed):
    train = make_tokens(n_tokens, vocab_size, seed)
    text = make_tokens(12, vocab_size, seed + 1)
    p = fit(train, vocab_size).probabilities(text)
    assert p.shape == (MAX_ORDER, 12)
    train, text = train.tolist(), text.tolist()
    for order in ORDERS:
        expected = [
            slow_probability(train, vocab_size, order, text[:i], text[i]) for i in range(12)
        ]
        assert p[order - 1] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=100, deadline=None)
@small_texts
def test_probabilities_sum_to_one_after_any_context(n_tokens, vocab_size, seed):
    train = make_tokens(n_tokens, vocab_size, seed)
    models = fit(train, vocab_size)
    random = np.random.default_rng(seed)
    contexts = [
        train[n_tokens - 6 :],  # its last tokens, which may occur nowhere else
        train[: seed % 6],
        random.integers(vocab_size, size=seed % 7).astype(np.uint16),
    ]
    for context in contexts:
        p = np.array(
            [
                models.probabilities(np.append(context, np.uint16(token)))[:, -1]
                for token in range(vocab_size)
            ]
        )
        assert p.min() > 0
        assert p.sum(axis=0) == pytest.approx(np.ones(MAX_ORDER), abs=1e-12)


@pytest.mark.parametrize("train", [[0, 0], [1, 0], [0, 1, 1], [1] * 50, [0, 1] * 50])
def test_short_or_constant_texts_leave_probability_for_all_tokens(train):
    models = fit(np.array(train, dtype=np.uint16), 3)
    for text in ([2, 2, 2], [0, 1, 2, 0, 1, 2], [*train[:8], 2]):
        p = models.probabilities(np.array(text, dtype=np.uint16))
        assert p.min() > 0
        assert p.max() <= 1


def test_keys_larger_than_32_bits_are_distinguished():
    train = make_tokens(30_000, 12, 0)
    few = fit(train, 12)
    many = fit(train.astype(np.uint32) * 250_000, 3_000_000)
    assert many.orders[-1].keys[-2] > 1 << 32
    for one, other in zip(few.orders, many.orders, strict=True):
        assert len(one.keys) == len(other.keys)


@pytest.mark.parametrize("block", [1, 3, 5, 64, 1000])
def test_each_token_except_the_first_is_measured_once_for_any_block_size(monkeypatch, block):
    models = fit(make_tokens(400, 12, 0), 12)
    text = make_tokens(150, 12, 1)
    expected = -np.log(models.probabilities(text)[:, 1:]).sum(axis=1)
    monkeypatch.setattr(probabilities, "BLOCK", block)
    assert models.nats(text) == pytest.approx(expected, rel=1e-12)
