"""One optimizer step: dropout by seed and step, clipping, float16."""

import math

import numpy as np
import pytest
import torch

from nanogpt.config.schema import TrainSettings
from nanogpt.data.batches import load
from nanogpt.model.gpt import GPT
from nanogpt.training.optimizers import configure_optimizer
from nanogpt.training.step import loss_function, loss_scaler, optimizer_step

SETTINGS = TrainSettings(batch_size=8, seed=1337, device="cpu", dtype="float32")


@pytest.fixture
def step(play, tiny):
    """Return a function from settings, step and dropout to the loss, norm and change of weights.

    The optimizer is gradient descent with rate 1, so the change is the clipped gradient.
    """
    windows = np.arange(8 * 17, dtype=np.int64).reshape(8, 17) % 50

    def take(settings, number=0, dropout=0.0):
        torch.manual_seed(0)
        model = GPT(tiny.model_copy(update={"dropout": dropout}), load(play).tokenizer.vocab_size)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        torch.rand(np.random.default_rng().integers(100))
        group = {"params": model.parameters(), "initial_lr": settings.learning_rate}
        optimizer = torch.optim.SGD([group], lr=123.0)
        loss_of = loss_function(model, settings)
        scaler = loss_scaler(settings)
        loss, norm = optimizer_step(loss_of, optimizer, scaler, windows, 1.0, settings, number)
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert all(p.grad is None for p in model.parameters())
        return loss.item(), norm.item(), before - after

    return take


def test_a_steps_dropout_depends_only_on_the_seed_and_the_step(step):
    first, again = (step(SETTINGS, 3, dropout=0.5) for _ in range(2))
    assert first[0] == again[0]
    assert torch.equal(first[2], again[2])
    assert step(SETTINGS, 4, dropout=0.5)[0] != first[0]
    assert step(SETTINGS.model_copy(update={"seed": 1}), 3, dropout=0.5)[0] != first[0]


def test_gradients_are_clipped_to_grad_clip(step):
    _, norm, change = step(SETTINGS.model_copy(update={"grad_clip": 0.25}))
    assert norm > 0.5
    assert change.norm().item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("grad_clip", [0.0, 1e6])
def test_gradients_below_grad_clip_are_not_changed(step, grad_clip):
    _, norm, change = step(SETTINGS.model_copy(update={"grad_clip": grad_clip}))
    assert change.norm().item() == pytest.approx(norm, rel=1e-3)


def test_float16_gradients_equal_float32_gradients_up_to_rounding(step):
    halves = SETTINGS.model_copy(update={"dtype": "float16"})
    (loss, norm, change), expected = step(halves), step(SETTINGS)
    assert loss == pytest.approx(expected[0], rel=1e-3)
    assert norm == pytest.approx(expected[1], rel=1e-2)
    assert (change - expected[2]).norm() < 0.01 * expected[2].norm()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_with_a_float16_overflow_is_skipped(play, tiny, optimizer):
    settings = SETTINGS.model_copy(update={"dtype": "float16", "optimizer": optimizer})
    torch.manual_seed(0)
    model = GPT(tiny, load(play).tokenizer.vocab_size)
    before = [p.detach().clone() for p in model.parameters()]
    arguments = loss_function(model, settings), configure_optimizer(model, settings)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    windows = np.arange(8 * 17, dtype=np.int64).reshape(8, 17) % 50
    steps = 0
    while scaler.get_scale() == 2.0 ** (40 - steps):
        for parameter, old in zip(model.parameters(), before, strict=True):
            assert torch.equal(parameter, old)
            assert parameter.grad is None
        _, norm = optimizer_step(*arguments, scaler, windows, 1e-3, settings, steps)
        steps += 1
        assert math.isfinite(norm) == (scaler.get_scale() != 2.0 ** (40 - steps))
    assert 10 < steps < 35
    assert not any(map(torch.equal, model.parameters(), before))
