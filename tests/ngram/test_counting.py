"""N-gram counts and discounts match their definitions."""

import numpy as np
import pytest
from hypothesis import settings

from nanogpt.ngram.counting import count_ngrams, discounts
from nanogpt.ngram.probabilities import MAX_ORDER
from tests.ngram.examples import ORDERS, make_tokens, slow_counts, small_texts


@settings(max_examples=25, deadline=None)
@small_texts
def test_counts_match_the_definition(n_tokens, vocab_size, seed):
    train = make_tokens(n_tokens, vocab_size, seed)
    for order, counts in zip(ORDERS, count_ngrams(train, vocab_size, MAX_ORDER), strict=True):
        occurrences = slow_counts(train.tolist(), order, is_highest=True)
        assert sorted(counts.occurrences.tolist()) == sorted(occurrences.values())
        if order == MAX_ORDER:
            assert counts.predecessors is None
        else:
            predecessors = slow_counts(train.tolist(), order, is_highest=False)
            assert sorted(counts.predecessors.tolist()) == sorted(predecessors.values())


def test_discounts_match_chen_and_goodman():
    counts = np.repeat([1, 2, 3, 4, 5, 900], [100, 40, 20, 12, 7, 1])
    y = 100 / (100 + 2 * 40)
    expected = [0, 1 - 2 * y * 40 / 100, 2 - 3 * y * 20 / 40, 3 - 4 * y * 12 / 20]
    assert discounts(counts) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "counts",
    [
        [],
        [7, 8, 9],
        [1, 1, 1, 1],  # all different
        [1] * 4 + [2] + [3] * 10,  # D(2) below zero
        [1, 2, 3, 3],  # D(2) zero
    ],
)
def test_discounts_have_a_fallback_without_an_estimate(counts):
    found = discounts(np.array(counts, dtype=np.int64))
    assert found[0] == 0
    assert (found[1:] > 0).all()
    assert (found[1:] <= [1, 2, 3]).all()
