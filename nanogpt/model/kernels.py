"""Operations that torch computes slowly on some machines, by a faster way to the same result."""

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

MATMUL_ATTENTION_MAX_TOKENS = 512

# An operator for torch's own compiler; where a version or build lacks it, we use F.linear.
ONEDNN_LINEAR = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., in), (out, in), (out,) -> (..., out).

    In float32 on a CPU torch would take MKL, which has half oneDNN's speed on AMD's processors
    (docs/BENCHMARKS.md).
    """
    float32_on_cpu = (
        x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    )
    if not float32_on_cpu or not ONEDNN_LINEAR or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    return cast(Tensor, OneDnnLinear.apply(x, weight, bias))  # type: ignore[no-untyped-call]


class OneDnnLinear(torch.autograd.Function):
    """x @ weight.T + bias by oneDNN, for float32 on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # (B * T, out)
        of_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        of_weight = _onednn(rows.t(), x.flatten(0, -2).t(), None)
        return _onednn(gradient, weight.t(), None), of_weight, of_bias


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def rms_norm(x: Tensor, epsilon: float) -> Tensor:
    """x divided by the root of the mean of its squares over the last dimension, + epsilon.

    Source: https://arxiv.org/abs/1910.07467. torch computes it in several passes on a CPU.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.rms_norm(x, (x.shape[-1],), eps=epsilon)
    return cast(Tensor, RmsNorm.apply(x, epsilon))  # type: ignore[no-untyped-call]


class RmsNorm(torch.autograd.Function):
    """`rms_norm` with few passes over memory, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = norms.square().div_(x.shape[-1]).add_(epsilon).rsqrt_().to(x.dtype)
        y: Tensor = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(-1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale), None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[..., i], x[..., i + D/2]) of x (..., D) by the angle of a cos and a sin.

    These have shapes that broadcast with (..., D/2).

    Source: https://arxiv.org/abs/2104.09864, with pairs half a head apart.
    """
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    if torch.compiler.is_compiling():
        return _turn(x, cos, sin)
    return cast(Tensor, Rotate.apply(x, cos, sin))  # type: ignore[no-untyped-call]


class Rotate(torch.autograd.Function):
    """`rotate`; its gradient turns back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradient, cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)  # (..., D / 2)
    y = torch.cat([a * cos, b * cos], dim=-1)
    half = a.shape[-1]
    y[..., :half].addcmul_(b, sin, value=-1)
    y[..., half:].addcmul_(a, sin)
    return y


def squared_relu(x: Tensor) -> Tensor:
    """x^2 where x is positive, else 0. Source: https://arxiv.org/abs/2109.08668."""
    if torch.compiler.is_compiling():
        return F.relu(x).square()
    return cast(Tensor, SquaredRelu.apply(x))  # type: ignore[no-untyped-call]


class SquaredRelu(torch.autograd.Function):
    """`squared_relu` with one pass over memory less, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return torch.mul(gradient, positive).mul_(2)


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal scaled dot-product attention of queries (B, H, T, D) on keys and values (B, H, S, D).

    T = S, or T = 1: a single new token, which may see all of S.
    """
    T, S, D = q.shape[2], k.shape[2], q.shape[3]
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or S > MATMUL_ATTENTION_MAX_TOKENS:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=T > 1)
    # On a CPU, PyTorch's fused bfloat16 kernel takes 2 to 6 times as long as plain matrix products,
    # until the (T, S) scores outgrow the caches (docs/BENCHMARKS.md).
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)
    if T > 1:
        scores = scores.masked_fill(torch.ones(T, S, dtype=torch.bool).triu(1), -math.inf)
    weights = F.dropout(F.softmax(scores, dim=-1), dropout)
    return weights.to(v.dtype) @ v
