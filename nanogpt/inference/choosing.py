"""The next token of each sequence, by its logits and the settings of sampling.

In this order: repetition_penalty, temperature, top_k, top_p, min_p, and a draw.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nanogpt.config.schema import SampleSettings
from nanogpt.model.kernels import softmax

# Where a division by the temperature would leave float32's range.
GREEDY_BELOW = 1e-6

# Random numbers that are drawn at once.
DRAWN_AT_ONCE = 64


class Uniforms:
    """A sequence's random numbers, from 0 up to but not 1, by its seed alone."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn: list[float] = []

    def next(self) -> float:
        """The next one."""
        if not self._drawn:
            drawn = torch.rand(DRAWN_AT_ONCE, generator=self._generator, dtype=torch.float64)
            self._drawn = drawn.flip(0).tolist()
        return self._drawn.pop()


def choose(
    logits: Tensor, settings: SampleSettings, uniforms: Sequence[Uniforms], seen: Tensor | None
) -> Tensor:
    """The next token of each sequence, (B,), by logits (B, V): drawn, or at temperature 0 the best.

    uniforms: of each sequence; one number of each is taken, and none at temperature 0. seen: which
    tokens each sequence has, (B, V), for a repetition penalty.
    """
    if seen is not None:
        logits = _penalise(logits, seen, settings.repetition_penalty)
    if settings.temperature < GREEDY_BELOW:
        return logits.argmax(-1)
    p, tokens = _weights(logits, settings)
    numbers = torch.tensor([[u.next()] for u in uniforms], dtype=torch.float64, device=p.device)
    sums = p.double().cumsum(-1)
    # The first token up to which there is more than this share of the whole.
    drawn = torch.searchsorted(sums, numbers * sums[:, -1:], right=True)
    drawn.clamp_(max=sums.shape[-1] - 1)  # beyond the last one where logits are NaN
    return (drawn if tokens is None else tokens.gather(-1, drawn))[:, 0]


def distributions(logits: Tensor, settings: SampleSettings, seen: Tensor | None) -> Tensor:
    """The probabilities with which `choose` takes each token: (B, V) in float64."""
    if seen is not None:
        logits = _penalise(logits, seen, settings.repetition_penalty)
    all_tokens = torch.zeros_like(logits, dtype=torch.float64)
    if settings.temperature < GREEDY_BELOW:
        return all_tokens.scatter_(-1, logits.argmax(-1, keepdim=True), 1)
    p, tokens = _weights(logits, settings)
    p = p.double() / p.double().sum(-1, keepdim=True)
    return p if tokens is None else all_tokens.scatter_(-1, tokens, p)


def _weights(logits: Tensor, settings: SampleSettings) -> tuple[Tensor, Tensor | None]:
    """What tokens are drawn in proportion to, (B, K), and their ids; None: all V in order."""
    logits = logits / settings.temperature
    tokens = None  # of the logits; none: all in order
    if 0 < settings.top_k < logits.shape[-1]:
        # In the order of the vocabulary, so that a draw doesn't depend on how near ones rank.
        tokens = logits.topk(settings.top_k, sorted=False).indices.sort(-1).values
        logits = logits.gather(-1, tokens)
    p = softmax(logits)
    if settings.top_p < 1:
        p = _keep_top_p(p, settings.top_p)
    if settings.min_p > 0:
        p = p.masked_fill(p < settings.min_p * p.amax(-1, keepdim=True), 0)
    return p, tokens


def _penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits of tokens that occurred, lowered. Source: https://arxiv.org/abs/1909.05858."""
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def _keep_top_p(p: Tensor, top_p: float) -> Tensor:
    """Probabilities (B, V), 0 but for the fewest tokens that have top_p together; at least one.

    Source: https://arxiv.org/abs/1904.09751.
    """
    ranked, order = p.sort(-1, descending=True)
    before = ranked.double().cumsum(-1) - ranked
    before[:, 0] = -math.inf
    return torch.zeros_like(p).scatter(-1, order, ranked.masked_fill(before >= top_p, 0))
