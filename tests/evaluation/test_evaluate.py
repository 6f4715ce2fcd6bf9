"""Evaluation predicts every token once, and its numbers are those of a slow loop by hand."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.config.schema import ModelSettings
from nanogpt.data import play as playwright
from nanogpt.data.batches import load
from nanogpt.data.tokenizers import ByteTokenizer, char_tokenizer
from nanogpt.errors import UserError
from nanogpt.evaluation import evaluate as evaluate_module
from nanogpt.evaluation.evaluate import (
    COPYING,
    KINDS,
    NGRAMS,
    Symbols,
    by_kind,
    by_position,
    calibration,
    copying,
    evaluate,
    interval,
    kind_of,
    nanogpt_estimate,
    of_split,
    shares_found,
    summary,
    survey,
    survey_split,
    symbols,
)
from nanogpt.inference.sampling import generate
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import window_starts, windows_loss
from tests.data.test_tokenizers import BYTE_PAIRS
from tests.model.test_losses import (
    BLOCK,
    MODEL,
    ROOT,
    SETTINGS,
    log_probabilities,
    make_model,
    make_tokens,
    slow_loss,
    slow_nats,
)

BYTES = np.array([1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3])
CHARACTERS = np.array([1, 1, 1, 1, 0, 2, 1, 1, 1, 0, 1])
KIND_OF_ID = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 5, 5])
MEANING = Symbols(np.stack([np.ones(11, dtype=int), BYTES, CHARACTERS], axis=1), KIND_OF_ID)


# --- A whole split --------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n_tokens=st.integers(17, 70), seed=st.integers(0, 1000), batch_size=st.integers(1, 6))
def test_each_token_but_the_first_is_predicted_exactly_once(n_tokens, seed, batch_size):
    tokens = make_tokens(n_tokens, 11, seed)
    changed = SETTINGS.model_copy(update={"batch_size": batch_size})
    said = of_split(survey_split(MODEL, tokens, MEANING, changed))
    assert said["n_tokens"] == n_tokens - 1
    assert said["n_bytes"] == sum(BYTES[id_] for id_ in tokens[1:].tolist())
    assert said["n_characters"] == sum(CHARACTERS[id_] for id_ in tokens[1:].tolist())
    nats = slow_loss(MODEL, tokens)
    assert said["loss"] == pytest.approx(nats / (n_tokens - 1), rel=1e-5)
    assert said["perplexity"] == pytest.approx(math.exp(said["loss"]), rel=1e-12)
    bits = nats / math.log(2)
    assert said["bits_per_byte"] == pytest.approx(bits / said["n_bytes"], rel=1e-5)
    assert said["bits_per_character"] == pytest.approx(bits / said["n_characters"], rel=1e-5)


@pytest.mark.parametrize("n_tokens", [17, 18, 32, 33, 34, 48, 49, 50])
def test_splits_around_whole_windows_are_read_to_their_end(n_tokens):
    tokens = make_tokens(n_tokens, 11)
    found = survey_split(MODEL, tokens, MEANING, SETTINGS)
    nats = slow_nats(MODEL, tokens)
    assert found.nats == pytest.approx(sum(nats), rel=1e-5)
    windows = [nats[first : first + BLOCK] for first in range(0, len(nats), BLOCK)]
    assert found.windows[:, 0] == pytest.approx([sum(window) for window in windows], rel=1e-4)
    assert found.windows[:, 1].tolist() == [len(window) for window in windows]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_the_batch_size_changes_nothing_that_is_said(batch_size):
    tokens = make_tokens(501, 11)
    other = SETTINGS.model_copy(update={"batch_size": batch_size})
    expected = survey_split(MODEL, tokens, MEANING, SETTINGS)
    found = survey_split(MODEL, tokens, MEANING, other)
    for name in ("nats", "windows", "positions", "kinds", "bins"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5)


def test_the_loss_is_to_the_bit_what_training_measures():
    tokens = make_tokens(300, 11)
    starts = window_starts(300, BLOCK, 9)
    found = survey(MODEL, tokens, [(starts, BLOCK)], MEANING, SETTINGS)
    assert found.nats == windows_loss(MODEL, tokens, starts, SETTINGS).nats


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary():
    model = make_model(11, scale=0.0)
    meaning = Symbols(np.ones((11, 3), dtype=int), KIND_OF_ID)
    found = survey_split(model, make_tokens(300, 11), meaning, SETTINGS)
    said = of_split(found)
    assert said["loss"] == pytest.approx(math.log(11), rel=1e-7)
    assert said["perplexity"] == pytest.approx(11, rel=1e-6)
    assert said["bits_per_byte"] == pytest.approx(math.log2(11), rel=1e-6)
    for line in [*by_position(found), *by_kind(found).values()]:
        assert line["loss"] == pytest.approx(math.log(11), rel=1e-6)


# --- Bootstrap ------------------------------------------------------------------------------


def some_windows(n_windows, seed=0):
    """Made-up sums of windows: nats, tokens, bytes, characters."""
    random = np.random.default_rng(seed)
    n_bytes = random.integers(20, 60, size=n_windows)
    nats = random.normal(30, 5, size=n_windows)
    return np.stack([nats, np.full(n_windows, 16), n_bytes, n_bytes - 4], axis=1).astype(float)


@given(n_windows=st.integers(30, 200), seed=st.integers(0, 100))
def test_the_interval_holds_the_number_in_each_unit(n_windows, seed):
    windows = some_windows(n_windows, seed)
    nats, n_tokens, n_bytes, n_characters = windows.sum(0)
    said = interval(windows)
    bits = nats / math.log(2)
    numbers = {"loss": nats / n_tokens, "bits_per_byte": bits / n_bytes}
    numbers["bits_per_character"] = bits / n_characters
    for unit, number in numbers.items():
        low, high = said[unit]
        assert low - 1e-9 <= number <= high + 1e-9
        assert low < high


@pytest.mark.parametrize("n_windows", [1, 5, 20])
def test_few_windows_give_no_interval(n_windows):
    for unit in ("loss", "bits_per_byte", "bits_per_character"):
        assert all(map(math.isnan, interval(some_windows(n_windows))[unit]))


def width(windows):
    low, high = interval(windows)["bits_per_byte"]
    return high - low


def test_the_interval_shrinks_with_the_root_of_the_number_of_windows():
    ratio = width(some_windows(500)) / width(some_windows(8000))
    assert ratio == pytest.approx(4, rel=0.25)


def test_windows_that_resemble_their_neighbours_count_as_fewer():
    different = some_windows(200)
    assert width(np.repeat(different, 5, axis=0)) == pytest.approx(width(different), rel=0.2)


def test_the_interval_covers_the_source_of_the_text_in_nineteen_of_twenty_samples():
    covered = 0
    for seed in range(300):
        low, high = interval(some_windows(500, seed))["loss"]
        covered += low <= 30 / 16 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_interval_is_of_ratios_of_sums_not_of_mean_ratios():
    # All nats in windows with few bytes: the windows' own ratios are far from that of the sums.
    windows = np.array([[100.0, 10, 1, 1], [0.0, 10, 99, 99]] * 500)
    np.random.default_rng(1).shuffle(windows)
    low, high = interval(windows)["bits_per_byte"]
    assert low < 1 / math.log(2) < high
    assert high < 2


def test_memory_is_bounded_by_parts_that_change_nothing(monkeypatch):
    windows = some_windows(77)
    expected = interval(windows)
    monkeypatch.setattr(evaluate_module, "RESAMPLED_AT_ONCE", 300)
    assert interval(windows) == expected
    monkeypatch.setattr(evaluate_module, "RESAMPLED_AT_ONCE", 1)
    assert interval(windows) == expected


# --- By position ----------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 5, 16, 21])
def test_buckets_of_positions_follow_each_other_to_the_end_of_the_window(block_size):
    model = make_model(11, block_size=block_size)
    found = survey_split(model, make_tokens(200, 11), MEANING, SETTINGS)
    buckets = by_position(found)
    ranges = [(bucket["first"], bucket["last"]) for bucket in buckets]
    powers = [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31)]
    expected = [(first, min(last, block_size - 1)) for first, last in powers if first < block_size]
    assert ranges == expected
    assert sum(bucket["n_tokens"] for bucket in buckets) == 199
    nats = sum(bucket["loss"] * bucket["n_tokens"] for bucket in buckets)
    assert nats == pytest.approx(found.nats, rel=1e-12)


def test_a_position_is_how_many_tokens_stand_before_the_last_that_is_read():
    tokens = make_tokens(90, 11)  # five windows, and nine tokens
    nats = slow_nats(MODEL, tokens)
    for bucket in by_position(survey_split(MODEL, tokens, MEANING, SETTINGS)):
        chosen = [n for i, n in enumerate(nats) if bucket["first"] <= i % BLOCK <= bucket["last"]]
        assert bucket["n_tokens"] == len(chosen)
        assert bucket["loss"] == pytest.approx(np.mean(chosen), rel=1e-5)


# --- By kind --------------------------------------------------------------------------------

TEXTS_OF_KINDS = {
    "letters": ["a", " the", "Ñandú", " 日本", "हिन्दी", " e"],  # Hindi has marks
    "digits": ["7", " 2024", "½", "٣"],
    "punctuation": [".", " --", "'", "+=", " €", "🎭"],
    "blank": [" ", "\n", "   ", "\t\n", "\u3000", "\r"],
    "end_of_text": [""],
    "other": ["'s", "a1", "the ", "\n\nThe", "  a", "a b", ".\n", "\0", "\u200d"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_of_the_kind_of_its_text(kind):
    assert {kind_of(text.encode()) for text in TEXTS_OF_KINDS[kind]} == {kind}


@pytest.mark.parametrize("text", [b"\xc3", b"\xa9", b" \xe6\x97", b"a\xff", "é".encode() + b"\xc3"])
def test_parts_of_characters_are_of_no_kind(text):
    assert kind_of(text) == "other"


def test_of_bytes_those_beyond_ascii_are_of_no_kind():
    names = [KINDS[kind] for kind in symbols(ByteTokenizer()).kinds]
    assert set(names[0x80:]) == {"other"}
    for byte, kind in (
        (b"a", "letters"),
        (b"0", "digits"),
        (b"\n", "blank"),
        (b"!", "punctuation"),
    ):
        assert names[byte[0]] == kind


def test_only_the_last_token_of_byte_pairs_is_the_end_of_a_text():
    meaning = symbols(BYTE_PAIRS)
    assert np.flatnonzero(meaning.kinds == KINDS.index("end_of_text")).tolist() == [
        BYTE_PAIRS.vocab_size - 1
    ]
    assert meaning.counts[-1].tolist() == [1, 0, 0]


def test_kinds_add_up_to_the_whole_and_those_that_do_not_occur_are_left_out():
    tokens = make_tokens(150, 11)
    found = survey_split(MODEL, tokens, MEANING, SETTINGS)
    kinds = by_kind(found)
    assert list(kinds) == ["letters", "digits", "punctuation", "blank", "other"]
    nats = slow_nats(MODEL, tokens)
    for name, said in kinds.items():
        chosen = [n for n, id_ in zip(nats, tokens[1:], strict=True) if is_of(id_, name)]
        assert said["n_tokens"] == len(chosen)
        assert said["loss"] == pytest.approx(np.mean(chosen), rel=1e-5)
        assert said["share_of_loss"] == pytest.approx(sum(chosen) / sum(nats), rel=1e-5)
    assert sum(said["n_tokens"] for said in kinds.values()) == 149
    assert sum(said["share_of_loss"] for said in kinds.values()) == pytest.approx(1, rel=1e-12)


def is_of(id_, kind):
    return KINDS[KIND_OF_ID[id_]] == kind


# --- Calibration ----------------------------------------------------------------------------


def test_calibration_is_that_of_a_slow_loop():
    tokens, model = make_tokens(200, 11), make_model(11, scale=20)
    said = calibration(survey_split(model, tokens, MEANING, SETTINGS))
    in_bins = [[] for _ in range(10)]
    for i in range(1, len(tokens)):
        p = np.exp(log_probabilities(model, tokens[(i - 1) // BLOCK * BLOCK : i]))
        in_bins[math.ceil(p.max() * 10) - 1].append((p.max(), p.argmax() == tokens[i]))
    assert sum(map(bool, in_bins)) > 7
    error = 0
    for i, (line, members) in enumerate(zip(said["bins"], in_bins, strict=True)):
        assert (line["low"], line["high"]) == (i / 10, (i + 1) / 10)
        assert line["n_tokens"] == len(members)
        if members:
            confidence, accuracy = np.mean(members, axis=0)
            assert line["confidence"] == pytest.approx(confidence, rel=1e-4)
            assert line["accuracy"] == pytest.approx(accuracy, rel=1e-12)
            error += len(members) / 199 * abs(confidence - accuracy)
        else:
            assert math.isnan(line["confidence"])  # null in eval.json
            assert math.isnan(line["accuracy"])
    assert said["expected_calibration_error"] == pytest.approx(error, rel=1e-3)
    right = [right for members in in_bins for _, right in members]
    assert said["accuracy"] == pytest.approx(np.mean(right), rel=1e-12)


def test_a_model_that_knows_nothing_is_as_sure_as_a_guess_and_right_as_often_as_its_guess_occurs():
    tokens = make_tokens(3000, 11)
    said = calibration(survey_split(make_model(11, scale=0.0), tokens, MEANING, SETTINGS))
    assert said["bins"][0]["n_tokens"] == 2999
    assert said["bins"][0]["confidence"] == pytest.approx(1 / 11, rel=1e-6)
    often = (tokens[1:] == 0).mean()
    assert said["accuracy"] == said["bins"][0]["accuracy"] == pytest.approx(often)
    assert said["expected_calibration_error"] == pytest.approx(abs(often - 1 / 11), rel=1e-4)


# --- Copies ---------------------------------------------------------------------------------


def naive_share(text, tokens, n):
    """The share of the n-grams of rows of tokens that stand in a list of tokens."""
    there = {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
    sought = [tuple(row[i : i + n]) for row in text.tolist() for i in range(len(row) - n + 1)]
    return sum(gram in there for gram in sought) / len(sought) if sought else None


def found_shares(text, tokens, tmp_path, vocab_size, dtype):
    array = np.array(tokens, dtype=dtype)
    array.tofile(tmp_path / "train.bin")
    shares = shares_found([text], tmp_path / "train.bin", len(tokens), array.dtype, vocab_size)
    return {int(n): None if math.isnan(share) else share for n, share in shares[0].items()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_tokens=st.integers(1, 300),
    vocab_size=st.sampled_from([1, 2, 3, 70_000]),
    width=st.integers(0, 70),
    at_once=st.sampled_from([1, 13, 100, 1 << 16]),
)
def test_found_n_grams_are_those_of_a_search_by_sets(
    directory, seed, n_tokens, vocab_size, width, at_once
):
    random = np.random.default_rng(seed)
    tokens = random.integers(vocab_size, size=n_tokens).tolist()
    # Rows half copied, from anywhere, half random.
    rows = random.integers(vocab_size, size=(3, width))
    for row in rows:
        n_copied = int(random.integers(min(width, n_tokens) + 1))
        source, place = (
            random.integers(n_tokens - n_copied + 1),
            random.integers(width - n_copied + 1),
        )
        row[place : place + n_copied] = tokens[source : source + n_copied]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_module, "SEARCHED_AT_ONCE", at_once)
        dtype = np.uint16 if vocab_size <= 0xFFFF else np.uint32
        found = found_shares(rows, tokens, directory, vocab_size, dtype)
    assert found == {n: naive_share(rows, tokens, n) for n in NGRAMS}


def test_a_large_file_is_searched_in_little_memory(tmp_path):
    tokens = make_tokens(2_000_000, 1000)
    tokens.tofile(tmp_path / "train.bin")
    text = tokens[None, -200:].astype(int)
    tracemalloc.start()
    shares = shares_found([text], tmp_path / "train.bin", len(tokens), tokens.dtype, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shares == [{"8": 1.0, "16": 1.0, "32": 1.0}]
    assert peak < 6e6  # all hashes at once would be 16 MB


def test_each_of_several_texts_gets_its_own_share(tmp_path):
    tokens = make_tokens(1000, 50)
    tokens.tofile(tmp_path / "train.bin")
    copied, other = tokens[None, 100:200].astype(int), make_tokens(100, 50, seed=1)[None]
    both = np.concatenate([copied[:, :60], other[:, :60]], axis=1)
    shares = shares_found([copied, other, both], tmp_path / "train.bin", 1000, tokens.dtype, 50)
    assert shares[0] == {"8": 1.0, "16": 1.0, "32": 1.0}
    assert shares[1] == {"8": 0.0, "16": 0.0, "32": 0.0}
    assert shares[2]["32"] == (60 - 31) / (120 - 31)


def make_alphabet(n_letters):
    """A model that is sure that each letter is followed by the next, and the last by the first."""
    one = {"n_layer": 1, "n_head": 1, "n_embd": n_letters, "dropout": 0.0, "bias": False}
    model = GPT(ModelSettings(**one, block_size=BLOCK), n_letters)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln" in name else 0.0)
        letters = torch.eye(n_letters)
        model.wte.weight.copy_(20 * letters)
        model.h[0].mlp.c_fc.weight[:n_letters] = letters
        model.h[0].mlp.c_proj.weight[:, :n_letters] = 1000 * letters.roll(1, 0)
    return model


def evaluated_alphabet(write_dataset, tmp_path, text):
    dataset = write_dataset(text)
    tokenizer = load(dataset).tokenizer
    model = make_alphabet(tokenizer.vocab_size)
    save_model(tmp_path / "model", model.state_dict(), model.settings, tokenizer)
    return evaluate("abc", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")


def test_a_model_that_can_only_repeat_the_training_text_copies_all(write_dataset, tmp_path):
    result = evaluated_alphabet(write_dataset, tmp_path, "abcdefghij" * 200)
    assert result["val"]["loss"] < 1e-6
    said = result["copying"]
    assert [said[n] for n in ("8", "16", "32")] == [1.0, 1.0, 1.0]
    assert [said["reference"][n] for n in ("8", "16", "32")] == [1.0, 1.0, 1.0]
    assert result["calibration"]["accuracy"] == 1.0
    assert result["calibration"]["expected_calibration_error"] == pytest.approx(0, abs=1e-6)


def test_a_model_that_writes_what_the_training_text_lacks_copies_nothing(write_dataset, tmp_path):
    result = evaluated_alphabet(write_dataset, tmp_path, "jihgfedcba" * 200)
    said = result["copying"]
    assert [said[n] for n in ("8", "16", "32")] == [0.0, 0.0, 0.0]
    assert [said["reference"][n] for n in ("8", "16", "32")] == [1.0, 1.0, 1.0]


def test_copying_is_of_what_the_model_writes_after_prompts_of_the_validation_split(play):
    model, files = make_model(load(play).tokenizer.vocab_size), load(play)
    said = copying(model, play / "train.bin", len(files.train), files.val, SETTINGS)
    starts = window_starts(len(files.val), 16 + 128, 32)
    val = files.val.astype(np.int64)
    prompts = torch.from_numpy(np.stack([val[start : start + 16] for start in starts]))
    assert len(prompts) == 32
    own = COPYING.model_copy(update={"device": "cpu", "dtype": "float32"})
    written = torch.stack(list(generate(model, prompts, own)), dim=1).numpy()
    train = files.train.tolist()
    assert said["n_tokens"] == 32 * 128
    assert said["8"] == naive_share(written, train, 8)
    reference = np.stack([val[start + 16 : start + 144] for start in starts])
    assert said["reference"] == {
        "n_tokens": 32 * 128,
        **{str(n): naive_share(reference, train, n) for n in NGRAMS},
    }
    assert said["reference"]["8"] > said["8"]  # the model is not trained


def test_a_short_validation_splits_prompts_serve_several_times(write_dataset, tmp_path):
    dataset = write_dataset("so foul and fair a day I have not seen. " * 10)
    save(tmp_path / "model", dataset)
    said = evaluate("short", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert said["copying"]["n_tokens"] == 32 * 128
    assert said["copying"]["reference"]["n_tokens"] == 39 - 16
    assert said["copying"]["reference"]["16"] == 1.0
    assert said["copying"]["reference"]["32"] is None


# --- nanoGPT's estimate ---------------------------------------------------------------------


def test_nanogpts_estimate_is_a_function_of_its_seed():
    tokens = make_tokens(400, 11)
    first = nanogpt_estimate(MODEL, tokens, SETTINGS)
    torch.rand(3)
    assert nanogpt_estimate(MODEL, tokens, SETTINGS) == first
    assert nanogpt_estimate(MODEL, tokens, SETTINGS.model_copy(update={"seed": 1})) != first


def test_nanogpts_estimate_comes_near_the_mean_over_all_windows():
    tokens = make_tokens(60, 11)
    every = windows_loss(MODEL, tokens, np.arange(60 - BLOCK), SETTINGS).mean
    many = SETTINGS.model_copy(update={"eval_iters": 500, "batch_size": 8})
    assert nanogpt_estimate(MODEL, tokens, many) == pytest.approx(every, rel=0.02)


def test_nanogpts_estimate_reads_a_split_of_one_window():
    tokens = make_tokens(BLOCK + 1, 11)
    expected = slow_loss(MODEL, tokens) / BLOCK
    assert nanogpt_estimate(MODEL, tokens, SETTINGS) == pytest.approx(expected, rel=1e-5)


# --- eval.json ------------------------------------------------------------------------------


def save(directory, dataset, seed=0, **changes):
    """A model directory for a dataset, with random weights; returns the model."""
    tokenizer = load(dataset).tokenizer
    model = make_model(tokenizer.vocab_size, seed, **changes)
    save_model(directory, model.state_dict(), model.settings, tokenizer)
    return model


@pytest.fixture(scope="module")
def scene(write_dataset):
    """A dataset of the first 12,000 characters of a play."""
    return write_dataset(playwright.write(12_000, seed=1), builtin=True)


@pytest.fixture(scope="module")
def evaluated(scene, tmp_path_factory):
    """(model, what evaluate returns, path of eval.json) of a random model of the scene."""
    root = tmp_path_factory.mktemp("evaluated")
    model = save(root / "model", scene)
    path = root / "results" / "eval.json"
    return model, evaluate("someone", scene, root / "model", SETTINGS, path), path


def test_eval_json_has_the_documented_keys_and_is_what_is_returned(evaluated, scene):
    _, result, path = evaluated
    assert json.loads(path.read_text()) == result
    keys = {"run", "dataset", "val", "train", "nanogpt_estimate", "model", "source"}
    assert result.keys() == keys | {"by_position", "by_kind", "calibration", "copying"}
    split = {"loss", "perplexity", "bits_per_byte", "bits_per_character", "interval"}
    split |= {"n_tokens", "n_bytes", "n_characters"}
    assert result["val"].keys() == split
    assert result["train"].keys() == split | {"n_windows"}
    units = {"loss", "bits_per_byte", "bits_per_character"}
    assert result["val"]["interval"].keys() == units | {"level", "n_resamples"}
    assert result["by_position"][0].keys() == {"first", "last", "loss", "n_tokens"}
    assert result["by_kind"]["letters"].keys() == {"loss", "n_tokens", "share_of_loss"}
    assert result["calibration"].keys() == {"accuracy", "expected_calibration_error", "bins"}
    line = {"low", "high", "confidence", "accuracy", "n_tokens"}
    assert result["calibration"]["bins"][0].keys() == line
    shares = {"n_tokens", "8", "16", "32"}
    assert result["copying"].keys() == shares | {"settings", "reference"}
    assert result["copying"]["reference"].keys() == shares
    assert result["nanogpt_estimate"].keys() == {"train", "val", "eval_iters", "batch_size"}
    assert result["run"] == "someone"
    assert result["dataset"] == scene.name


def keys_of(value):
    """All keys of nested maps."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    return set(value).union(*map(keys_of, value.values())) if isinstance(value, dict) else set()


