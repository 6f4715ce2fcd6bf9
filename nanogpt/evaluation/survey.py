"""One pass over a split, which sums up the predictions of all tokens.

A split is read in order, in windows of block_size without overlap; the last one is shorter. So each
token except the first is predicted once. All numbers of a split are from this one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.config.schema import EvalSettings
from nanogpt.data.shards import SplitTokens
from nanogpt.evaluation.reading import Part, read_windows
from nanogpt.evaluation.symbols import KINDS, Symbols
from nanogpt.model.ensemble import Model
from nanogpt.model.losses import n_full_windows

BINS = 10  # of the likeliest token's probability


@dataclass(frozen=True)
class Survey:
    """Sums over the predictions for a split, in float64, grouped in several ways.

    nats: of all tokens. token_nats: of each token, in order. windows: nats, tokens, bytes and
    characters of each window, (n_windows, 4). positions: nats and tokens at each position in a
    window, (block_size, 2). kinds: nats and tokens of each of KINDS, (6, 2). bins: tokens, summed
    confidence and right guesses in each bin of confidence, (BINS, 3).
    """

    nats: float
    token_nats: NDArray[np.float32]
    windows: NDArray[np.float64]
    positions: NDArray[np.float64]
    kinds: NDArray[np.float64]
    bins: NDArray[np.float64]


def survey_windows(
    model: Model,
    tokens: SplitTokens,
    parts: Sequence[Part],
    symbols: Symbols,
    settings: EvalSettings,
) -> Survey:
    """Read some windows of a split once. parts: their starts and common lengths."""
    nats, windows, token_nats_read = 0.0, [], []
    positions = np.zeros((model.settings.block_size, 2))
    kinds, bins = np.zeros((len(KINDS), 2)), np.zeros((BINS, 3))
    inner_edges = np.arange(1, BINS) / BINS
    for batch in read_windows(model, tokens, parts, settings):
        confidence = batch.confidence.flatten().double().numpy()
        right = batch.right.flatten().numpy()
        ids = batch.targets.numpy()
        summed = batch.nats.double()
        nats += summed.sum().item()
        of_token = summed.numpy()
        token_nats_read.append(batch.nats.flatten().numpy())
        windows.append(np.column_stack([of_token.sum(1), symbols.counts[ids].sum(1)]))
        positions[: ids.shape[1], 0] += of_token.sum(0)
        positions[: ids.shape[1], 1] += len(ids)
        kind = symbols.kinds[ids.flatten()]
        kinds += _sums(kind, len(KINDS), of_token.flatten(), None)
        bin_ = np.digitize(confidence, inner_edges, right=True)
        bins += _sums(bin_, BINS, None, confidence, right)
    of_tokens = np.concatenate(token_nats_read)
    return Survey(nats, of_tokens, np.concatenate(windows), positions, kinds, bins)


def _sums(
    index: NDArray[np.int64], size: int, *weights: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Return the sum of each weight by index, (size, n_weights). None: a weight of 1."""
    return np.stack([np.bincount(index, weight, size) for weight in weights], axis=1).astype(float)


def survey_split(
    model: Model, tokens: SplitTokens, symbols: Symbols, settings: EvalSettings
) -> Survey:
    """Read a whole split; every token except the first is predicted once."""
    block_size = model.settings.block_size
    full = n_full_windows(len(tokens), block_size)
    parts: list[Part] = [(block_size * np.arange(full), block_size)]
    rest = len(tokens) - 1 - full * block_size
    if rest:
        parts.append((np.array([full * block_size]), rest))
    return survey_windows(model, tokens, parts, symbols, settings)
