"""Bit-identical results on any x86-64 CPU with AVX2 and with any number of threads.

The order of additions depends on the CPU and on the number of threads, and the last bits of
functions such as exp depend on the CPU. After `use` has been called:

- torch uses its AVX2 kernels, even on a CPU with AVX-512
- a matrix product is an ordered sum of products of at most TERMS terms; oneDNN adds that few terms
  one after another with one rounding each, on any CPU and with any number of threads
- operations that torch computes differently by CPU or threads (softmax, cross entropy, GELU, layer
  norm, sums of whole tensors) are composed of operations that it doesn't
- a tensor is summed in chunks of SUMMED numbers

`use` runs all of these on fixed numbers and compares digests, so a machine with different results
stops with an error instead of training a different model. docs/REPRODUCIBILITY.md has the
measurements.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nanogpt.errors import UserError
from nanogpt.project import set_cpu_capability

TERMS = 128
SUMMED = 1024
SMALLEST = 16  # rows and columns; oneDNN has other kernels for smaller products, so they're padded

# The first 16 hex digits of the sha256 of each result of `operations`.
DIGESTS = {
    "random numbers": "cc1b81791adf64db",
    "draws": "978d55dc58f2384f",
    "powers": "6c623601ab5a9003",
    "logarithms": "d065e9b763af1f10",
    "roots": "394cd0982d5b9c08",
    "averages": "2f60298f18b1041a",
    "product": "ccce41a0f19bb7b8",
    "product with few rows": "2d5c0077a75cc868",
    "products of a batch": "4472b7937e7b8b64",
    "softmax": "399e713c0c5808c4",
    "cross entropy": "f3ca3c4187c1a81b",
    "GELU": "522bcf7f581920b6",
    "tanh": "50164e43f7d1f970",
    "layer norm": "994f2ccb92e1c9ee",
    "norm of rows": "3dc2a32703b58fa2",
    "sums": "acb7b44390328803",
    "norm": "87678a975345d04a",
}

_on = False


def on() -> bool:
    """Whether this process gets the same bits as other machines."""
    return _on


def use() -> None:
    """Get the same bits as other machines from now on. Call it before torch computes anything.

    Errors: UserError on a machine that can't.
    """
    global _on
    set_cpu_capability("avx2")
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512":
        raise UserError(
            "`reproducible: anywhere`: torch has already computed something in this process; start "
            "a new process"
        )
    if capability != "AVX2" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        raise UserError(
            "`reproducible: anywhere`: needs an x86-64 CPU with AVX2 and a torch with oneDNN, but "
            f"torch computes for {capability} here; set `reproducible: machine`"
        )
    different = [name for name, digest in digests().items() if digest != DIGESTS.get(name)]
    if different:
        raise UserError(
            "`reproducible: anywhere`: this machine's results differ from those of "
            f"others (in: {', '.join(different)}); set `reproducible: machine`, and please open an "
            "issue with your CPU and torch version"
        )
    _on = True


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product of a (..., M, K) and b (..., K, N), both 2-D or 3-D."""
    return cast(Tensor, Product.apply(a, b))  # type: ignore[no-untyped-call]


class Product(torch.autograd.Function):
    """`product`, with gradients that are products too."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return _product(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return _product(gradient, b.mT), _product(a.mT, gradient)


def _product(a: Tensor, b: Tensor) -> Tensor:
    if a.dim() == 2:
        return _product(a[None], b[None])[0]
    rows, columns = _at_least(a), _at_least(b.mT)  # (B, M, K), (B, N, K)
    total = None
    parts = (torch.split(matrices, TERMS, -1) for matrices in (rows, columns))
    for some, their in zip(*parts, strict=True):
        matrices = zip(some.contiguous(), their.contiguous(), strict=True)
        part = torch.stack(
            [torch.ops.mkldnn._linear_pointwise(x, y, None, "none", [], "") for x, y in matrices]
        )
        total = part if total is None else total.add_(part)
    return cast(Tensor, total)[:, : a.shape[1], : b.shape[2]]


def _at_least(matrices: Tensor) -> Tensor:
    """Pad matrices (B, M, K) with rows of zeros to at least SMALLEST rows."""
    missing = SMALLEST - matrices.shape[1]
    return F.pad(matrices, (0, 0, 0, missing)) if missing > 0 else matrices


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., in), (out, in), (out,) -> (..., out)."""
    y = product(x.flatten(0, -2), weight.mT).view(*x.shape[:-1], len(weight))
    return y if bias is None else y + bias


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Return the attention weights (N, T, S) of queries (N, T, D) on keys (N, S, D).

    They're causal if T > 1.
    """
    T, S = q.shape[1], k.shape[1]
    scores = product(q, k.mT) / math.sqrt(q.shape[2])
    if T > 1:
        scores = scores.masked_fill(torch.ones(T, S, dtype=torch.bool).triu(1), -math.inf)
    return softmax(scores)


def softmax(x: Tensor) -> Tensor:
    """Computed over the last dimension."""
    powers = exp(x - x.detach().amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def log_softmax(x: Tensor) -> Tensor:
    """Computed over the last dimension."""
    shifted = x - x.detach().amax(-1, keepdim=True)
    # The sum is at least 1.
    return shifted - (exp(shifted).sum(-1, keepdim=True) - 1).log1p()


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy in nats (N,) of targets (N,) under logits (N, V)."""
    return -log_softmax(logits).gather(-1, targets[:, None])[:, 0]