def test_each_key_is_explained(evaluated):
    explained = (ROOT / "docs" / "EVALUATION.md").read_text(encoding="utf-8")
    result = {name: value for name, value in evaluated[1].items() if name != "model"}
    for key in (keys_of(result) | set(KINDS)) - {"model"}:
        assert f"`{key}`" in explained, key


def test_eval_json_says_what_was_evaluated(evaluated):
    model, result, _ = evaluated
    assert result["model"] == {
        "n_parameters": model.n_parameters(),
        "vocab_size": model.vocab_size,
        **model.settings.model_dump(),
    }
    assert result["nanogpt_estimate"]["eval_iters"] == 3
    assert result["nanogpt_estimate"]["batch_size"] == 4


def test_the_copies_are_sought_with_constant_settings(evaluated):
    _, result, _ = evaluated
    assert result["copying"]["settings"] == {
        "prompt_tokens": 16,
        "num_samples": 32,
        "max_new_tokens": 128,
        "temperature": 1.0,
        "top_k": 0,
        "seed": 1337,
    }


def test_the_whole_validation_split_is_evaluated(evaluated, scene):
    model, result, _ = evaluated
    tokens = load(scene).val
    val = result["val"]
    assert val["n_tokens"] == len(tokens) - 1 == 1199
    assert val["n_bytes"] == val["n_characters"] == 1199  # the play is ASCII
    assert val["loss"] == pytest.approx(slow_loss(model, tokens) / 1199, rel=1e-5)
    assert val["perplexity"] == pytest.approx(math.exp(val["loss"]), rel=1e-12)
    assert val["bits_per_byte"] == pytest.approx(val["loss"] / math.log(2), rel=1e-12)
    assert val["bits_per_character"] == val["bits_per_byte"]
    low, high = val["interval"]["loss"]
    assert low < val["loss"] < high


