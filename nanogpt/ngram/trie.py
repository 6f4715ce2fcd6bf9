"""One n-gram model as a trie: probabilities of given tokens, and of all tokens after a context.

The model is the highest order of probabilities.py's: interpolated modified Kneser-Ney, with
occurrences in the highest order and numbers of different predecessors below. It is kept so that
what follows a context lies together:

    entry      an n-gram of any length, all in one row: sorted by length, then context, then token
    node       a context: 0 is the empty one, i + 1 the n-gram of entry i
    children   the entries that are one token longer than a node; a slice of the row

Whoever reads a text keeps the nodes of its last 0, 1, 2, ... tokens. One search for (node, token)
finds those one token later, and the distribution after them only touches their children.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.tokenizers import Tokens
from nanogpt.ngram.counting import discounts
from nanogpt.ngram.counts import NgramTable

BLOCK = 1 << 18  # tokens that are looked up at once

NO_NODE = -1  # of a context that wasn't seen; the last element of all that nodes index


@dataclass(frozen=True)
class NgramTrie:
    """A model of order max_order, ready to be looked up.

    keys: node * vocab_size + token of each entry, ascending, (n_entries,). tokens: the last token
    of each. seen: (c(hw) - D(c(hw))) / c(h) of each. first, n_children: where a node's children
    are. backoff: g(h) of a node. The last element of these three is NO_NODE's.
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
        self, tokens: Tokens, n_before: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Each token's probability after those before it, but for the first token: (n_tokens - 1,).

        n_before: how many of the tokens before each may be seen, (n_tokens - 1,), if not all.
        """
        if len(tokens) < 2:
            return np.empty(0)
        parts = []
        for start in range(1, len(tokens), BLOCK):
            n_warm_up = min(start, self.max_order - 1)
            block = tokens[start - n_warm_up : start + BLOCK]
            seen = n_before[start - 1 : start - 1 + BLOCK] if n_before is not None else None
            parts.append(self._probabilities(block.astype(np.int64), n_warm_up, seen))
        return np.concatenate(parts)

    def _probabilities(
        self, tokens: NDArray[np.int64], n_warm_up: int, n_before: NDArray[np.int64] | None
    ) -> NDArray[np.float64]:
        """The probabilities of tokens[n_warm_up:]."""
        nodes = np.zeros(len(tokens), dtype=np.int64)  # of the `length` tokens before each token
        p = np.full(len(tokens) - n_warm_up, 1 / self.vocab_size)
        for length in range(self.max_order):
            entries = self._find(nodes, tokens)
            contexts, found = nodes[n_warm_up:], entries[n_warm_up:]
            if n_before is not None:
                hidden = n_before < length
                contexts, found = contexts.copy(), found.copy()
                contexts[hidden] = found[hidden] = NO_NODE
            p *= self.backoff[contexts]
            p += np.where(found >= 0, self.seen[found], 0.0)
            if length + 1 < self.max_order:
                nodes = np.append(NO_NODE, np.where(entries[:-1] >= 0, entries[:-1] + 1, NO_NODE))
        return p

    def _find(self, nodes: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The entries of tokens after nodes, -1 for those that there aren't."""
        keys = nodes * self.vocab_size + tokens  # negative after NO_NODE, as no entry's is
        entries = np.searchsorted(self.keys, keys)
        entries[self.keys.take(entries, mode="clip") != keys] = -1
        return entries

    def empty_contexts(self, n_rows: int) -> NDArray[np.int64]:
        """The contexts of sequences of which nothing was read yet, (n_rows, max_order)."""
        contexts = np.full((n_rows, self.max_order), NO_NODE)
        contexts[:, 0] = 0
        return contexts

    def read(self, contexts: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The contexts after one more token of each sequence, (n_rows,).

        contexts: the nodes of the last 0, 1, ..., max_order - 1 tokens, (n_rows, max_order).
        """
        longer = np.zeros_like(contexts)
        entries = self._find(contexts[:, :-1], tokens[:, None])
        # An entry's node is the next number, and NO_NODE of -1 itself.
        longer[:, 1:] = entries + (entries >= 0)
        return longer

    def distributions(self, contexts: NDArray[np.int64]) -> NDArray[np.float32]:
        """The probabilities of all tokens after contexts (n_rows, max_order): (n_rows, vocab_size).

        An order's share is what all longer ones left over, so only children are touched:
        p = sum_k (product of g(h) of the longer contexts) * seen_k.
        """
        backoff = self.backoff[contexts]
        left = np.cumprod(backoff[:, :0:-1], axis=1)[:, ::-1]  # for contexts of 0, 1, ... tokens
        shares = np.append(left[:, 1:], np.ones_like(left[:, :1]), axis=1)  # for 1, 2, ... tokens
        # A model of order 1 has no longer contexts: all is left to the empty one.
        all_left = left[:, :1] if self.max_order > 1 else np.ones((len(contexts), 1), np.float32)
        p: NDArray[np.float32] = all_left * self.after_nothing
        if self.max_order == 1:
            return p
        rows = np.arange(len(contexts))[:, None] * self.vocab_size
        nodes = contexts[:, 1:].ravel()
        n_children = self.n_children[nodes]
        total = int(n_children.sum())
        before = np.cumsum(n_children) - n_children
        entries = np.repeat(self.first[nodes] - before, n_children) + np.arange(total)
        places = self.tokens[entries] + np.repeat(
            np.broadcast_to(rows, contexts[:, 1:].shape).ravel(), n_children
        )
        np.add.at(p.ravel(), places, self.seen[entries] * np.repeat(shares.ravel(), n_children))
        return p


def build_trie(table: NgramTable) -> NgramTrie:
    """The model that follows from counts."""
    n_entries, n_nodes = len(table.counts), len(table.n_children)
    n_children = np.append(table.n_children.astype(np.int64), 0)
    first = np.cumsum(n_children) - n_children
    parents = np.repeat(np.arange(n_nodes), n_children[:-1])  # the node of each entry's context
    ends = np.cumsum(table.n_entries)
    seen = np.empty(n_entries, dtype=np.float32)
    backoff = np.ones(n_nodes + 1, dtype=np.float32)  # 1 where nothing follows, and of NO_NODE
    # Discounts are of one order, whose contexts are the nodes of the order below.
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
