"""Count n-grams, and estimate discounts from counts of counts.

An n-gram has two counts: how often it occurs, and how many different tokens precede it. The start
of the text counts as one of these.

Source: S. F. Chen and J. Goodman, "An empirical study of smoothing techniques for language
modeling", Computer Speech and Language 13 (1999), section 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.tokenizers import Tokens

# Used for D(1) to D(3) if counts of counts give no valid estimate, as in KenLM's
# --discount_fallback. That happens for characters, because nearly all of them are frequent.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class NgramCounts:
    """The n-grams of one length in a text. An n-gram's id is its key's index.

    keys: context's id * vocab_size + last token, sorted. The context is all tokens except the
    last. occurrences: how often each n-gram occurs. predecessors: how many different tokens precede
    it; None for the longest n-grams. n_contexts: the number of n-grams that are one token shorter.
    """

    keys: NDArray[np.int64]
    occurrences: NDArray[np.int64]
    predecessors: NDArray[np.int64] | None
    n_contexts: int


def count_ngrams(tokens: Tokens, vocab_size: int, max_order: int) -> Iterator[NgramCounts]:
    """Count the n-grams of 1 to max_order tokens, shortest first. tokens: (n_tokens,)."""
    ids = np.zeros(len(tokens) + 1, dtype=np.int64)  # of the n-grams of one length, in text order
    keys = occurrences = np.zeros(1, dtype=np.int64)  # the empty n-gram is the only one of length 0
    n_contexts = 0
    for order in range(1, max_order + 1):
        shorter, shorter_keys, shorter_occurrences = ids, keys, occurrences
        keys, ids, occurrences = np.unique(
            shorter[:-1] * vocab_size + tokens[order - 1 :], return_inverse=True, return_counts=True
        )
        if order > 1:
            yield NgramCounts(
                shorter_keys,
                shorter_occurrences,
                _predecessors(shorter, ids, len(shorter_keys), len(keys)),
                n_contexts,
            )
        n_contexts = len(shorter_keys)
    yield NgramCounts(keys, occurrences, None, n_contexts)


def _predecessors(
    shorter: NDArray[np.int64], ids: NDArray[np.int64], n_shorter: int, n_ngrams: int
) -> NDArray[np.int64]:
    """How many different tokens precede each n-gram, by its id: (n_shorter,).

    shorter, ids: the n-grams of this length, and those that are one token longer, in text order.
    """
    endings = np.empty(n_ngrams, dtype=np.int64)  # a longer n-gram without its first token, by id
    endings[ids] = shorter[1:]
    predecessors = np.bincount(endings, minlength=n_shorter)
    predecessors[shorter[:1]] += 1  # the start of the text
    return predecessors


def discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Estimate D(0) to D(3) of one order from its n-grams' counts: (4,)."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        estimated = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        # A negative discount is invalid, and zero would leave no probability for unseen tokens.
        if min(estimated) > 0:
            return np.array([0.0, *estimated])
    return np.array([0.0, *FALLBACK_DISCOUNTS])