def test_positions_kinds_and_calibration_are_of_the_validation_split(evaluated):
    _, result, _ = evaluated
    for lines in (
        result["by_position"],
        result["by_kind"].values(),
        result["calibration"]["bins"],
    ):
        assert sum(line["n_tokens"] for line in lines) == 1199
    for lines in (result["by_position"], result["by_kind"].values()):
        nats = sum(line["loss"] * line["n_tokens"] for line in lines)
        assert nats / 1199 == pytest.approx(result["val"]["loss"], rel=1e-9)


def test_of_the_training_split_as_many_windows_are_read_as_the_validation_split_has(
    evaluated, scene
):
    model, result, _ = evaluated
    files = load(scene)
    n_windows = (len(files.val) - 1) // BLOCK
    assert result["train"]["n_windows"] == n_windows
    assert result["train"]["n_tokens"] == n_windows * BLOCK
    n_train = (len(files.train) - 1) // BLOCK
    chosen = [round(i * (n_train - 1) / (n_windows - 1)) for i in range(n_windows)]
    nats = [slow_loss(model, files.train[BLOCK * w : BLOCK * (w + 1) + 1]) for w in chosen[:40]]
    starts = np.array(chosen[:40]) * BLOCK
    assert windows_loss(model, files.train, starts, SETTINGS).nats == pytest.approx(sum(nats))
    every = windows_loss(model, files.train, np.array(chosen) * BLOCK, SETTINGS)
    assert result["train"]["loss"] == pytest.approx(every.mean, rel=1e-9)


