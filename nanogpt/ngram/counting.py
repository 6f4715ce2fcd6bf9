"""N-gram models: how well the few tokens before a token tell it, by counting alone.

A baseline beside a GPT: interpolated modified Kneser-Ney models of orders 1 to 5, counted on the
training split, measured on the tokens of the validation split that evaluate.py predicts too. What
a report makes of the numbers is left to others.

Each order interpolates with the next lower one, order 1 with the uniform distribution:

    p_k(w | h) = (c(hw) - D(c(hw))) / c(h) + g(h) p_k-1(w | h')    g(h) = sum_v D(c(hv)) / c(h)

h: the k-1 tokens before w; h': h without its first one; c(h): sum_v c(hv). In a model's highest
order, c(hw) says how often hw occurs, and in the orders below, after how many different tokens,
the text's beginning being one. D: one discount for each of the counts 0 (none), 1, 2, and for all
above, estimated from counts of counts. After an h that the training split lacks, p_k is p_k-1.

Source: S. F. Chen and J. Goodman, "An empirical study of smoothing techniques for language
modeling", Computer Speech and Language 13 (1999), section 3.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.data import batches as dataset
from nanogpt.data.tokenizers import Tokens, token_characters
from nanogpt.files.atomic import write_json

METHOD = "interpolated modified Kneser-Ney"
MAX_ORDER = 5

# 1.6 GB of memory if nearly all n-grams differ; more tokens need as much more.
MAX_TRAIN_TOKENS = 8_000_000
BLOCK = 1 << 20  # tokens that are looked up at once

# For D(1) to D(3) where counts of counts give none: as in KenLM's --discount_fallback. Characters
# need them, nearly all of which are frequent.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

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

    keys: id of the context * vocab_size + token, sorted. highest: as the highest order of a model.
    lower: below a higher order, None where there is none.
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

        Contexts of the first tokens are shorter than an order's: they do not begin before `tokens`.
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
    ids = np.zeros(len(tokens) + 1, dtype=np.int64)  # of one order's n-grams, as the text has them
    keys = [np.array([0, NO_KEY])]  # order 0 has one n-gram: no token
    highest: list[Discounted] = []
    lower: list[Discounted] = []
    for order in range(1, max_order + 1):
        shorter = ids
        found, ids, counts = np.unique(
            shorter[:-1] * vocab_size + tokens[order - 1 :], return_inverse=True, return_counts=True
        )
        if order > 1:
            endings = np.empty_like(found)  # what follows the first token, by the n-gram's id
            endings[ids] = shorter[1:]
            n_before = np.bincount(endings, minlength=len(keys[-1]) - 1)
            n_before[shorter[:1]] += 1
            lower.append(discounted(keys[-1][:-1] // vocab_size, n_before, len(keys[-2])))
        highest.append(discounted(found // vocab_size, counts, len(keys[-1])))
        keys.append(np.append(found, NO_KEY))
    return NgramModels(vocab_size, tuple(map(Order, keys[1:], highest, [*lower, None])))


def discounted(
    contexts: NDArray[np.int64], counts: NDArray[np.int64], n_contexts: int
) -> Discounted:
    """One order's parts of a probability, from the context and the count of each n-gram, (n,)."""
    discount = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(contexts, counts, n_contexts)
    backoff = np.ones(n_contexts)  # for the text's end and NOT_SEEN, which nothing follows
    np.divide(np.bincount(contexts, discount, n_contexts), total, out=backoff, where=total > 0)
    return Discounted(np.append((counts - discount) / total[contexts], 0.0), backoff)


def discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """D(0) to D(3) of one order, estimated from its n-grams' counts: (4,)."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        estimated = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        # Below zero is no discount, and zero leaves nothing for tokens that were not seen.
        if min(estimated) > 0:
            return np.array([0.0, *estimated])
    return np.array([0.0, *FALLBACK_DISCOUNTS])


def measure(dataset_directory: Path, path: str | Path) -> dict[str, Any]:
    """Measure the models of a dataset and write ngram.json; returns what stands in it.

    Errors: UserError for a dataset that is absent or damaged.
    """
    files = dataset.load(dataset_directory)
    vocab_size = files.tokenizer.vocab_size
    # The last ones: a split by position puts the validation split behind them, so they are nearest.
    train = files.train[-MAX_TRAIN_TOKENS:]
    total = fit(train, vocab_size).nats(files.val)
    n_tokens = len(files.val) - 1
    occurrences = sum(
        np.bincount(files.val[start : start + BLOCK], minlength=vocab_size)
        for start in range(1, len(files.val), BLOCK)
    )
    n_bytes = int((occurrences * files.tokenizer.token_bytes).sum())
    n_characters = int((occurrences * token_characters(files.tokenizer)).sum())
    result: dict[str, Any] = {
        "dataset": dataset_directory.name,
        "method": METHOD,
        "n_train_tokens": len(train),
        "orders": [
            {
                "order": order,
                "loss": nats / n_tokens,
                "perplexity": math.exp(nats / n_tokens),
                # A split of ends of texts alone has neither.
                "bits_per_byte": nats / math.log(2) / n_bytes if n_bytes else None,
                "bits_per_character": nats / math.log(2) / n_characters if n_characters else None,
                "n_tokens": n_tokens,
                "n_bytes": n_bytes,
                "n_characters": n_characters,
            }
            for order, nats in enumerate(total.tolist(), start=1)
        ],
    }
    write_json(path, result)
    return result


def summary(result: dict[str, Any]) -> str:
    """The model with the lowest loss, and that loss, in one line."""
    best = min(result["orders"], key=lambda order: order["loss"])
    return f"n-grams of order {best['order']}: {best['loss']:.4f} nats per token"
