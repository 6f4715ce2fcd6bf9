"""N-gram models: interpolated modified Kneser-Ney models of orders 1 to 5.

Each order interpolates with the next lower one, and order 1 with the uniform distribution:

    p_k(w | h) = (c(hw) - D(c(hw))) / c(h) + g(h) p_k-1(w | h')    g(h) = sum_v D(c(hv)) / c(h)

h: the k-1 tokens before w; h': h without its first token; c(h): sum_v c(hv). In a model's highest
order, c(hw) is how often hw occurs; in lower orders, it's how many different tokens precede hw. D
has separate discounts for counts of 0 (always zero), 1, 2, and 3 or more. If h doesn't occur in the
training split, p_k is p_k-1.

Source: S. F. Chen and J. Goodman, "An empirical study of smoothing techniques for language
modeling", Computer Speech and Language 13 (1999), section 3.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.shards import SplitTokens
from nanogpt.data.tokenizers import Tokens
from nanogpt.ngram.counting import NgramCounts, count_ngrams, discounts

MAX_ORDER = 5
BLOCK = 1 << 20  # tokens that are looked up at a time

NOT_SEEN = -1  # the id of unseen n-grams; it indexes the last element of arrays
NO_KEY = np.iinfo(np.int64).max  # their key, larger than all others


@dataclass(frozen=True)
class Discounted:
    """The two terms of one order's probabilities.

    seen: (c(hw) - D(c(hw))) / c(h), by the id of hw. backoff: g(h), by the id of h.
    """

    seen: NDArray[np.float64]
    backoff: NDArray[np.float64]

    def interpolate(
        self,
        ids: NDArray[np.int64],
        contexts: NDArray[np.int64],
        lower: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """p_k of tokens, (n_tokens,), given the ids of hw and h, and p_k-1."""
        p: NDArray[np.float64] = self.seen[ids] + self.backoff[contexts] * lower
        return p


@dataclass(frozen=True)
class Order:
    """The n-grams of one length. An n-gram's id is its key's index.

    keys: those of NgramCounts, then NO_KEY. highest: for use as a model's highest order. lower: for
    use below a higher order; None if there isn't one.
    """

    keys: NDArray[np.int64]
    highest: Discounted
    lower: Discounted | None

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids of n-grams, NOT_SEEN for unseen ones."""
        ids = np.searchsorted(self.keys, keys)
        ids[self.keys[ids] != keys] = NOT_SEEN
        return ids


@dataclass(frozen=True)
class NgramModels:
    """Models of orders 1, 2, ... that share their lower orders."""

    vocab_size: int
    orders: tuple[Order, ...]

    def probabilities(self, tokens: Tokens) -> NDArray[np.float64]:
        """Each token's probability given those before it, (n_orders, n_tokens).

        The first tokens have shorter contexts, because contexts don't start before `tokens`.
        """
        p = np.empty((len(self.orders), len(tokens)))
        contexts = np.zeros(len(tokens), dtype=np.int64)  # order 1 has only the empty context
        lower = np.full(len(tokens), 1 / self.vocab_size)
        for row, order in enumerate(self.orders):
            # After an unseen context the key is negative, which no n-gram's key is.
            ids = order.find(contexts * self.vocab_size + tokens)
            p[row] = order.highest.interpolate(ids, contexts, lower)
            if order.lower:
                lower = order.lower.interpolate(ids, contexts, lower)
            contexts = np.append(NOT_SEEN, ids[:-1])
        return p

    def nats(self, tokens: SplitTokens) -> NDArray[np.float64]:
        """The total surprisal of all tokens except the first in nats, (n_orders,)."""
        total = np.zeros(len(self.orders))
        for start in range(1, len(tokens), BLOCK):
            n_before = min(start, len(self.orders) - 1)
            p = self.probabilities(tokens[start - n_before : start + BLOCK])
            total -= np.log(p[:, n_before:]).sum(axis=1)
        return total


def fit(tokens: Tokens, vocab_size: int, max_order: int = MAX_ORDER) -> NgramModels:
    """Fit models of orders 1 to max_order to tokens of shape (n_tokens,)."""
    counts = count_ngrams(tokens, vocab_size, max_order)
    return NgramModels(vocab_size, tuple(map(partial(_make_order, vocab_size), counts)))


def _make_order(vocab_size: int, counts: NgramCounts) -> Order:
    contexts, n_contexts = counts.keys // vocab_size, counts.n_contexts + 1  # one for NOT_SEEN
    return Order(
        keys=np.append(counts.keys, NO_KEY),
        highest=discounted(contexts, counts.occurrences, n_contexts),
        lower=None
        if counts.predecessors is None
        else discounted(contexts, counts.predecessors, n_contexts),
    )


def discounted(
    contexts: NDArray[np.int64], counts: NDArray[np.int64], n_contexts: int
) -> Discounted:
    """The terms of one order's probabilities. contexts, counts: of each n-gram, (n,)."""
    discount = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(contexts, counts, n_contexts)
    backoff = np.ones(n_contexts)  # stays 1 for NOT_SEEN and the end of the text
    np.divide(np.bincount(contexts, discount, n_contexts), total, out=backoff, where=total > 0)
    return Discounted(np.append((counts - discount) / total[contexts], 0.0), backoff)
