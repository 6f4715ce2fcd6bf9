"""The faster kernels agree with torch's."""

import math

import pytest
import torch
from torch.nn import functional as F

from nanogpt.errors import UserError
from nanogpt.model import attention, kernels
from nanogpt.model.attention import MATMUL_ATTENTION_MAX_TOKENS, attend
from nanogpt.model.kernels import (
    drop,
    head_loss,
    keep_matmul,
    linear,
    matmul_in_use,
    matmuls,
    rms_norm,
    rotate,
    soft_capped,
    squared_relu,
    use_matmul,
    usual_matmul,
)


@pytest.mark.parametrize("T", [1, 7, 64, 128])
def test_bfloat16_attention_on_a_cpu_agrees_with_the_fused_kernel(T):
    generator = torch.Generator().manual_seed(T)
    q, k, v = torch.randn(3, 2, 3, T, 16, generator=generator)
    q = 2 * q  # so that some tokens get far more attention than others
    q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    ours = attend(q, k, v, dropout=0.0)
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    assert ours.dtype == torch.bfloat16
    # bfloat16 has 8 bits and values reach about 3, so each has an error of 2**-9, and some add up.
    torch.testing.assert_close(ours.double(), exact, atol=0.03, rtol=0.02)
    torch.testing.assert_close(ours, fused, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("S", [40, MATMUL_ATTENTION_MAX_TOKENS + 1])
def test_attention_is_a_softmax_over_the_tokens_so_far(dtype, S):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, S, 8, generator=generator).to(dtype)
    expected = torch.empty(1, 2, S, 8)
    for t in range(S):
        scores = torch.einsum("bhd,bhsd->bhs", q[:, :, t].float(), k[:, :, : t + 1].float())
        weights = (scores / math.sqrt(8)).softmax(-1)
        expected[:, :, t] = torch.einsum("bhs,bhsd->bhd", weights, v[:, :, : t + 1].float())
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(attend(q, k, v, 0.0).float(), expected, atol=tolerance, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_drops_weights_and_keeps_their_sum_on_average(dtype):
    torch.manual_seed(0)
    q = torch.zeros(1, 1, 200, 4, dtype=dtype)
    ones = torch.ones(1, 1, 200, 4, dtype=dtype)
    out = attend(q, q, ones, dropout=0.5)[0, 0, -100:, 0].float()  # all weights are equal
    assert out.std() > 0.02
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(attend(q, q, ones, 0.0), attend(q, q, ones, 0.0))


@pytest.fixture
def unchosen(monkeypatch):
    """Reset the choice of a matmul kernel, as in a new process without NANOGPT_MATMUL."""
    monkeypatch.setattr(kernels, "_matmul", None)
    monkeypatch.delenv("NANOGPT_MATMUL", raising=False)


@pytest.mark.parametrize("shape", [(3, 5, 8), (5, 8)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.usefixtures("unchosen")
@pytest.mark.parametrize("way", list(matmuls()))
def test_linear_and_its_gradients_agree_with_torchs(shape, with_bias, way):
    use_matmul(way)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(6, 8, generator=generator)
    bias = torch.randn(6, generator=generator) if with_bias else None
    outcomes = []
    for layer in (linear, F.linear):
        given = [None if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
        y = layer(*given)
        y.square().sum().backward()
        outcomes.append([y, *(t.grad for t in given if t is not None)])
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_a_linear_layer_follows_autocast():
    x, weight = torch.randn(2, 4, 8), torch.randn(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    assert linear(x, weight).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (7, 33)])
def test_rms_norm_and_its_gradient_agree_with_torchs(shape):
    generator = torch.Generator().manual_seed(0)
    x, gradient = torch.randn(2, *shape, generator=generator)
    outcomes = []
    for norm in (rms_norm, lambda x, epsilon: F.rms_norm(x, (x.shape[-1],), eps=epsilon)):
        given = x.clone().requires_grad_()
        y = norm(given, 1e-6)
        y.backward(gradient)
        outcomes.append((y, given.grad))
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_norm_of_zeros_is_zero_and_has_a_gradient():
    x = torch.zeros(2, 4, requires_grad=True)
    rms_norm(x, 1e-6).sum().backward()
    assert not rms_norm(x, 1e-6).any()
    assert x.grad.isfinite().all()


def test_rotate_and_its_gradient_are_complex_products():
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, requires_grad=True)
    cos, sin = torch.randn(2, 5, 1, 4, dtype=torch.float64)
    a, b = x.chunk(2, -1)
    expected = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
    torch.testing.assert_close(rotate(x, cos, sin), expected)
    torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), x)


