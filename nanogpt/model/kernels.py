"""Faster versions of operations that torch computes slowly on some machines.

Versions differ in the last bits, so a training's layout records which one it used.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nanogpt.devices import is_intel
from nanogpt.errors import UserError
from nanogpt.model import alike
from nanogpt.project import matmul_override

# With a vocabulary of at least this size, a CPU computes the loss in groups of tokens.
LARGE_VOCABULARY = 8192
LOGITS_AT_ONCE = 1 << 22  # numbers per group
GRADIENTS_AT_ONCE = 1 << 26  # numbers that are collected for one matrix product

# An internal operator of torch's compiler, which some versions and builds lack.
ONEDNN_LINEAR = hasattr(torch.ops.mkldnn, "_linear_pointwise")

_matmul: str | None = None  # None: not chosen yet


def prepare_kernels(reproducible: str) -> None:
    """Choose kernels for `reproducible`: `machine` or `anywhere`. Call it before torch is used.

    Errors: UserError on a machine that can't, or in a process that already uses the other one.
    """
    if reproducible == "anywhere":
        alike.use()
    elif alike.on():
        raise UserError(
            "`reproducible: machine`: this process already computes with `reproducible: anywhere`; "
            "start a new process"
        )


def matmul_in_use() -> str:
    """Return the kernel for float32 products on this CPU: `torch` (MKL on x86) or `onednn`.

    Errors: UserError for a NANOGPT_MATMUL that is unknown or that this build of torch lacks.
    """
    return _matmul or use_matmul(matmul_override() or usual_matmul())


def usual_matmul() -> str:
    """Return the faster kernel for this CPU.

    MKL uses AVX-512 only on Intel CPUs; oneDNN uses it on all of them. Without AVX-512, both are
    equally fast except for the gradients of weights, where MKL is faster (docs/BENCHMARKS.md).
    """
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "onednn" if ONEDNN_LINEAR and avx512 and not is_intel() else "torch"


def use_matmul(name: str) -> str:
    """Use `torch` or `onednn` for float32 products from now on; return the name.

    Errors: UserError for another name, or one that this build of torch lacks.
    """
    global _matmul
    if name not in ("torch", "onednn"):
        raise UserError(f"NANOGPT_MATMUL: unknown value `{name}`; use `torch` or `onednn`")
    if name not in matmuls():
        raise UserError("NANOGPT_MATMUL: this build of torch has no oneDNN; use `torch`")
    _matmul = name
    return name


def keep_matmul(name: str) -> None:
    """Use the kernel that a resumed training used before, unless NANOGPT_MATMUL overrides it."""
    if matmul_override() is None and name in matmuls():
        use_matmul(name)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., in), (out, in), (out,) -> (..., out)."""
    if alike.on():
        return alike.linear(x, weight, bias)
    float32_on_cpu = (
        x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    )
    if not float32_on_cpu or torch.compiler.is_compiling() or matmul_in_use() == "torch":
        return F.linear(x, weight, bias)
    return cast(Tensor, OneDnnLinear.apply(x, weight, bias))  # type: ignore[no-untyped-call]


class OneDnnLinear(torch.autograd.Function):
    """x @ weight.T + bias by oneDNN, for float32 on a CPU; MKL computes the weights' gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # (B * T, out)
        of_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        # With two threads, oneDNN takes up to twice as long here.
        of_weight = rows.t() @ x.flatten(0, -2)
        return onednn_linear(gradient, weight.t()), of_weight, of_bias


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias by oneDNN, without a gradient."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def matmuls() -> dict[str, Callable[..., Tensor]]:
    """Return the kernels for x @ weight.T on a CPU that this build of torch has."""
    return {"torch": F.linear, **({"onednn": onednn_linear} if ONEDNN_LINEAR else {})}


def rms_norm(x: Tensor, epsilon: float) -> Tensor:
    """Divide x by its root mean square over the last dimension. epsilon: added to the mean.

    Source: https://arxiv.org/abs/1910.07467. torch needs several passes over memory on a CPU.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.rms_norm(x, (x.shape[-1],), eps=epsilon)
    if torch.is_inference_mode_enabled():
        y: Tensor = x * _rms_scale(x, epsilon)
        return y
    return cast(Tensor, RmsNorm.apply(x, epsilon))  # type: ignore[no-untyped-call]


def _rms_scale(x: Tensor, epsilon: float) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
    return norms.square().div_(x.shape[-1]).add_(epsilon).rsqrt_().to(x.dtype)


class RmsNorm(torch.autograd.Function):
    """`rms_norm` with fewer passes over memory, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> Tensor:
        scale = _rms_scale(x, epsilon)
        y: Tensor = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(-1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale), None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x[..., i], x[..., i + D/2]) of x (..., D) by an angle.

    cos, sin: of the angles, with shapes that broadcast with (..., D/2).

    Source: https://arxiv.org/abs/2104.09864, with pairs half a head apart.
    """
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return _turn(x, cos, sin)
    return cast(Tensor, Rotate.apply(x, cos, sin))  # type: ignore[no-untyped-call]


class Rotate(torch.autograd.Function):
    """`rotate`; its gradient is the opposite rotation."""

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


