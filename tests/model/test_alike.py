"""The machine-independent operations agree with torch's, up to the last few bits."""

import pytest
import torch
from torch.nn import functional as F

from nanogpt.model import alike

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
OPERATIONS = {
    "softmax": (alike.softmax, lambda x: x.softmax(-1)),
    "log_softmax": (alike.log_softmax, lambda x: x.log_softmax(-1)),
    "gelu": (lambda x: alike.gelu(x, "none"), F.gelu),
    "gelu_tanh": (lambda x: alike.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "tanh": (alike.tanh, torch.tanh),
    "erf": (alike.erf, torch.erf),
    "total": (alike.total, torch.sum),
    "norm": (lambda x: alike.norm([x, 2 * x]), lambda x: torch.cat([x, 2 * x]).norm()),
}


def numbers(*shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def results(function, *inputs):
    """Return a function's result and its gradients."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    result = function(*inputs)
    weights = numbers(*result.shape) if result.dim() else torch.tensor(1.0)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), inputs)]


def assert_same(ours, torchs, *inputs, **tolerance):
    pairs = zip(results(ours, *inputs), results(torchs, *inputs), strict=True)
    for our, expected in pairs:
        torch.testing.assert_close(our, expected, **(tolerance or CLOSE))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 65), (40, 129)])
def test_each_operation_agrees_with_torchs(name, shape):
    assert_same(*OPERATIONS[name], numbers(*shape), atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (1, 300, 5), (20, 128, 40), (33, 257, 17)])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_product_agrees_with_torchs_matmul(batch, m, k, n):
    a, b = numbers(*batch, m, k), numbers(*batch, k, n)
    assert_same(alike.product, torch.matmul, a, b, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
def test_layers_agree_with_torchs(with_bias):
    x, weight, bias = numbers(2, 5, 24), numbers(9, 24), numbers(9)
    more = [bias] if with_bias else []
    assert_same(alike.linear, F.linear, x, weight, *more, atol=1e-3, rtol=1e-5)
    gain, shift = numbers(24), numbers(24)
    more = [shift] if with_bias else []

    def ours(x, gain, shift=None):
        return alike.layer_norm(x, gain, shift, 1e-5)

    def torchs(x, gain, shift=None):
        return F.layer_norm(x, (24,), gain, shift, 1e-5)

    assert_same(ours, torchs, x, gain, *more, atol=1e-4, rtol=1e-4)


def test_attention_weights_are_a_softmax_over_the_tokens_so_far():
    q, k = numbers(6, 10, 8), numbers(6, 10, 8)
    weights = alike.attention_weights(q, k)
    expected = F.scaled_dot_product_attention(q, k, torch.eye(10).expand(6, 10, 10), is_causal=True)
    torch.testing.assert_close(weights, expected, **CLOSE)
    last = alike.attention_weights(q[:, -1:], k)
    torch.testing.assert_close(last, expected[:, -1:], **CLOSE)


def test_the_error_function_is_accurate_to_the_last_bits():
    x = torch.linspace(-6, 6, 10_001)
    assert (alike.erf(x) - torch.erf(x)).abs().max() < 1e-6


def test_nats_agree_with_torchs_cross_entropy():
    logits, targets = numbers(30, 65), torch.arange(30)
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(alike.nats(logits, targets), expected, **CLOSE)
