"""The same bits on any x86-64 CPU with AVX2 and with any number of threads.

CPUs and numbers of threads differ in the order in which sums are added, and CPUs in the last bits
of functions such as exp. Once `use` was called,

- torch's own kernels are those for AVX2, on a CPU with AVX-512 too
- a matrix product is a sum, in order, of products of at most TERMS terms; oneDNN's kernels add so
  few one after the other, each with one rounding, whatever the CPU and the number of threads
- what torch computes differently by CPU or threads (softmax, cross entropy, GELU, layer norm, sums
  over everything) is made of what it doesn't
- a sum over everything is one of sums of SUMMED numbers

`use` computes all of it on fixed numbers and compares digests, so that a machine on which something
differs after all says so instead of training another model. docs/REPRODUCIBILITY.md has the
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
SMALLEST = 16  # rows and columns of a product; smaller ones are filled up, as they have own kernels

# sha256 of what `operations` gives, its first 16 digits.
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
    """Whether this process computes alike on all machines."""
    return _on


def use() -> None:
    """Compute alike from here on; to be called before torch computes anything.

    Errors: UserError on a machine that can't.
    """
    global _on
    set_cpu_capability("avx2")
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512":
        raise UserError(
            "reproducible: anywhere: torch has computed something in this process already; start "
            "another one"
        )
    if capability != "AVX2" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        raise UserError(
            "reproducible: anywhere needs an x86-64 CPU with AVX2, and oneDNN in torch; torch "
            f"computes for {capability} here; set reproducible: machine"
        )
    different = [name for name, digest in digests().items() if digest != DIGESTS.get(name)]
    if different:
        raise UserError(
            f"reproducible: anywhere: this machine computes other bits ({', '.join(different)}); "
            "set reproducible: machine, and please report its CPU and its version of torch"
        )
    _on = True


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of a (..., M, K) and b (..., K, N), of two or three dimensions."""
    return cast(Tensor, Product.apply(a, b))  # type: ignore[no-untyped-call]


class Product(torch.autograd.Function):
    """`product`, whose gradients are products too."""

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
    """Matrices (B, M, K), with rows of zeros below them if they have fewer than SMALLEST."""
    missing = SMALLEST - matrices.shape[1]
    return F.pad(matrices, (0, 0, 0, missing)) if missing > 0 else matrices


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., in), (out, in), (out,) -> (..., out)."""
    y = product(x.flatten(0, -2), weight.mT).view(*x.shape[:-1], len(weight))
    return y if bias is None else y + bias


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Of queries (N, T, D) on keys (N, S, D), causal if T > 1: (N, T, S)."""
    T, S = q.shape[1], k.shape[1]
    scores = product(q, k.mT) / math.sqrt(q.shape[2])
    if T > 1:
        scores = scores.masked_fill(torch.ones(T, S, dtype=torch.bool).triu(1), -math.inf)
    return softmax(scores)


def softmax(x: Tensor) -> Tensor:
    """Over the last dimension."""
    powers = exp(x - x.detach().amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def log_softmax(x: Tensor) -> Tensor:
    """Over the last dimension."""
    shifted = x - x.detach().amax(-1, keepdim=True)
    # The sum is at least 1.
    return shifted - (exp(shifted).sum(-1, keepdim=True) - 1).log1p()


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """The surprise (N,) of targets (N,) by logits (N, V)."""
    return -log_softmax(logits).gather(-1, targets[:, None])[:, 0]


def exp(x: Tensor) -> Tensor:
    """e to the power of each number, none of them above 0 but for rounding.

    torch's exp is MKL's, which may differ by CPU; expm1 isn't. Nor is exp2, but torch computes the
    last few numbers of each thread's share of it by the C library, which differs from the rest.
    """
    return cast(Tensor, Exp.apply(x))  # type: ignore[no-untyped-call]


class Exp(torch.autograd.Function):
    """`exp`: 1 / (1 + (e^-x - 1)), precise for e^-x of 1 and more."""

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
    """The natural logarithm of each number, x = m 2^n with m from 1/2 to 1; -inf of 0."""
    m, n = torch.frexp(x)
    return torch.log1p(m - 1) + n * math.log(2)


def tanh(x: Tensor) -> Tensor:
    """Of each number, from what isn't MKL's, too; above 15, the last bit is the same."""
    more = torch.expm1(2 * x.clamp(-15, 15))
    return more / (more + 2)


def gelu(x: Tensor, approximate: str) -> Tensor:
    """GELU as torch has it, approximate: none or tanh. Source: https://arxiv.org/abs/1606.08415."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + tanh(inner))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def erf(x: Tensor) -> Tensor:
    """The error function, to 5e-7. Source: Abramowitz and Stegun, 7.1.26."""
    t = 1 / (1 + 0.3275911 * x.abs())
    polynomial = torch.zeros_like(t)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial = (polynomial + coefficient) * t
    return torch.sign(x) * (1 - polynomial * exp(-x * x))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Source: https://arxiv.org/abs/1607.06450."""
    centred = x - x.mean(-1, keepdim=True)
    y = centred * (centred * centred).mean(-1, keepdim=True).add(epsilon).rsqrt() * weight
    return y if bias is None else y + bias


def total(x: Tensor) -> Tensor:
    """The sum of all numbers of x."""
    x = x.flatten()
    while len(x) > SUMMED:
        x = F.pad(x, (0, -len(x) % SUMMED)).view(-1, SUMMED).sum(-1)
    return x.sum()


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """The root of the sum of all squares."""
    return torch.stack([total(x * x) for x in tensors]).sum().sqrt()


def digests() -> dict[str, str]:
    """For each operation on fixed numbers, the first digits of its result's sha256."""
    return {name: digest(operation()) for name, operation in operations().items()}


def digest(result: Tensor) -> str:
    return hashlib.sha256(result.detach().contiguous().numpy().tobytes()).hexdigest()[:16]


def operations() -> dict[str, Callable[[], Tensor]]:
    """What a training, an evaluation and a sampling are made of, each on fixed numbers."""
    seeded = torch.Generator().manual_seed(0)
    numbers = torch.randn(300, 400, generator=seeded)
    # Exact in any arithmetic, unlike those that torch drew.
    grid = torch.arange(-4096, 4096, dtype=torch.float32) / 512
    # Of 24 bits, so that each product is rounded, and the order of a sum shows.
    rows = (torch.arange(41 * 300) * 1_299_709 % 8_388_593 - 4_194_296).float().view(
        41, 300
    ) / 2**21
    odd = torch.cat([grid, grid, grid, grid, grid[:-3]])  # split over threads, with a rest for each
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
