"""The numbers of a split agree with a slow loop."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.evaluation import statistics as statistics_module
from nanogpt.evaluation.statistics import (
    bootstrap_interval,
    loss_by_kind,
    loss_by_position,
    measure_calibration,
    summarize_split,
)
from nanogpt.evaluation.survey import survey_split
from nanogpt.evaluation.symbols import KINDS, Symbols, describe_symbols
from tests.evaluation.examples import BYTE_PAIRS, BYTES, CHARACTERS, KIND_OF_ID, SYMBOLS
from tests.model.slow_losses import (
    BLOCK,
    MODEL,
    SETTINGS,
    log_probabilities,
    make_model,
    make_tokens,
    slow_loss,
    slow_nats,
)

# --- A whole split --------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n_tokens=st.integers(17, 70), seed=st.integers(0, 1000), batch_size=st.integers(1, 6))
def test_every_token_except_the_first_is_predicted_exactly_once(n_tokens, seed, batch_size):
    tokens = make_tokens(n_tokens, 11, seed)
    changed = SETTINGS.model_copy(update={"batch_size": batch_size})
    split = summarize_split(survey_split(MODEL, tokens, SYMBOLS, changed))
    assert split.n_tokens == n_tokens - 1
    assert split.n_bytes == sum(BYTES[id_] for id_ in tokens[1:].tolist())
    assert split.n_characters == sum(CHARACTERS[id_] for id_ in tokens[1:].tolist())
    nats = slow_loss(MODEL, tokens)
    assert split.loss == pytest.approx(nats / (n_tokens - 1), rel=1e-5)
    assert split.perplexity == pytest.approx(math.exp(split.loss), rel=1e-12)
    bits = nats / math.log(2)
    assert split.bits_per_byte == pytest.approx(bits / split.n_bytes, rel=1e-5)
    assert split.bits_per_character == pytest.approx(bits / split.n_characters, rel=1e-5)


def test_a_uniform_models_loss_is_the_log_of_its_vocabulary_size():
    model = make_model(11, scale=0.0)
    symbols = Symbols(np.ones((11, 3), dtype=int), KIND_OF_ID)
    found = survey_split(model, make_tokens(300, 11), symbols, SETTINGS)
    split = summarize_split(found)
    assert split.loss == pytest.approx(math.log(11), rel=1e-7)
    assert split.perplexity == pytest.approx(11, rel=1e-6)
    assert split.bits_per_byte == pytest.approx(math.log2(11), rel=1e-6)
    for line in [*loss_by_position(found), *loss_by_kind(found).values()]:
        assert line.loss == pytest.approx(math.log(11), rel=1e-6)


# --- Bootstrap ------------------------------------------------------------------------------


def some_windows(n_windows, seed=0):
    """Made-up sums of windows: nats, tokens, bytes, characters."""
    random = np.random.default_rng(seed)
    n_bytes = random.integers(20, 60, size=n_windows)
    nats = random.normal(30, 5, size=n_windows)
    return np.stack([nats, np.full(n_windows, 16), n_bytes, n_bytes - 4], axis=1).astype(float)


@given(n_windows=st.integers(30, 200), seed=st.integers(0, 100))
def test_the_interval_contains_the_loss_in_each_unit(n_windows, seed):
    windows = some_windows(n_windows, seed)
    nats, n_tokens, n_bytes, n_characters = windows.sum(0)
    interval = bootstrap_interval(windows)
    bits = nats / math.log(2)
    numbers = {"loss": nats / n_tokens, "bits_per_byte": bits / n_bytes}
    numbers["bits_per_character"] = bits / n_characters
    for unit, number in numbers.items():
        low, high = getattr(interval, unit)
        assert low - 1e-9 <= number <= high + 1e-9
        assert low < high


@pytest.mark.parametrize("n_windows", [1, 5, 20])
def test_few_windows_give_no_interval(n_windows):
    for unit in ("loss", "bits_per_byte", "bits_per_character"):
        assert all(map(math.isnan, getattr(bootstrap_interval(some_windows(n_windows)), unit)))


def width(windows):
    low, high = bootstrap_interval(windows).bits_per_byte
    return high - low


def test_the_interval_shrinks_with_the_root_of_the_number_of_windows():
    ratio = width(some_windows(500)) / width(some_windows(8000))
    assert ratio == pytest.approx(4, rel=0.25)


def test_correlated_windows_widen_the_interval():
    different = some_windows(200)
    assert width(np.repeat(different, 5, axis=0)) == pytest.approx(width(different), rel=0.2)


def test_the_interval_covers_the_true_loss_in_95_percent_of_samples():
    covered = 0
    for seed in range(300):
        low, high = bootstrap_interval(some_windows(500, seed)).loss
        covered += low <= 30 / 16 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_interval_is_for_ratios_of_sums_not_means_of_ratios():
    # All nats are in windows with few bytes, so the windows' ratios differ a lot from the total's.
    windows = np.array([[100.0, 10, 1, 1], [0.0, 10, 99, 99]] * 500)
    np.random.default_rng(1).shuffle(windows)
    low, high = bootstrap_interval(windows).bits_per_byte
    assert low < 1 / math.log(2) < high
    assert high < 2


def test_resampling_in_parts_changes_nothing(monkeypatch):
    windows = some_windows(77)
    expected = bootstrap_interval(windows)
    monkeypatch.setattr(statistics_module, "RESAMPLED_AT_ONCE", 300)
    assert bootstrap_interval(windows) == expected
    monkeypatch.setattr(statistics_module, "RESAMPLED_AT_ONCE", 1)
    assert bootstrap_interval(windows) == expected


# --- By position ----------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 5, 16, 21])
def test_buckets_of_positions_follow_each_other_to_the_end_of_the_window(block_size):
    model = make_model(11, block_size=block_size)
    found = survey_split(model, make_tokens(200, 11), SYMBOLS, SETTINGS)
    buckets = loss_by_position(found)
    ranges = [(bucket.first, bucket.last) for bucket in buckets]
    powers = [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31)]
    expected = [(first, min(last, block_size - 1)) for first, last in powers if first < block_size]
    assert ranges == expected
    assert sum(bucket.n_tokens for bucket in buckets) == 199
    nats = sum(bucket.loss * bucket.n_tokens for bucket in buckets)
    assert nats == pytest.approx(found.nats, rel=1e-12)


def test_a_position_counts_the_tokens_before_the_last_one_read():
    tokens = make_tokens(90, 11)  # five windows, and nine tokens
    nats = slow_nats(MODEL, tokens)
    for bucket in loss_by_position(survey_split(MODEL, tokens, SYMBOLS, SETTINGS)):
        chosen = [n for i, n in enumerate(nats) if bucket.first <= i % BLOCK <= bucket.last]
        assert bucket.n_tokens == len(chosen)
        assert bucket.loss == pytest.approx(np.mean(chosen), rel=1e-5)


# --- By kind --------------------------------------------------------------------------------


def test_kinds_add_up_to_the_total_and_missing_ones_are_left_out():
    tokens = make_tokens(150, 11)
    found = survey_split(MODEL, tokens, SYMBOLS, SETTINGS)
    kinds = loss_by_kind(found)
    assert list(kinds) == ["letters", "digits", "punctuation", "blank", "other"]
    nats = slow_nats(MODEL, tokens)
    for name, kind in kinds.items():
        chosen = [n for n, id_ in zip(nats, tokens[1:], strict=True) if is_of(id_, name)]
        assert kind.n_tokens == len(chosen)
        assert kind.loss == pytest.approx(np.mean(chosen), rel=1e-5)
        assert kind.share_of_loss == pytest.approx(sum(chosen) / sum(nats), rel=1e-5)
    assert sum(kind.n_tokens for kind in kinds.values()) == 149
    assert sum(kind.share_of_loss for kind in kinds.values()) == pytest.approx(1, rel=1e-12)


def is_of(id_, kind):
    return KINDS[KIND_OF_ID[id_]] == kind


# --- Calibration ----------------------------------------------------------------------------


def test_calibration_agrees_with_a_slow_loop():
    tokens, model = make_tokens(200, 11), make_model(11, scale=20)
    calibration = measure_calibration(survey_split(model, tokens, SYMBOLS, SETTINGS))
    in_bins = [[] for _ in range(10)]
    for i in range(1, len(tokens)):
        p = np.exp(log_probabilities(model, tokens[(i - 1) // BLOCK * BLOCK : i]))
        in_bins[math.ceil(p.max() * 10) - 1].append((p.max(), p.argmax() == tokens[i]))
    assert sum(map(bool, in_bins)) > 7
    error = 0
    for i, (line, members) in enumerate(zip(calibration.bins, in_bins, strict=True)):
        assert (line.low, line.high) == (i / 10, (i + 1) / 10)
        assert line.n_tokens == len(members)
        if members:
            confidence, accuracy = np.mean(members, axis=0)
            assert line.confidence == pytest.approx(confidence, rel=1e-4)
            assert line.accuracy == pytest.approx(accuracy, rel=1e-12)
            error += len(members) / 199 * abs(confidence - accuracy)
        else:
            assert math.isnan(line.confidence)  # null in eval.json
            assert math.isnan(line.accuracy)
    assert calibration.expected_calibration_error == pytest.approx(error, rel=1e-3)
    right = [right for members in in_bins for _, right in members]
    assert calibration.accuracy == pytest.approx(np.mean(right), rel=1e-12)


def test_a_uniform_models_accuracy_is_the_frequency_of_its_guess():
    tokens = make_tokens(3000, 11)
    calibration = measure_calibration(
        survey_split(make_model(11, scale=0.0), tokens, SYMBOLS, SETTINGS)
    )
    assert calibration.bins[0].n_tokens == 2999
    assert calibration.bins[0].confidence == pytest.approx(1 / 11, rel=1e-6)
    often = (tokens[1:] == 0).mean()
    assert calibration.accuracy == calibration.bins[0].accuracy == pytest.approx(often)
    assert calibration.expected_calibration_error == pytest.approx(abs(often - 1 / 11), rel=1e-4)


def test_a_split_with_only_end_of_text_tokens_has_no_bits_per_byte():
    tokens = np.full(40, BYTE_PAIRS.vocab_size - 1, dtype=np.uint16)
    model = make_model(BYTE_PAIRS.vocab_size)
    found = survey_split(model, tokens, describe_symbols(BYTE_PAIRS), SETTINGS)
    split = summarize_split(found)
    assert split.loss > 0
    assert math.isinf(split.bits_per_byte)  # null in eval.json
    assert list(loss_by_kind(found)) == ["end_of_text"]