def gelu(x: Tensor, approximate: str) -> Tensor:
    """GELU. approximate: none or tanh. Source: https://arxiv.org/abs/1606.08415."""
    return alike.gelu(x, approximate) if alike.on() else F.gelu(x, approximate=approximate)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Layer norm over the last dimension. Source: https://arxiv.org/abs/1607.06450."""
    if alike.on():
        return alike.layer_norm(x, weight, bias, epsilon)
    return F.layer_norm(x, weight.shape, weight, bias, epsilon)


def exp(x: Tensor) -> Tensor:
    """Return e to the power of each number. The numbers must be at most 0, except for rounding."""
    return alike.exp(x) if alike.on() else x.exp()


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of each number."""
    return alike.log(x) if alike.on() else x.log()


def softmax(x: Tensor) -> Tensor:
    """Turn logits (..., V) into probabilities."""
    return alike.softmax(x) if alike.on() else F.softmax(x, dim=-1)


def log_softmax(x: Tensor) -> Tensor:
    """Turn logits (..., V) into logarithms of probabilities."""
    return alike.log_softmax(x) if alike.on() else F.log_softmax(x, dim=-1)


def squared_relu(x: Tensor) -> Tensor:
    """x^2 where x is positive, else 0. Source: https://arxiv.org/abs/2109.08668."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return F.relu(x).square()
    return cast(Tensor, SquaredRelu.apply(x))  # type: ignore[no-untyped-call]


class SquaredRelu(torch.autograd.Function):
    """`squared_relu` with one pass over memory fewer, forward and backward."""

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
    """Dropout: zero each number with probability p (rounded to 1/65536); scale others by 1/(1-p).

    On a CPU, torch draws a random number per element on one thread. This needs 16 bits per element
    and draws 64 at a time.
    """
    if p == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    return cast(Tensor, Drop.apply(x, p))  # type: ignore[no-untyped-call]


class Drop(torch.autograd.Function):
    """`drop`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        factors = drop_factors(x, p)
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return gradient * factors, None


def drop_factors(x: Tensor, p: float) -> Tensor:
    """Draw the factors by which dropout multiplies x, from torch's CPU generator."""
    numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    words = numbers.view(torch.int16)[: x.numel()].view(x.shape)  # -32768 to 32767
    # At most 32767, the largest 16-bit number; a larger one would wrap around.
    first_kept = min(round(p * 2**16) - 2**15, 2**15 - 1)
    return (words >= first_kept).to(x.dtype).mul_(1 / (1 - p))


def head_loss(x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    """Return the mean loss in nats of targets (N,), from hidden states x (N, C).

    weight: of the output layer, (V, C). cap: of the logits, as in `soft_capped`. For training: it
    computes gradients along with the loss. Logits are computed for one group of tokens at a time,
    which fits a CPU's cache; memory holds only their gradients.
    """
    return cast(Tensor, HeadLoss.apply(x, weight, targets, cap))  # type: ignore[no-untyped-call]


class HeadLoss(torch.autograd.Function):
    """`head_loss`, with products in autocast's dtype if autocast is on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        states, matrix = x.to(dtype), weight.to(dtype)
        nats, of_states, of_matrix = torch.zeros(()), [], []
        for outer in _slices(len(x), GRADIENTS_AT_ONCE // len(weight)):
            some, their = states[outer], targets[outer]
            gradients = torch.empty(len(some), len(weight), dtype=dtype)
            for inner in _slices(len(some), LOGITS_AT_ONCE // len(weight)):
                logits = linear(some[inner], matrix).float()
                nats += _surprise(logits, their[inner], cap, gradients[inner])
            of_states.append(linear(gradients, matrix.t()))
            of_matrix.append((gradients.t() @ some).float())  # not by oneDNN, as in OneDnnLinear
            if len(of_matrix) == 2:
                of_matrix = [of_matrix[0].add_(of_matrix[1])]
        ctx.save_for_backward(torch.cat(of_states).float(), of_matrix[0])
        return nats / len(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_x, of_weight = ctx.saved_tensors  # of the sum, not of the mean
        share = gradient / len(of_x)
        return share * of_x, share * of_weight, None, None


def _surprise(logits: Tensor, targets: Tensor, cap: float, gradients: Tensor) -> Tensor:
    """Return the summed loss in nats of targets (N,) under logits (N, V).

    Overwrites the logits and writes their gradients into `gradients`.
    """
    index = targets[:, None]
    if cap:
        logits.div_(cap).tanh_()
    capped = cap * logits if cap else logits
    of_logits = capped.softmax(-1)
    # The likeliest token's loss is -log p. Another token's is larger by the difference in logits.
    more = capped.amax(-1) - capped.gather(1, index)[:, 0]
    nats = (more - of_logits.amax(-1).log()).sum()
    of_logits.scatter_add_(1, index, torch.full(index.shape, -1.0))
    if cap:  # of tanh: 1 - tanh^2
        of_logits.addcmul_(of_logits * logits, logits, value=-1)
    gradients.copy_(of_logits)
    return nats


def _slices(n: int, size: int) -> Iterator[slice]:
    """Split 0 to n into slices of `size`, which is at least 1."""
    size = max(1, size)
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def soft_capped(logits: Tensor, cap: float) -> Tensor:
    """Return cap * tanh(logits / cap), which stays within ±cap; with a cap of 0, the logits.

    Source: https://arxiv.org/abs/2408.00118.
    """
    if not cap:
        return logits
    tanh = alike.tanh if alike.on() else torch.tanh
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cap * tanh(wide / cap)
