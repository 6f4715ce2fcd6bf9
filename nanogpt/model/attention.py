"""Causal attention, with the fastest kernel for the device."""

import math
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nanogpt.model import alike
from nanogpt.model.kernels import drop, drop_factors

MATMUL_ATTENTION_MAX_TOKENS = 512
QUERIES_AT_ONCE = 128


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal scaled dot-product attention of queries, keys and values, each (B, H, T, D).

    On a CPU, plain matrix products are faster than torch's fused kernels, until the (T, T) weights
    need too much memory (docs/BENCHMARKS.md).
    """
    T = q.shape[2]
    if alike.on():
        weights = alike.attention_weights(q.flatten(0, 1), k.flatten(0, 1))  # (B * H, T, T)
        return alike.product(drop(weights, dropout), v.flatten(0, 1)).view(q.shape)
    on_cpu = q.device.type == "cpu" and not torch.compiler.is_compiling()
    if not on_cpu or T > MATMUL_ATTENTION_MAX_TOKENS:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return cast(Tensor, Attend.apply(q, k, v, dropout))  # type: ignore[no-untyped-call]


class Attend(torch.autograd.Function):
    """Causal attention among T tokens, for QUERIES_AT_ONCE queries at a time."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        ctx.shape, ctx.dropout = q.shape, dropout
        T, D = q.shape[2:]
        q, k, v = (x.reshape(-1, T, D) for x in (q, k, v))  # (B * H, T, D)
        out, saved = torch.empty_like(q), []
        for first, last in _blocks(T):
            mask = _causal_mask(first, last, q.dtype)
            scores = torch.baddbmm(
                mask, q[:, first:last], k[:, :last].mT, alpha=1 / math.sqrt(D)
            )  # (B * H, last - first, last)
            weights = F.softmax(scores, dim=-1)
            saved.append(weights)
            if dropout:
                factors = drop_factors(weights, dropout)
                saved.append(factors)
                weights = weights * factors
            out[:, first:last] = weights @ v[:, :last]
        ctx.save_for_backward(q, k, v, *saved)
        return out.view(ctx.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *saved = ctx.saved_tensors
        T, D = q.shape[1:]
        gradient = gradient.reshape(-1, T, D)
        of_q, of_k, of_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for first, last in reversed(_blocks(T)):
            factors = saved.pop() if ctx.dropout else None
            weights = saved.pop()
            of_out = gradient[:, first:last]
            of_weights = of_out @ v[:, :last].mT
            used = weights
            if factors is not None:
                used = weights * factors
                of_weights *= factors
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_scores *= 1 / math.sqrt(D)
            of_q[:, first:last] = of_scores @ k[:, :last]
            if last == T:  # the last block is computed first, and attends to all keys
                torch.bmm(of_scores.mT, q[:, first:last], out=of_k)
                torch.bmm(used.mT, of_out, out=of_v)
            else:
                of_k[:, :last] += of_scores.mT @ q[:, first:last]
                of_v[:, :last] += used.mT @ of_out
        return of_q.view(ctx.shape), of_k.view(ctx.shape), of_v.view(ctx.shape), None


def _blocks(n_tokens: int) -> list[tuple[int, int]]:
    """Return the start and end of each block of queries."""
    firsts = range(0, n_tokens, QUERIES_AT_ONCE)
    return [(first, min(first + QUERIES_AT_ONCE, n_tokens)) for first in firsts]


def forget_masks() -> None:
    """Clear the cache of masks, for example after tracing a step on tensors without data."""
    _causal_mask.cache_clear()


@lru_cache(maxsize=64)
def _causal_mask(first: int, last: int, dtype: torch.dtype) -> Tensor:
    """Return a mask (last - first, last): 0 where a query may see a key, else -infinity."""
    return torch.full((last - first, last), -math.inf, dtype=dtype).triu_(first + 1)
