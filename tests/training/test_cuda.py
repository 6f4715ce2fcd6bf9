"""Training on an NVIDIA GPU keeps the promises that hold on a CPU."""

import signal

import pytest
import torch

from nanogpt.training import session as session_module
from tests.recipes import MODERN
from tests.training.trainings import read_metrics

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

RECIPES = {
    "gpt2": ({}, {}),
    "modern": ({**MODERN, "init": "zero_proj"}, {"optimizer": "muon", "min_lr": 0.0}),
}


@pytest.fixture(params=RECIPES)
def recipe(request, tiny):
    """Settings of a model with dropout and of its training."""
    model, train = RECIPES[request.param]
    return tiny.model_copy(update={**model, "dropout": 0.1}), train


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_stopped_training_resumes_to_the_same_bytes(training, play, recipe, dtype, monkeypatch):
    model, train = recipe
    same = {"device": "cuda", "dtype": dtype, "deterministic": True, **train}
    training.run(play, model, **same)
    expected = training.weights
    step = session_module.Session.step

    def stopped(session):
        step(session)
        if session.progress.step == 30:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(session_module.Session, "step", stopped)
    with pytest.raises(SystemExit):
        training.run(play, model, **same)
    monkeypatch.setattr(session_module.Session, "step", step)
    training.run(play, model, **same)
    for name, weight in training.weights.items():
        assert torch.equal(weight, expected[name]), name


def test_the_loss_agrees_with_a_cpus(training, play, recipe):
    model, train = recipe
    model = model.model_copy(update={"dropout": 0.0})
    losses = []
    for device in ("cpu", "cuda"):
        training.run(play, model, device=device, dtype="float32", max_iters=20, **train)
        losses.append(read_metrics(training.results / "metrics.jsonl")[-1]["val_loss"])
    assert losses[1] == pytest.approx(losses[0], abs=0.02)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_compiled_model_learns_like_an_uncompiled_one(training, play, recipe, dtype):
    model, train = recipe
    model = model.model_copy(update={"dropout": 0.0})
    losses = []
    for compiled in (False, True):
        training.run(play, model, device="cuda", dtype=dtype, compile=compiled, **train)
        losses.append(training.metrics[-1]["val_loss"])
    assert losses[1] == pytest.approx(losses[0], abs=0.1)