def test_squared_relu_and_its_gradient_agree_with_torchs():
    x = torch.tensor([[-2.0, 0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    assert squared_relu(x).tolist() == [[0, 0, 9]]
    torch.autograd.gradcheck(squared_relu, (x - 0.5).detach().requires_grad_())


# --- The choice of a matmul kernel ----------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "intel", "expected"),
    [("AVX512", False, "onednn"), ("AVX512", True, "torch"), ("AVX2", False, "torch")],
)
@pytest.mark.usefixtures("unchosen")
def test_the_matmul_kernel_is_chosen_by_cpu(capability, intel, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(kernels, "is_intel", lambda: intel)
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", True)
    assert matmul_in_use() == usual_matmul() == expected
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", False)
    assert usual_matmul() == "torch"


@pytest.mark.usefixtures("unchosen")
def test_a_user_can_override_the_matmul_kernel(monkeypatch):
    other = "torch" if usual_matmul() == "onednn" else "onednn"
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", True)
    monkeypatch.setenv("NANOGPT_MATMUL", other)
    keep_matmul(usual_matmul())
    assert matmul_in_use() == other


@pytest.mark.usefixtures("unchosen")
def test_a_resumed_training_keeps_its_matmul_kernel(monkeypatch):
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", True)
    for name in ("torch", "onednn"):
        keep_matmul(name)
        assert matmul_in_use() == name
    monkeypatch.setattr(kernels, "_matmul", None)
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", False)
    keep_matmul("onednn")
    assert matmul_in_use() == "torch"


@pytest.mark.usefixtures("unchosen")
def test_a_missing_matmul_kernel_is_refused(monkeypatch):
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", False)
    monkeypatch.setenv("NANOGPT_MATMUL", "onednn")
    with pytest.raises(UserError, match="this build of torch has no oneDNN"):
        matmul_in_use()


# --- Dropout --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(dtype, p):
    torch.manual_seed(0)
    n = 1_000_003  # not a multiple of four
    y = drop(torch.ones(n, dtype=dtype), p).float()
    dropped = (y == 0).float().mean().item()
    assert dropped == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n))
    kept = y[y != 0].unique().tolist()
    assert kept == [torch.tensor(1 / (1 - p), dtype=dtype).item()]


def test_dropout_near_one_drops_almost_everything():
    torch.manual_seed(0)
    assert (drop(torch.ones(100_000), 1 - 1e-6) == 0).float().mean() > 0.999


def test_dropout_of_neighbours_is_independent():
    torch.manual_seed(0)
    dropped = (drop(torch.ones(400_000), 0.5) == 0).float() - 0.5
    for lag in range(1, 9):
        assert abs((dropped[lag:] * dropped[:-lag]).mean().item()) < 5 * 0.25 / 400_000**0.5


def test_the_gradient_of_dropout_has_the_same_mask():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 7, requires_grad=True)
    y = drop(x, 0.3)
    y.sum().backward()
    torch.testing.assert_close(y, x * x.grad)
    assert x.grad.unique().numel() == 2


def test_dropout_follows_the_seed_and_a_rate_of_zero_drops_nothing():
    x = torch.randn(50)
    torch.manual_seed(3)
    first = drop(x, 0.5)
    assert not torch.equal(drop(x, 0.5), first)
    torch.manual_seed(3)
    assert torch.equal(drop(x, 0.5), first)
    assert torch.equal(drop(x, 0.0), x)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("T", [5, 128, 300])  # in one block of queries and in several
def test_attention_gradients_agree_with_the_formula(monkeypatch, T, dropout):
    def factors(x, p):  # the same at the same position, in any block
        rows = torch.arange(x.shape[1])[:, None] + (x.shape[2] - x.shape[1])
        return ((rows + 3 * torch.arange(x.shape[2])) % 10 >= 10 * p).float() / (1 - p)

    monkeypatch.setattr(attention, "drop_factors", factors)
    inputs = torch.randn(3, 2, 2, T, 8, generator=torch.Generator().manual_seed(T))

    def formula(q, k, v):
        scores = (q @ k.mT / math.sqrt(8)).masked_fill(
            torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf
        )
        weights = scores.softmax(-1)
        whole = factors(torch.empty(1, T, T), dropout) if dropout else 1
        return (weights * whole) @ v

    results = []
    for way in (lambda q, k, v: attend(q, k, v, dropout), formula):
        tensors = [x.clone().requires_grad_() for x in inputs]
        out = way(*tensors)
        (out * torch.arange(T)[:, None].remainder(7)).sum().backward()
        results.append((out.detach(), *(x.grad for x in tensors)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize(
    "n_tokens", [1, 8, 21]
)  # less than a group, exactly one, and a partial one
def test_the_loss_in_groups_of_tokens_equals_the_loss_of_all(monkeypatch, cap, n_tokens):
    monkeypatch.setattr(kernels, "LOGITS_AT_ONCE", 4 * 50)
    monkeypatch.setattr(kernels, "GRADIENTS_AT_ONCE", 8 * 50)
    generator = torch.Generator().manual_seed(0)
    x, weight = (4 * torch.randn(n, 16, generator=generator) for n in (n_tokens, 50))
    targets = torch.randint(50, (n_tokens,), generator=generator)
    results = []
    for loss_of in (
        lambda x, w: head_loss(x, w, targets, cap),
        lambda x, w: F.cross_entropy(soft_capped(x @ w.T, cap), targets),
    ):
        inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = 0.5 * loss_of(*inputs)
        loss.backward()
        results.append((loss.detach(), *(tensor.grad for tensor in inputs)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_the_loss_in_groups_of_tokens_uses_autocasts_dtype():
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 16, generator=generator) for n in (8, 50))
    targets = torch.randint(50, (8,), generator=generator)
    exact = F.cross_entropy(x @ weight.T, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head_loss(x.requires_grad_(), weight.requires_grad_(), targets, 0.0)
    loss.backward()
    assert loss.dtype == x.grad.dtype == weight.grad.dtype == torch.float32
    assert loss.item() != exact.item()
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)