def test_nanogpts_estimates_stand_beside_the_exact_losses(evaluated, scene):
    model, result, _ = evaluated
    files = load(scene)
    for split, tokens in (("train", files.train), ("val", files.val)):
        expected = nanogpt_estimate(model, tokens, SETTINGS)
        assert result["nanogpt_estimate"][split] == expected
        assert expected != result[split]["loss"]
        assert expected == pytest.approx(result[split]["loss"], rel=0.2)


def test_the_excess_over_the_source_is_what_the_model_loses_beyond_the_plays_own_surprise(
    evaluated,
):
    _, result, _ = evaluated
    bits = playwright.surprisal(playwright.write(12_000, seed=1))
    entropy = bits[10_801:].sum() / 1199
    source = result["source"]
    assert source["bits_per_byte"] == pytest.approx(entropy, rel=1e-9)
    excess = result["val"]["bits_per_byte"] - entropy
    assert source["excess_bits_per_byte"] == pytest.approx(excess, rel=1e-9)
    assert source["excess_percent"] == pytest.approx(100 * excess / entropy, rel=1e-9)


def test_a_text_of_unknown_source_has_no_excess(write_dataset, tmp_path):
    dataset = write_dataset("so foul and fair a day I have not seen. " * 10)
    save(tmp_path / "model", dataset)
    result = evaluate("someone", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert "source" not in result


def test_bits_per_byte_count_the_bytes_of_the_predicted_characters(write_dataset, tmp_path):
    text = "añb日c🎭d" * 60  # characters of 1, 2, 3 and 4 bytes
    dataset = write_dataset(text)
    model = save(tmp_path / "model", dataset)
    result = evaluate("someone", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    predicted = text[int(len(text) * 0.9) :][1:]
    val = result["val"]
    assert val["n_tokens"] == val["n_characters"] == len(predicted)
    assert val["n_bytes"] == len(predicted.encode("utf-8")) > len(predicted)
    nats = slow_loss(model, load(dataset).val)
    bits = nats / math.log(2)
    assert val["bits_per_byte"] == pytest.approx(bits / val["n_bytes"], rel=1e-5)
    assert val["bits_per_character"] == pytest.approx(bits / len(predicted), rel=1e-5)


def test_the_same_evaluation_gives_the_same_bytes(evaluated, scene, tmp_path):
    _, _, path = evaluated
    save(tmp_path / "model", scene)
    evaluate("someone", scene, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert (tmp_path / "eval.json").read_bytes() == path.read_bytes()


def test_the_summary_is_one_line_with_the_two_numbers_that_matter(evaluated):
    _, result, _ = evaluated
    loss, bits = result["val"]["loss"], result["val"]["bits_per_byte"]
    expected = f"validation loss {loss:.4f} nats per token, {bits:.4f} bits per byte"
    assert summary(result) == expected


# --- What goes wrong ------------------------------------------------------------------------


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_a_model_whose_logits_overflow_gets_nulls_where_it_has_no_numbers(scene, tmp_path):
    save(tmp_path / "model", scene, scale=1e30)
    result = evaluate("ruined", scene, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    text = (tmp_path / "eval.json").read_text()
    assert json.loads(text, parse_constant=refuse) == result
    val = result["val"]
    assert [val[unit] for unit in ("loss", "perplexity", "bits_per_byte")] == [None, None, None]
    assert val["interval"]["loss"] == [None, None]
    assert val["n_tokens"] == 1199
    assert result["copying"] is None
    assert result["by_position"][0]["loss"] is None
    assert result["source"]["excess_percent"] is None
    assert summary(result) == "validation loss is not a number"


def test_a_loss_too_large_for_a_perplexity_is_told_without_one(scene, tmp_path):
    save(tmp_path / "model", scene, scale=1e6)
    result = evaluate("wild", scene, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert result["val"]["loss"] > 710
    assert result["val"]["perplexity"] is None
    assert result["copying"]["n_tokens"] == 32 * 128


def test_a_split_of_nothing_but_ends_of_texts_has_no_bits_per_byte():
    tokens = np.full(40, BYTE_PAIRS.vocab_size - 1, dtype=np.uint16)
    model = make_model(BYTE_PAIRS.vocab_size)
    found = survey_split(model, tokens, symbols(BYTE_PAIRS), SETTINGS)
    said = of_split(found)
    assert said["loss"] > 0
    assert math.isinf(said["bits_per_byte"])  # null in eval.json
    assert list(by_kind(found)) == ["end_of_text"]


def refusal(dataset, model_directory, tmp_path):
    with pytest.raises(UserError) as error:
        evaluate("someone", dataset, model_directory, SETTINGS, tmp_path / "eval.json")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "eval.json").exists()
    return str(error.value)


def test_a_model_of_another_vocabulary_is_refused(play, tmp_path):
    letters = "".join(map(chr, range(256, 256 + load(play).tokenizer.vocab_size)))
    model = make_model(len(letters))
    save_model(tmp_path / "model", model.state_dict(), model.settings, char_tokenizer(letters))
    message = refusal(play, tmp_path / "model", tmp_path)
    assert "another vocabulary" in message
    assert str(tmp_path / "model") in message
    assert str(play) in message


def test_a_split_shorter_than_a_window_is_refused(write_dataset, tmp_path):
    dataset = write_dataset("so foul and fair a day " * 5)
    save(tmp_path / "model", dataset)
    message = refusal(dataset, tmp_path / "model", tmp_path)
    assert dataset.name in message
    assert "block_size 16" in message


def test_a_missing_model_is_named(play, tmp_path):
    assert str(tmp_path / "nowhere") in refusal(play, tmp_path / "nowhere", tmp_path)
