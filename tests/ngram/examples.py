"""Made-up texts and slow n-gram counts for tests of n-gram models."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.ngram.probabilities import MAX_ORDER

ORDERS = range(1, MAX_ORDER + 1)

small_texts = given(
    n_tokens=st.integers(2, 150), vocab_size=st.integers(1, 12), seed=st.integers(0, 10_000)
)


def make_tokens(n_tokens, vocab_size, seed):
    """Random tokens: some frequent, some rare, and the last one of the vocabulary often missing."""
    random = np.random.default_rng(seed)
    share = 1 / np.arange(1, vocab_size + 1) ** 1.5
    return random.choice(vocab_size, size=n_tokens, p=share / share.sum()).astype(np.uint16)


def slow_counts(train, order, is_highest):
    """How often each n-gram occurs, or how many different tokens (or the start) precede it."""
    before = {}
    for i in range(len(train) - order + 1):
        gram = tuple(train[i : i + order])
        before.setdefault(gram, []).append(train[i - 1] if i else "beginning")
    return {gram: len(b) if is_highest else len(set(b)) for gram, b in before.items()}
