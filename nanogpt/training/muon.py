"""Muon: orthogonalized momentum for matrices, and AdamW for all other parameters.

Sources: Muon, https://kellerjordan.github.io/posts/muon; the polynomials ("Polar Express"),
https://arxiv.org/abs/2505.16932.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt.model import alike

# p(x) = a x + b x^3 + c x^5, one for each step of `orthogonalize`. The first is the polynomial of
# this form that's closest to 1 on [LOWEST, 1]; each later one, on the image of that interval under
# the previous steps. The lower end is kept at 0.024 of the upper end or more, so that no polynomial
# is too steep.
LOWEST = 0.01
POLYNOMIALS = (
    (7.5678, -21.5502, 15.8011),
    (3.8466, -3.2091, 0.7046),
    (2.6712, -1.9853, 0.4535),
    (1.9589, -1.3403, 0.3841),
    (1.8752, -1.2502, 0.3750),
)


def orthogonalize(matrices: Tensor, n_steps: int) -> Tensor:
    """Approximate the nearest matrices with orthonormal columns: (N, m, n) with m >= n.

    Each singular value s becomes p(...p(s)), which is close to 1. The singular vectors stay the
    same. All steps except the last product work on the n x n matrices G = X^T X, because X p(G) has
    the Gram matrix p G p.
    """
    multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul
    if alike.on():
        multiply = alike.product
        norms = torch.stack([alike.norm([matrix]) for matrix in matrices])[:, None, None]
    else:
        norms = torch.linalg.matrix_norm(matrices, keepdim=True)
    x = matrices / norms.clamp_min(1e-12)  # >= largest s
    gram = multiply(x.mT, x)  # (N, n, n)
    product = None  # of the polynomials so far; the result is x @ product
    last = n_steps - 1
    for step, (a, b, c) in enumerate(POLYNOMIALS[:n_steps]):
        if alike.on():
            polynomial = b * gram + c * multiply(gram, gram)
        else:
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = polynomial if product is None else multiply(product, polynomial)
        if step < last:
            gram = multiply(multiply(polynomial, gram), polynomial)
    assert product is not None
    return multiply(x, product)


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but groups with a `shape` are updated by Muon, with the group's `momentum`.

    shape: (m, n) with m >= n, of the matrices that are orthogonalized together. A parameter is one
    such matrix, its transpose, or several of them stacked. Its only state is its momentum.
    """

    def __init__(self, groups: list[dict[str, Any]], *, ns_steps: int, **options: Any) -> None:
        super().__init__(groups, **options)
        self._step_supports_amp_scaling = False  # so that a GradScaler skips the whole step
        self.ns_steps = ns_steps

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all parameters. Overwrites the gradients of Muon's parameters."""
        assert closure is None
        for group in self.param_groups:
            if "shape" in group:
                self._step_muon(group)
        super().step()  # skips parameters without a gradient

    def _step_muon(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        momentum = group["momentum"]
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            parameter.grad = None
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        torch._foreach_lerp_(gradients, buffers, momentum)  # Nesterov
        m, n = group["shape"]
        tall = torch.cat([_as_tall(gradient).reshape(-1, m, n) for gradient in gradients])
        updates = orthogonalize(tall, self.ns_steps)  # (N, m, n)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for parameter in parameters:
            count = parameter.numel() // (m * n)
            update, updates = updates[:count], updates[count:]
            rows, columns = (m, n) if count > 1 else parameter.shape
            # This scale makes the effect of an update on the output independent of the shape.
            scale = max(1.0, rows / columns) ** 0.5
            parameter.add_(_like(update, parameter), alpha=-group["lr"] * scale)


def _as_tall(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT


def _like(tall: Tensor, parameter: Tensor) -> Tensor:
    """Undo `_as_tall`: give (N, m, n) the shape of a parameter."""
    if parameter.shape[0] >= parameter.shape[1]:
        return tall.reshape(parameter.shape)
    return tall[0].mT
