"""Muon's updates are orthogonal, and its steps agree with the formula."""

import pytest
import torch
from torch import nn

from nanogpt.training.muon import LOWEST, POLYNOMIALS, MuonAdamW, orthogonalize


def with_singular_values(m, n, values):
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(m, n, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    return left @ torch.diag(values) @ right.T, left @ right.T


@pytest.mark.parametrize(("m", "n"), [(8, 8), (32, 8)])
@pytest.mark.parametrize("n_steps", [1, 3, 5])
def test_polynomials_change_singular_values_but_not_singular_vectors(m, n, n_steps):
    values = torch.linspace(0.02, 1, n, dtype=torch.float64)
    matrix, _ = with_singular_values(m, n, values)
    expected = values / values.norm()
    for a, b, c in POLYNOMIALS[:n_steps]:
        expected = a * expected + b * expected**3 + c * expected**5
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    order = values.flip(0)
    torch.testing.assert_close(s, order)
    exact = u @ torch.diag(expected.flip(0)) @ vt
    found = orthogonalize(matrix[None].float(), n_steps)[0]
    torch.testing.assert_close(found.double(), exact, atol=2e-4, rtol=1e-3)


def test_five_steps_give_the_nearest_orthogonal_matrix():
    matrix, nearest = with_singular_values(32, 8, torch.linspace(0.05, 1, 8, dtype=torch.float64))
    found = orthogonalize(matrix[None].float(), 5)[0]
    torch.testing.assert_close(found.double(), nearest, atol=1e-2, rtol=0)


def test_stacked_matrices_do_not_mix():
    stack = torch.randn(3, 12, 6, generator=torch.Generator().manual_seed(1))
    alone = [orthogonalize(stack[[i]], 3)[0] for i in range(3)]
    torch.testing.assert_close(orthogonalize(stack, 3), torch.stack(alone))


def test_a_gradient_of_zeros_gives_no_update():
    assert not orthogonalize(torch.zeros(1, 4, 4), 3).any()


def test_each_polynomial_is_as_far_above_one_as_below():
    """This holds for polynomials with the least maximal error, which is how they were found."""
    low, high = LOWEST, 1.0
    for a, b, c in POLYNOMIALS:
        x = torch.linspace(max(low, 0.024 * high), high, 100_001, dtype=torch.float64)
        p = a * x + b * x**3 + c * x**5
        assert 1 - p.min().item() == pytest.approx(p.max().item() - 1, abs=5e-3)
        low, high = min(a * low + b * low**3 + c * low**5, p.min().item()), p.max().item()


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((12, 12), 12, 12), ((48, 12), 48, 12), ((12, 48), 12, 48), ((36, 12), 12, 12)],
    ids=["square", "tall", "wide", "three on top of each other"],
)
def test_steps_agree_with_the_formula(shape, rows, columns):
    generator = torch.Generator().manual_seed(2)
    parameter = nn.Parameter(torch.randn(shape, generator=generator))
    tall = (max(rows, columns), min(rows, columns))
    group = {"params": [parameter], "shape": tall, "momentum": 0.9, "weight_decay": 0.5}
    optimizer = MuonAdamW([group], ns_steps=3, lr=0.1, fused=True)
    expected = parameter.detach().double().clone()
    momentum = torch.zeros(shape, dtype=torch.float64)
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        parameter.grad = gradient.clone()
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        nesterov = 0.1 * gradient + 0.9 * momentum
        pieces = []
        for piece in nesterov.reshape(-1, rows, columns):
            matrix = piece.mT if rows < columns else piece
            update = orthogonalize(matrix[None].float(), 3)[0].double()
            pieces.append(update.mT if rows < columns else update)
        scale = max(1, rows / columns) ** 0.5
        expected = (1 - 0.1 * 0.5) * expected
        expected -= 0.1 * scale * torch.cat(pieces)
    torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-4, rtol=0)
    assert list(optimizer.state[parameter]) == ["momentum_buffer"]
