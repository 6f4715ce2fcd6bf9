"""N-gram models: interpolated modified Kneser-Ney models of orders 1 to 5.

Each order interpolates with the next lower one, order 1 with the uniform distribution:

    p_k(w | h) = (c(hw) - D(c(hw))) / c(h) + g(h) p_k-1(w | h')    g(h) = sum_v D(c(hv)) / c(h)

h: the k-1 tokens before w; h': h without its first one; c(h): sum_v c(hv). In a model's highest
order, c(hw) is how often hw occurs, and in the orders below, after how many different tokens. D has
one discount for each of the counts 0 (none), 1, 2, and for all above. After an h that the training
split lacks, p_k is p_k-1.

Source: S. F. Chen and J. Goodman, "An empirical study of smoothing techniques for language
modeling", Computer Speech and Language 13 (1999), section 3.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.tokenizers import Tokens
from nanogpt.ngram.counting import NgramCounts, count_ngrams, discounts

MAX_ORDER = 5
BLOCK = 1 << 20  # tokens that are looked up at once

NOT_SEEN = -1  # the id of what the training split lacks: the last element of all that ids index
NO_KEY = np.iinfo(np.int64).max  # its key, larger than all others


@dataclass(frozen=True)
class Discounted:
    """One order's parts of a probability.

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
        """p_k of tokens, (n_tokens,), from the ids of hw and h, and p_k-1."""
        p: NDArray[np.float64] = self.seen[ids] + self.backoff[contexts] * lower
        return p


@dataclass(frozen=True)
class Order:
    """The n-grams of one length; an n-gram's id is its key's index.

    keys: those of NgramCounts, and NO_KEY. highest: as the highest order of a model. lower: below a
    higher order, None where there isn't one.
    """

    keys: NDArray[np.int64]
    highest: Discounted
    lower: Discounted | None

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids of n-grams, or NOT_SEEN."""
        ids = np.searchsorted(self.keys, keys)
        ids[self.keys[ids] != keys] = NOT_SEEN
        return ids


@dataclass(frozen=True)
class NgramModels:
    """Models of orders 1, 2, ..., which share their lower orders."""

    vocab_size: int
    orders: tuple[Order, ...]

    def probabilities(self, tokens: Tokens) -> NDArray[np.float64]:
        """Each token's probability after those before it, (n_orders, n_tokens).

        Contexts of the first tokens are shorter than an order's: they don't begin before `tokens`.
        """
        p = np.empty((len(self.orders), len(tokens)))
        contexts = np.zeros(len(tokens), dtype=np.int64)  # order 1 has one: no token
        lower = np.full(len(tokens), 1 / self.vocab_size)
        for row, order in enumerate(self.orders):
            # After a context that was not seen, the key is negative, as no n-gram's is.
            ids = order.find(contexts * self.vocab_size + tokens)
            p[row] = order.highest.interpolate(ids, contexts, lower)
            if order.lower:
                lower = order.lower.interpolate(ids, contexts, lower)
            contexts = np.append(NOT_SEEN, ids[:-1])
        return p

    def nats(self, tokens: Tokens) -> NDArray[np.float64]:
        """The summed surprise of all tokens but the first, (n_orders,)."""
        total = np.zeros(len(self.orders))
        for start in range(1, len(tokens), BLOCK):
            n_before = min(start, len(self.orders) - 1)
            p = self.probabilities(tokens[start - n_before : start + BLOCK])
            total -= np.log(p[:, n_before:]).sum(axis=1)
        return total


def fit(tokens: Tokens, vocab_size: int, max_order: int = MAX_ORDER) -> NgramModels:
    """The models of orders 1 to max_order, counted on tokens of shape (n_tokens,)."""
    counts = count_ngrams(tokens, vocab_size, max_order)
    return NgramModels(vocab_size, tuple(map(partial(_make_order, vocab_size), counts)))


def _make_order(vocab_size: int, counts: NgramCounts) -> Order:
    contexts, n_contexts = counts.keys // vocab_size, counts.n_contexts + 1  # and NOT_SEEN
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
    """One order's parts of a probability, from the context and the count of each n-gram, (n,)."""
    discount = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(contexts, counts, n_contexts)
    backoff = np.ones(n_contexts)  # for the text's end and NOT_SEEN, which nothing follows
    np.divide(np.bincount(contexts, discount, n_contexts), total, out=backoff, where=total > 0)
    return Discounted(np.append((counts - discount) / total[contexts], 0.0), backoff)
