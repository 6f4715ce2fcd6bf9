"""Choose the next token of each sequence from its logits and the sampling settings.

The order is: repetition_penalty, temperature, top_k, top_p, min_p, draw.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nanogpt.config.schema import SampleSettings
from nanogpt.model.kernels import softmax

# Below this temperature, we take the likeliest token: dividing by it could overflow float32.
GREEDY_BELOW = 1e-6

# The number of random numbers to draw together.
DRAWN_AT_ONCE = 64


class Uniforms:
    """A sequence's random numbers in [0, 1). They depend only on its seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn: list[float] = []

    def next(self) -> float:
        """Return the next number."""
        if not self._drawn:
            drawn = torch.rand(DRAWN_AT_ONCE, generator=self._generator, dtype=torch.float64)
            self._drawn = drawn.flip(0).tolist()
        return self._drawn.pop()


def choose(
    logits: Tensor, settings: SampleSettings, uniforms: Sequence[Uniforms], seen: Tensor | None
) -> Tensor:
    """Choose the next token of each sequence, (B,), from logits (B, V).

    Draws a token, or takes the likeliest one at temperature 0. uniforms: of each sequence; uses one
    number of each, none at temperature 0. seen: which tokens each sequence contains, (B, V), for
    the repetition penalty.
    """
    if seen is not None:
        logits = _penalise(logits, seen, settings.repetition_penalty)
    if settings.temperature < GREEDY_BELOW:
        return logits.argmax(-1)
    p, tokens = _weights(logits, settings)
    numbers = torch.tensor([[u.next()] for u in uniforms], dtype=torch.float64, device=p.device)
    sums = p.double().cumsum(-1)
    # The first token whose cumulative weight exceeds this share of the total.
    drawn = torch.searchsorted(sums, numbers * sums[:, -1:], right=True)
    drawn.clamp_(max=sums.shape[-1] - 1)  # past the last token if logits are NaN
    return (drawn if tokens is None else tokens.gather(-1, drawn))[:, 0]


def distributions(logits: Tensor, settings: SampleSettings, seen: Tensor | None) -> Tensor:
    """Return the probability that `choose` takes each token: (B, V) in float64."""
    if seen is not None:
        logits = _penalise(logits, seen, settings.repetition_penalty)
    all_tokens = torch.zeros_like(logits, dtype=torch.float64)
    if settings.temperature < GREEDY_BELOW:
        return all_tokens.scatter_(-1, logits.argmax(-1, keepdim=True), 1)
    p, tokens = _weights(logits, settings)
    p = p.double() / p.double().sum(-1, keepdim=True)
    return p if tokens is None else all_tokens.scatter_(-1, tokens, p)


def _weights(logits: Tensor, settings: SampleSettings) -> tuple[Tensor, Tensor | None]:
    """Return the weights of tokens in a draw, (B, K), and their ids; None: all V in order."""
    logits = logits / settings.temperature
    tokens = None  # the tokens that logits belong to; None: all in order
    if 0 < settings.top_k < logits.shape[-1]:
        # Sorted by id, so that a draw doesn't depend on the rank of almost equal logits.
        tokens = logits.topk(settings.top_k, sorted=False).indices.sort(-1).values
        logits = logits.gather(-1, tokens)
    p = softmax(logits)
    if settings.top_p < 1:
        p = _keep_top_p(p, settings.top_p)
    if settings.min_p > 0:
        p = p.masked_fill(p < settings.min_p * p.amax(-1, keepdim=True), 0)
    return p, tokens


def _penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Lower the logits of tokens that have occurred. Source: https://arxiv.org/abs/1909.05858."""
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def _keep_top_p(p: Tensor, top_p: float) -> Tensor:
    """Set probabilities (B, V) to 0 except for the fewest tokens that reach top_p, at least one.

    Source: https://arxiv.org/abs/1904.09751.
    """
    ranked, order = p.sort(-1, descending=True)
    before = ranked.double().cumsum(-1) - ranked
    before[:, 0] = -math.inf
    return torch.zeros_like(p).scatter(-1, order, ranked.masked_fill(before >= top_p, 0))
