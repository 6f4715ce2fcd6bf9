"""The predictions for a window depend only on the window."""

import numpy as np
import pytest
import torch

from nanogpt.evaluation import reading
from nanogpt.evaluation.reading import read_windows
from nanogpt.inference.decoder import decoder_of
from nanogpt.model.losses import predictions, token_nats
from tests.inference.models import with_fbgemm
from tests.model.slow_losses import BLOCK, MODEL, SETTINGS, make_tokens

TOKENS = make_tokens(500, 11)
STARTS = np.arange(30) * BLOCK
FIELDS = ("targets", "nats", "confidence", "right")


def read(settings=SETTINGS):
    """Join each field of all batches."""
    batches = list(read_windows(MODEL, TOKENS, [(STARTS, BLOCK)], settings))
    return {name: torch.cat([getattr(batch, name) for batch in batches]) for name in FIELDS}


@pytest.fixture
def threads():
    """Set the number of torch's threads, and restore it at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_predictions_agree_with_the_full_logits():
    found = read()
    pairs = predictions(MODEL, TOKENS, STARTS, SETTINGS)
    targets, logits = (torch.cat(column) for column in zip(*pairs, strict=True))
    probabilities = logits.softmax(-1)
    assert torch.equal(found["targets"], targets)
    assert torch.equal(found["nats"], token_nats(logits, targets))
    assert torch.equal(found["right"], logits.argmax(-1) == targets)
    torch.testing.assert_close(found["confidence"], probabilities.max(-1).values)


def test_devices_other_than_a_cpu_read_a_batch_in_one_pass():
    # Any name other than "cpu" uses that code, on this machine too.
    found, expected = read(SETTINGS.model_copy(update={"device": "cpu:0"})), read()
    assert torch.equal(found["targets"], expected["targets"])
    assert torch.equal(found["right"], expected["right"])
    torch.testing.assert_close(found["nats"], expected["nats"])


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(threads, n_threads):
    threads(1)
    expected = read()
    threads(n_threads)
    found = read()
    assert all(torch.equal(found[name], expected[name]) for name in FIELDS)
    assert torch.get_num_threads() == n_threads


@with_fbgemm
def test_int8_predictions_agree_with_the_sampling_decoder():
    found, expected = read(SETTINGS.model_copy(update={"dtype": "int8"})), read()
    assert torch.equal(found["targets"], expected["targets"])
    with torch.inference_mode():
        decoder = decoder_of(MODEL, torch.int8, BLOCK)
        decoder.reserve(1)
        for row, start in enumerate(STARTS):
            tokens = TOKENS[start : start + BLOCK].tolist()
            logits = torch.cat(
                [decoder.read(tokens[:1], 0, 1)]
                + [decoder.step([token], [place]) for place, token in enumerate(tokens[1:], 1)]
            )
            nats = token_nats(logits[None], found["targets"][row][None])[0]
            # A number halfway between two integers may be rounded to the other one.
            assert (found["nats"][row] - nats).abs().mean() < 1e-3
    assert 0 < (found["nats"] - expected["nats"]).abs().mean() < 0.1


@with_fbgemm
def test_the_number_of_threads_changes_no_bit_in_int8(threads):
    found = []
    for n_threads in (1, 2, 3):
        threads(n_threads)
        found.append(read(SETTINGS.model_copy(update={"dtype": "int8"}))["nats"])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("tokens_at_once", [1, BLOCK, 5 * BLOCK])
@pytest.mark.parametrize("logits_at_once", [1, 11, 100])
def test_the_size_of_pieces_changes_no_prediction(monkeypatch, tokens_at_once, logits_at_once):
    expected = read()
    monkeypatch.setattr(reading, "TOKENS_AT_ONCE", tokens_at_once)
    monkeypatch.setattr(reading, "LOGITS_AT_ONCE", logits_at_once)
    found = read()
    assert torch.equal(found["targets"], expected["targets"])
    assert torch.equal(found["right"], expected["right"])
    torch.testing.assert_close(found["nats"], expected["nats"])
    torch.testing.assert_close(found["confidence"], expected["confidence"])


def test_the_first_of_equally_likely_tokens_is_the_guess():
    logits = torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    _, confidence, right = reading._compare(logits, torch.tensor([1, 1]))
    assert right.tolist() == [True, False]
    assert confidence[1].item() == pytest.approx(1 / 3)


def test_an_error_in_a_thread_is_raised_and_torchs_threads_are_restored(threads):
    threads(2)
    with pytest.raises(IndexError):
        list(read_windows(MODEL, TOKENS, [(np.array([len(TOKENS)]), BLOCK)], SETTINGS))
    assert torch.get_num_threads() == 2
