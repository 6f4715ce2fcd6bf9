"""Every token of a split is predicted once, and the sums agree with a slow loop."""

import pytest

from nanogpt.evaluation.survey import survey_split, survey_windows
from nanogpt.model.losses import window_starts, windows_loss
from tests.evaluation.examples import SYMBOLS
from tests.model.slow_losses import (
    BLOCK,
    MODEL,
    SETTINGS,
    make_tokens,
    slow_nats,
)


@pytest.mark.parametrize("n_tokens", [17, 18, 32, 33, 34, 48, 49, 50])
def test_splits_are_read_to_the_end_with_and_without_a_partial_window(n_tokens):
    tokens = make_tokens(n_tokens, 11)
    found = survey_split(MODEL, tokens, SYMBOLS, SETTINGS)
    nats = slow_nats(MODEL, tokens)
    assert found.nats == pytest.approx(sum(nats), rel=1e-5)
    windows = [nats[first : first + BLOCK] for first in range(0, len(nats), BLOCK)]
    assert found.windows[:, 0] == pytest.approx([sum(window) for window in windows], rel=1e-4)
    assert found.windows[:, 1].tolist() == [len(window) for window in windows]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_the_batch_size_does_not_change_the_evaluation(batch_size):
    tokens = make_tokens(501, 11)
    other = SETTINGS.model_copy(update={"batch_size": batch_size})
    expected = survey_split(MODEL, tokens, SYMBOLS, SETTINGS)
    found = survey_split(MODEL, tokens, SYMBOLS, other)
    for name in ("nats", "windows", "positions", "kinds", "bins"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5)


def test_the_loss_equals_trainings_to_the_bit():
    tokens = make_tokens(300, 11)
    starts = window_starts(300, BLOCK, 9)
    found = survey_windows(MODEL, tokens, [(starts, BLOCK)], SYMBOLS, SETTINGS)
    assert found.nats == windows_loss(MODEL, tokens, starts, SETTINGS).nats
