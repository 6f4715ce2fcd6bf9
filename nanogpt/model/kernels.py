"""Operations that torch computes slowly on some machines, by a faster way to the same result.

Ways differ in the last bits, so a choice between them is recorded in a training's layout.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nanogpt.devices import is_intel
from nanogpt.errors import UserError
from nanogpt.project import matmul_override

MATMUL_ATTENTION_MAX_TOKENS = 512

# An operator for torch's own compiler; some versions and builds lack it.
ONEDNN_LINEAR = hasattr(torch.ops.mkldnn, "_linear_pointwise")

_matmul: str | None = None  # none: not chosen yet


def matmul() -> str:
    """What computes float32 products on this CPU: `torch` as it comes (MKL, on x86), or `onednn`.

    Errors: UserError for a NANOGPT_MATMUL that isn't one, or that this build of torch lacks.
    """
    return _matmul or use_matmul(matmul_override() or usual_matmul())


def usual_matmul() -> str:
    """The one that is faster on a CPU with these capabilities.

    MKL uses AVX-512 on Intel's CPUs only; oneDNN uses it on all. Without it, they are even but for
    the gradients of weights, which MKL computes faster (docs/BENCHMARKS.md).
    """
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "onednn" if ONEDNN_LINEAR and avx512 and not is_intel() else "torch"


def use_matmul(name: str) -> str:
    """Compute float32 products by `name` from here on; returns it.

    Errors: UserError for what is neither, or what this build of torch lacks.
    """
    global _matmul
    if name not in ("torch", "onednn"):
        raise UserError(f"NANOGPT_MATMUL: unknown value `{name}`; use torch or onednn")
    if name not in matmuls():
        raise UserError("NANOGPT_MATMUL: this build of torch has no oneDNN; use torch")
    _matmul = name
    return name


def keep_matmul(name: str) -> None:
    """Compute float32 products by `name`, as a training did before, unless overridden."""
    if matmul_override() is None and name in matmuls():
        use_matmul(name)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., in), (out, in), (out,) -> (..., out)."""
    float32_on_cpu = (
        x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    )
    if not float32_on_cpu or torch.compiler.is_compiling() or matmul() == "torch":
        return F.linear(x, weight, bias)
    return cast(Tensor, OneDnnLinear.apply(x, weight, bias))  # type: ignore[no-untyped-call]


class OneDnnLinear(torch.autograd.Function):
    """x @ weight.T + bias by oneDNN, for float32 on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # (B * T, out)
        of_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        of_weight = onednn_linear(rows.t(), x.flatten(0, -2).t())
        return onednn_linear(gradient, weight.t()), of_weight, of_bias


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias by oneDNN, without a gradient."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def matmuls() -> dict[str, Callable[..., Tensor]]:
    """The ways to compute x @ weight.T on a CPU that this build of torch has."""
    return {"torch": F.linear, **({"onednn": onednn_linear} if ONEDNN_LINEAR else {})}


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


def drop(x: Tensor, p: float) -> Tensor:
    """Dropout: with probability p, rounded to 1/65536, a number becomes zero; else * 1 / (1 - p).

    torch draws a number for each on one thread of a CPU; this draws 16 bits for each, 64 at once.
    """
    if p == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    return cast(Tensor, Drop.apply(x, p))  # type: ignore[no-untyped-call]


class Drop(torch.autograd.Function):
    """`drop`, from torch's generator of the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        words = numbers.view(torch.int16)[: x.numel()].view(x.shape)  # -32768 to 32767
        # Not above 32767, which a 16-bit number can't hold: all would be kept.
        first_kept = min(round(p * 2**16) - 2**15, 2**15 - 1)
        factors = (words >= first_kept).to(x.dtype).mul_(1 / (1 - p))
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return gradient * factors, None


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal scaled dot-product attention of queries (B, H, T, D) on keys and values (B, H, S, D).

    T = S, or T = 1: a single new token, which may see all of S.
    """
    T, S, D = q.shape[2], k.shape[2], q.shape[3]
    by_products = q.device.type == "cpu" and (q.dtype == torch.bfloat16 or dropout > 0)
    if not by_products or S > MATMUL_ATTENTION_MAX_TOKENS:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=T > 1)
    # On a CPU, PyTorch's fused bfloat16 kernel takes 2 to 6 times as long as plain matrix products,
    # until the (T, S) scores outgrow the caches (docs/BENCHMARKS.md). With dropout, none is fused.
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)
    if T > 1:
        scores = scores.masked_fill(torch.ones(T, S, dtype=torch.bool).triu(1), -math.inf)
    weights = F.softmax(scores, dim=-1).to(v.dtype)
    return drop(weights, dropout) @ v
