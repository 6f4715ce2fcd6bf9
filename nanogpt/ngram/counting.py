"""Counts of n-grams, and the discounts that follow from counts of counts.

Two counts of an n-gram matter: how often it occurs, and after how many different tokens, the text's
beginning being one.

Source: S. F. Chen and J. Goodman, "An empirical study of smoothing techniques for language
modeling", Computer Speech and Language 13 (1999), section 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.tokenizers import Tokens

# For D(1) to D(3) where counts of counts give none: as in KenLM's --discount_fallback. Characters
# need them, nearly all of which are frequent.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class NgramCounts:
    """The n-grams of one length in a text; an n-gram's id is its key's index.

    keys: id of the context, which is all tokens but the last, * vocab_size + last token; sorted.
    occurrences: how often each occurs. predecessors: after how many different tokens, which the
    n-grams that are one longer give; None for the longest. n_contexts: how many n-grams there are
    that are one shorter.
    """

    keys: NDArray[np.int64]
    occurrences: NDArray[np.int64]
    predecessors: NDArray[np.int64] | None
    n_contexts: int


def count_ngrams(tokens: Tokens, vocab_size: int, max_order: int) -> Iterator[NgramCounts]:
    """The n-grams of 1 to max_order tokens, shortest first, in tokens of shape (n_tokens,)."""
    ids = np.zeros(len(tokens) + 1, dtype=np.int64)  # of one length's n-grams, as the text has them
    keys = occurrences = np.zeros(1, dtype=np.int64)  # one n-gram has length 0: no token
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
    """After how many different tokens each n-gram occurs, by its id: (n_shorter,).

    shorter, ids: the n-grams of this length, and those that are one longer, as the text has them.
    """
    endings = np.empty(n_ngrams, dtype=np.int64)  # what follows the first token, by n-gram's id
    endings[ids] = shorter[1:]
    predecessors = np.bincount(endings, minlength=n_shorter)
    predecessors[shorter[:1]] += 1  # the text's beginning
    return predecessors


def discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """D(0) to D(3) of one order, estimated from its n-grams' counts: (4,)."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        estimated = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        # Below zero there is no discount, and zero leaves nothing for tokens that weren't seen.
        if min(estimated) > 0:
            return np.array([0.0, *estimated])
    return np.array([0.0, *FALLBACK_DISCOUNTS])
