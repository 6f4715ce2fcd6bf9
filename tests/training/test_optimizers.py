"""AdamW as its authors wrote it, on the right parameters, at nanoGPT's learning rates."""

import math

import pytest
import torch

from nanogpt.config.schema import TrainSettings
from nanogpt.model.gpt import GPT
from nanogpt.training.optimizers import configure_adamw, learning_rate_at


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    return GPT(tiny.model_copy(update={"bias": True}), 65)


def test_matrices_and_embeddings_decay_and_biases_and_norms_do_not(model):
    optimizer = configure_adamw(model, TrainSettings(weight_decay=0.3))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_vector = name.endswith("bias") or "ln_" in name
        assert decay[id(parameter)] == (0.0 if is_vector else 0.3), name


def test_no_parameter_is_optimized_twice(model):
    groups = configure_adamw(model, TrainSettings()).param_groups
    parameters = [id(p) for group in groups for p in group["params"]]
    assert len(parameters) == len(set(parameters))


def test_steps_are_those_of_a_hand_written_adamw(model):
    settings = TrainSettings(learning_rate=0.01, weight_decay=0.5, beta1=0.8, beta2=0.95)
    optimizer = configure_adamw(model, settings)
    expected = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    m = {name: torch.zeros_like(p) for name, p in expected.items()}
    v = {name: torch.zeros_like(p) for name, p in expected.items()}
    generator = torch.Generator().manual_seed(3)
    for t in (1, 2, 3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            g, w = parameter.grad.double(), expected[name]
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.95 * v[name] + 0.05 * g**2
            m_hat, v_hat = m[name] / (1 - 0.8**t), v[name] / (1 - 0.95**t)
            decay = 0.0 if parameter.dim() == 1 else 0.5
            expected[name] = w - 0.01 * decay * w - 0.01 * m_hat / (v_hat.sqrt() + 1e-8)
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name].float(), atol=1e-6, rtol=0)


SCHEDULE = TrainSettings(
    learning_rate=6e-4, min_lr=6e-5, warmup_iters=100, lr_decay_iters=1100, max_iters=2000
)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 6e-4 / 101),  # never zero
        (49, 6e-4 * 50 / 101),
        (99, 6e-4 * 100 / 101),
        (100, 6e-4),  # the peak
        (350, 6e-5 + (6e-4 - 6e-5) * (2 + math.sqrt(2)) / 4),  # a quarter of the decay
        (600, (6e-4 + 6e-5) / 2),  # half of it
        (1100, 6e-5),
        (1101, 6e-5),
        (1999, 6e-5),
    ],
)
def test_learning_rates_are_nanogpts(step, expected):
    assert learning_rate_at(step, SCHEDULE) == pytest.approx(expected, rel=1e-12)


def test_the_learning_rate_rises_during_warm_up_and_never_after():
    rates = [learning_rate_at(step, SCHEDULE) for step in range(1200)]
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_without_lr_decay_iters_the_decay_ends_with_the_training():
    settings = TrainSettings(learning_rate=1e-3, min_lr=1e-4, warmup_iters=0, max_iters=100)
    assert learning_rate_at(0, settings) == pytest.approx(1e-3)
    assert learning_rate_at(50, settings) == pytest.approx((1e-3 + 1e-4) / 2)
    assert learning_rate_at(100, settings) == pytest.approx(1e-4)


@pytest.mark.parametrize("step", [0, 50, 100, 1000, 5000])
def test_without_decay_the_learning_rate_is_constant(step):
    settings = SCHEDULE.model_copy(update={"decay_lr": False})
    assert learning_rate_at(step, settings) == 6e-4
