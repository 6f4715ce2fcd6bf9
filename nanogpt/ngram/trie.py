"""One n-gram model as a trie: probabilities of given tokens, and of all tokens after a context.

The model is the highest order of those in probabilities.py: interpolated modified Kneser-Ney, with
numbers of occurrences in the highest order and of different predecessors below. The n-grams after
each context are stored contiguously:

    entry      an n-gram of any length; entries are sorted by length, then context, then token
    node       a context: 0 is the empty one, i + 1 the n-gram of entry i
    children   the entries that extend a node by one token; a slice of all entries

A reader of a text keeps the nodes of its last 0, 1, 2, ... tokens. One search for (node, token)
finds the nodes after the next token, and the distribution after them only uses their children.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.shards import SplitTokens
from nanogpt.ngram.counting import discounts
from nanogpt.ngram.counts import NgramTable

BLOCK = 1 << 18  # tokens that are looked up at a time

NO_NODE = -1  # an unseen context; it indexes the last element of arrays


@dataclass(frozen=True)
class Predictions:
    """Probabilities, and a measure of how reliable they are.

    p: of given tokens, (n,), or of all tokens, (n, vocab_size). held_back: g(h) of the longest
    known context, (n,), the share of probability that it leaves to shorter ones.
    """

    p: NDArray[np.floating]
    held_back: NDArray[np.floating]


@dataclass(frozen=True)
class NgramTrie:
    """A model of order max_order, ready for lookups.

    keys: node * vocab_size + token of each entry, ascending, (n_entries,). tokens: the last token
    of each entry. seen: (c(hw) - D(c(hw))) / c(h) of each entry. first, n_children: the slice of a
    node's children. backoff: g(h) of a node. The last element of these three is for NO_NODE.
    """

    vocab_size: int
    max_order: int
    keys: NDArray[np.int64]
    tokens: NDArray[np.integer]
    seen: NDArray[np.float32]
    first: NDArray[np.int64]
    n_children: NDArray[np.int64]
    backoff: NDArray[np.float32]
    after_nothing: NDArray[np.float32]  # the distribution of order 1, (vocab_size,)

    def probabilities(
        self, tokens: SplitTokens, n_before: NDArray[np.int64] | None = None
    ) -> Predictions:
        """Predict each token except the first from those before it: n_tokens - 1 predictions.

        n_before: how many tokens before each can be used, (n_tokens - 1,); all by default.
        """
        parts = [(np.empty(0), np.empty(0))]
        for start in range(1, len(tokens), BLOCK):
            n_warm_up = min(start, self.max_order - 1)
            block = tokens[start - n_warm_up : start + BLOCK]
            seen = n_before[start - 1 : start - 1 + BLOCK] if n_before is not None else None
            parts.append(self._probabilities(block.astype(np.int64), n_warm_up, seen))
        p, held_back = map(np.concatenate, zip(*parts, strict=True))
        return Predictions(p, held_back)

    def _probabilities(
        self, tokens: NDArray[np.int64], n_warm_up: int, n_before: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The probabilities and held-back shares for tokens[n_warm_up:]."""
        nodes = np.zeros(len(tokens), dtype=np.int64)  # of the `length` tokens before each token
        p = np.full(len(tokens) - n_warm_up, 1 / self.vocab_size)
        held_back = np.ones(len(p))
        for length in range(self.max_order):
            entries = self._find(nodes, tokens)
            contexts, found = nodes[n_warm_up:], entries[n_warm_up:]
            if n_before is not None:
                hidden = n_before < length
                contexts, found = contexts.copy(), found.copy()
                contexts[hidden] = found[hidden] = NO_NODE
            backoff = self.backoff[contexts]
            held_back = np.where(self.n_children[contexts] > 0, backoff, held_back)
            p *= backoff
            p += np.where(found >= 0, self.seen[found], 0.0)
            if length + 1 < self.max_order:
                nodes = np.append(NO_NODE, np.where(entries[:-1] >= 0, entries[:-1] + 1, NO_NODE))
        return p, held_back

    def _find(self, nodes: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The entries of tokens after nodes; -1 if there isn't one."""
        keys = nodes * self.vocab_size + tokens  # negative for NO_NODE, so it's never found
        entries = np.searchsorted(self.keys, keys)
        entries[self.keys.take(entries, mode="clip") != keys] = -1
        return entries

    def empty_contexts(self, n_rows: int) -> NDArray[np.int64]:
        """The contexts of empty sequences, (n_rows, max_order)."""
        contexts = np.full((n_rows, self.max_order), NO_NODE)
        contexts[:, 0] = 0
        return contexts

    def read(self, contexts: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The contexts after one more token of each sequence, tokens (n_rows,).

        contexts: the nodes of the last 0, 1, ..., max_order - 1 tokens, (n_rows, max_order).
        """
        longer = np.zeros_like(contexts)
        entries = self._find(contexts[:, :-1], tokens[:, None])
        # An entry's node is its index plus 1; for a missing entry, -1, it's NO_NODE, also -1.
        longer[:, 1:] = entries + (entries >= 0)
        return longer

    def distributions(self, contexts: NDArray[np.int64]) -> Predictions:
        """Predict all tokens after contexts (n_rows, max_order).

        Each order's share is the product of g(h) over all longer contexts:
        p = sum_k (product of g(h) of the longer contexts) * seen_k. So only children are read.
        """
        backoff, n_children = self.backoff[contexts], self.n_children[contexts]
        each_row = np.arange(len(contexts))
        # left[:, k]: the share that contexts of more than k tokens leave to the one of k tokens.
        left = np.ones_like(backoff)
        np.cumprod(backoff[:, :0:-1], axis=1, out=left[:, -2::-1])
        p = left[:, :1] * self.after_nothing
        longest = self.max_order - 1 - (n_children[:, ::-1] > 0).argmax(axis=1)
        # The children of all longer contexts, concatenated.
        nodes, n_entries = contexts[:, 1:].ravel(), n_children[:, 1:].ravel()
        gaps = self.first[nodes] - np.cumsum(n_entries) + n_entries
        entries = np.repeat(gaps, n_entries) + np.arange(n_entries.sum())
        rows = np.repeat(each_row * self.vocab_size, n_children[:, 1:].sum(axis=1))
        shares = np.repeat(left[:, 1:].ravel(), n_entries)
        np.add.at(p.reshape(-1), rows + self.tokens[entries], shares * self.seen[entries])
        return Predictions(p, backoff[each_row, longest])


def build_trie(table: NgramTable) -> NgramTrie:
    """Build the model from counts."""
    n_entries, n_nodes = len(table.counts), len(table.n_children)
    n_children = np.append(table.n_children.astype(np.int64), 0)
    first = np.cumsum(n_children) - n_children
    parents = np.repeat(np.arange(n_nodes), n_children[:-1])  # the node of each entry's context
    ends = np.cumsum(table.n_entries)
    seen = np.empty(n_entries, dtype=np.float32)
    backoff = np.ones(n_nodes + 1, dtype=np.float32)  # stays 1 for NO_NODE and without children
    # Each order has its own discounts, and its contexts are the nodes of the order below.
    for order, end in enumerate(ends):
        start = end - table.n_entries[order]
        counts = table.counts[start:end].astype(np.int64)
        discount = discounts(counts)[np.minimum(counts, 3)]
        contexts = parents[start:end]
        low, high = int(contexts[0]), int(contexts[-1]) + 1
        totals = np.bincount(contexts - low, counts, high - low)
        seen[start:end] = (counts - discount) / totals[contexts - low]
        held_back = np.bincount(contexts - low, discount, high - low)
        np.divide(held_back, totals, out=totals, where=totals > 0)
        has_children = n_children[low:high] > 0
        backoff[low:high][has_children] = totals[has_children]
    after_nothing = np.full(table.vocab_size, backoff[0] / table.vocab_size, dtype=np.float32)
    after_nothing[table.tokens[: ends[0]]] += seen[: ends[0]]
    return NgramTrie(
        table.vocab_size,
        len(table.n_entries),
        parents * table.vocab_size + table.tokens,
        table.tokens,
        seen,
        first,
        n_children,
        backoff,
        after_nothing,
    )
