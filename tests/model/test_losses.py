"""The loss over windows agrees with a slow loop."""

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.artifacts.code_digest import code_digest
from nanogpt.model import losses
from nanogpt.model.losses import (
    n_full_windows,
    predictions,
    token_nats,
    window_starts,
    windows_loss,
)
from tests.model.slow_losses import (
    BLOCK,
    MODEL,
    SETTINGS,
    log_probabilities,
    make_model,
    make_tokens,
    slow_loss,
)

ROOT = Path(__file__).resolve().parents[2]
# --- The loss over windows ------------------------------------------------------------------


def test_the_loss_over_some_windows_ignores_the_others():
    tokens = make_tokens(200, 11)
    starts = np.array([16, 96, 176])
    loss = windows_loss(MODEL, tokens, starts, SETTINGS)
    expected = sum(slow_loss(MODEL, tokens[start : start + BLOCK + 1]) for start in starts)
    assert loss.nats == pytest.approx(expected, rel=1e-5)
    assert loss.n_tokens == 3 * BLOCK
    assert loss.mean == pytest.approx(expected / 48, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_the_batch_size_does_not_change_the_loss(batch_size):
    tokens = make_tokens(501, 11)
    starts = np.arange(0, 480, 7)
    expected = windows_loss(MODEL, tokens, starts, SETTINGS)
    other = SETTINGS.model_copy(update={"batch_size": batch_size})
    found = windows_loss(MODEL, tokens, starts, other)
    assert found.mean == pytest.approx(expected.mean, abs=1e-6)
    assert found.n_tokens == expected.n_tokens


def test_the_loss_has_no_dropout_and_restores_the_models_mode():
    model = make_model(11, dropout=0.5)
    tokens = make_tokens(100, 11)
    starts = np.array([0, 30, 60])
    expected = windows_loss(MODEL, tokens, starts, SETTINGS)
    for training in (True, False):
        model.train(training)
        assert windows_loss(model, tokens, starts, SETTINGS) == expected
        assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bfloat16_is_close_to_float32_but_not_equal():
    tokens = make_tokens(300, 11)
    starts = np.arange(0, 280, BLOCK)
    exact = windows_loss(MODEL, tokens, starts, SETTINGS).mean
    rounded = SETTINGS.model_copy(update={"dtype": "bfloat16"})
    loss = windows_loss(MODEL, tokens, starts, rounded).mean
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("large", [1, 10**9])
def test_the_mean_loss_is_over_all_tokens_for_any_vocabulary(monkeypatch, large):
    monkeypatch.setattr(losses, "LARGE_VOCABULARY", large)
    tokens = make_tokens(100, 11)
    rows = torch.from_numpy(tokens[: 4 * (BLOCK + 1)].astype("int64")).view(4, BLOCK + 1)
    loss = losses.mean_loss(MODEL, rows[:, :-1], rows[:, 1:])
    expected = token_nats(MODEL(rows[:, :-1]), rows[:, 1:]).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_nats_are_added_in_float64():
    tokens = make_tokens(5000, 11)
    starts = np.arange(0, 4900, 3)
    batches = predictions(MODEL, tokens, starts, SETTINGS)
    nats = [token_nats(logits, targets).flatten().tolist() for targets, logits in batches]
    expected = math.fsum(itertools.chain(*nats))
    assert windows_loss(MODEL, tokens, starts, SETTINGS).nats == pytest.approx(expected, rel=1e-13)


def test_predictions_are_for_the_given_windows():
    tokens = make_tokens(200, 11)
    (first, second) = predictions(MODEL, tokens, np.array([0, 7, 9, 11, 90]), SETTINGS)
    targets, logits = second
    assert targets.tolist() == [tokens[91 : 91 + BLOCK].tolist()]
    assert first[0].shape == (4, BLOCK)
    assert first[1].shape == (4, BLOCK, 11)
    expected = log_probabilities(MODEL, tokens[90:93])
    assert logits[0, 2].log_softmax(-1).numpy() == pytest.approx(expected, abs=1e-4)


# --- Windows spread over a split ------------------------------------------------------------


@given(n_tokens=st.integers(2, 5000), block_size=st.integers(1, 64), n_windows=st.integers(1, 400))
def test_windows_are_spread_evenly_without_overlap(n_tokens, block_size, n_windows):
    starts = window_starts(n_tokens, block_size, n_windows)
    full = n_full_windows(n_tokens, block_size)
    assert full * block_size < n_tokens <= (full + 1) * block_size + 1
    assert len(starts) == min(n_windows, full)
    if not len(starts):
        return
    assert (starts % block_size == 0).all()
    assert starts[0] == 0
    assert starts[-1] + block_size < n_tokens  # the last target exists
    gaps = np.diff(starts) // block_size
    if len(gaps):
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1
        assert starts[-1] == (full - 1) * block_size


# --- Code digests of stages -----------------------------------------------------------------


@pytest.fixture
def digests_after(tmp_path):
    """Return a function that tells which stages' digests change with an edit of a module."""
    package = tmp_path / "nanogpt"
    shutil.copytree(ROOT / "nanogpt", package, ignore=shutil.ignore_patterns("__pycache__"))
    scripts = ROOT / "workflow" / "scripts"

    def digests():
        names = ("prepare", "train", "eval", "sample")
        return {name: code_digest(scripts / f"{name}.py", package=package) for name in names}

    def changed(module):
        before = digests()
        with open(package / f"{module}.py", "a") as file:
            file.write("\nassert True\n")
        return {name for name, digest in digests().items() if digest != before[name]}

    return changed


def test_editing_evaluation_retrains_nothing(digests_after):
    assert digests_after("evaluation/evaluate") == {"eval"}


def test_editing_the_loss_retrains_but_resamples_only_changed_models(digests_after):
    assert digests_after("model/losses") == {"train", "eval"}