def exp(x: Tensor) -> Tensor:
    """Return e to the power of each number. The numbers must be at most 0, except for rounding.

    torch's exp calls MKL, which may differ by CPU. expm1 doesn't. Neither does exp2, but torch
    computes the last few numbers of each thread's share with the C library, which rounds
    differently.
    """
    return cast(Tensor, Exp.apply(x))  # type: ignore[no-untyped-call]


class Exp(torch.autograd.Function):
    """`exp` as 1 / (1 + (e^-x - 1)), which is precise for e^-x of at least 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        powers = (torch.expm1(-x) + 1).reciprocal()
        ctx.save_for_backward(powers)
        return powers

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        powers: Tensor
        (powers,) = ctx.saved_tensors
        return gradient * powers


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of each x = m 2^n, with m from 1/2 to 1; -inf for 0."""
    m, n = torch.frexp(x)
    return torch.log1p(m - 1) + n * math.log(2)


def tanh(x: Tensor) -> Tensor:
    """Return the tanh of each number, without MKL's tanh. Beyond 15, float32's tanh is 1."""
    more = torch.expm1(2 * x.clamp(-15, 15))
    return more / (more + 2)


def gelu(x: Tensor, approximate: str) -> Tensor:
    """torch's GELU. approximate: none or tanh. Source: https://arxiv.org/abs/1606.08415."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + tanh(inner))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def erf(x: Tensor) -> Tensor:
    """The error function, accurate to 5e-7. Source: Abramowitz and Stegun, 7.1.26."""
    t = 1 / (1 + 0.3275911 * x.abs())
    polynomial = torch.zeros_like(t)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial = (polynomial + coefficient) * t
    return torch.sign(x) * (1 - polynomial * exp(-x * x))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Layer norm over the last dimension. Source: https://arxiv.org/abs/1607.06450."""
    centred = x - x.mean(-1, keepdim=True)
    y = centred * (centred * centred).mean(-1, keepdim=True).add(epsilon).rsqrt() * weight
    return y if bias is None else y + bias


def total(x: Tensor) -> Tensor:
    """Return the sum of all numbers in x."""
    x = x.flatten()
    while len(x) > SUMMED:
        x = F.pad(x, (0, -len(x) % SUMMED)).view(-1, SUMMED).sum(-1)
    return x.sum()


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm of all tensors together."""
    return torch.stack([total(x * x) for x in tensors]).sum().sqrt()


def digests() -> dict[str, str]:
    """Run each operation on fixed numbers; return the first digits of each result's sha256."""
    return {name: digest(operation()) for name, operation in operations().items()}


def digest(result: Tensor) -> str:
    return hashlib.sha256(result.detach().contiguous().numpy().tobytes()).hexdigest()[:16]


def operations() -> dict[str, Callable[[], Tensor]]:
    """The operations of training, evaluation and sampling, each on fixed numbers."""
    seeded = torch.Generator().manual_seed(0)
    numbers = torch.randn(300, 400, generator=seeded)
    # Exact in any arithmetic, unlike random numbers.
    grid = torch.arange(-4096, 4096, dtype=torch.float32) / 512
    # Numbers with 24 bits, so every product is rounded and the order of a sum matters.
    rows = (torch.arange(41 * 300) * 1_299_709 % 8_388_593 - 4_194_296).float().view(
        41, 300
    ) / 2**21
    odd = torch.cat([grid, grid, grid, grid, grid[:-3]])  # leaves a remainder for each thread
    index = torch.arange(41) % 7

    def surprise() -> Tensor:
        logits = rows.clone().requires_grad_()
        gradient: Tensor
        (gradient,) = torch.autograd.grad(total(nats(logits, index)), logits)
        return gradient

    def draws() -> Tensor:
        sums = softmax(rows).double().cumsum(-1)
        at = [torch.rand(len(rows), 1, generator=seeded, dtype=torch.float64) for _ in range(9)]
        return torch.cat([torch.searchsorted(sums, one * sums[:, -1:], right=True) for one in at])

    return {
        "random numbers": lambda: numbers,
        "draws": draws,
        "powers": lambda: torch.cat([exp(-odd.abs()), odd.expm1(), odd.abs().log1p()]),
        "logarithms": lambda: log(odd.abs()),
        "roots": lambda: torch.cat([(odd + 8.25).sqrt(), (odd + 8.25).rsqrt()]),
        "averages": lambda: torch.cat([odd.lerp(odd * odd, 0.1), odd.lerp(odd * odd, 0.9)]),
        "product": lambda: product(rows, rows.mT),
        "product with few rows": lambda: product(rows[:1], rows.mT),
        "products of a batch": lambda: product(rows[:40].view(5, 8, 300), rows[1:].view(5, 300, 8)),
        "softmax": lambda: softmax(rows),
        "cross entropy": surprise,
        "GELU": lambda: torch.cat([gelu(odd, "none"), gelu(odd, "tanh")]),
        "tanh": lambda: tanh(odd),
        "layer norm": lambda: layer_norm(rows, rows[0], rows[1], 1e-5),
        "norm of rows": lambda: torch.linalg.vector_norm(rows, dim=-1),
        "sums": lambda: torch.cat([rows.sum(0), rows.sum(-1), torch.stack([total(rows)])]),
        "norm": lambda: norm([rows, numbers]),
    }
