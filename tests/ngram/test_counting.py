"""N-gram models are those of their definition, and measured on every token but the first."""

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.config.schema import Corpus, Dataset
from nanogpt.data.batches import load
from nanogpt.data.preparing import prepare
from nanogpt.files.atomic import read_json
from nanogpt.ngram import counting as ngram
from nanogpt.ngram.counting import MAX_ORDER, discounts, fit, measure

PLAY_FILE = (
    Path(os.environ.get("NANOGPT_MIRROR") or "nowhere")
    / "raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
ORDERS = range(1, MAX_ORDER + 1)

small_texts = given(
    n_tokens=st.integers(2, 150), vocab_size=st.integers(1, 12), seed=st.integers(0, 10_000)
)


def make_tokens(n_tokens, vocab_size, seed):
    """Some tokens are frequent, some rare, and the last one of the vocabulary often absent."""
    random = np.random.default_rng(seed)
    share = 1 / np.arange(1, vocab_size + 1) ** 1.5
    return random.choice(vocab_size, size=n_tokens, p=share / share.sum()).astype(np.uint16)


# --- The definition, slowly -----------------------------------------------------------------


def slow_counts(train, order, is_highest):
    """How often each n-gram occurs, or after how many different tokens, the beginning being one."""
    before = {}
    for i in range(len(train) - order + 1):
        gram = tuple(train[i : i + order])
        before.setdefault(gram, []).append(train[i - 1] if i else "beginning")
    return {gram: len(b) if is_highest else len(set(b)) for gram, b in before.items()}


def slow_discount(counts, count):
    n = Counter(counts.values())
    by_count = [0.5, 1.0, 1.5]
    if n[1] and n[2] and n[3]:
        y = n[1] / (n[1] + 2 * n[2])
        estimated = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        if all(discount > 0 for discount in estimated):
            by_count = estimated
    return by_count[min(count, 3) - 1]


def slow_probability(train, vocab_size, order, before, token, is_highest=True):
    """The probability of a token after all those before it, in the model of an order."""
    if order == 0:
        return 1 / vocab_size
    lower = slow_probability(train, vocab_size, order - 1, before, token, is_highest=False)
    if len(before) < order - 1:
        return lower
    counts = slow_counts(train, order, is_highest)
    context = tuple(before[len(before) - order + 1 :])
    follow = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == context}
    if not follow:
        return lower
    discount = {w: slow_discount(counts, count) for w, count in follow.items()}
    seen = follow[token] - discount[token] if token in follow else 0
    return (seen + sum(discount.values()) * lower) / sum(follow.values())


@settings(max_examples=25, deadline=None)
@small_texts
def test_probabilities_are_those_of_the_definition(n_tokens, vocab_size, seed):
    train = make_tokens(n_tokens, vocab_size, seed)
    text = make_tokens(12, vocab_size, seed + 1)
    p = fit(train, vocab_size).probabilities(text)
    assert p.shape == (MAX_ORDER, 12)
    train, text = train.tolist(), text.tolist()
    for order in ORDERS:
        expected = [
            slow_probability(train, vocab_size, order, text[:i], text[i]) for i in range(12)
        ]
        assert p[order - 1] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=100, deadline=None)
@small_texts
def test_probabilities_sum_to_one_after_any_context(n_tokens, vocab_size, seed):
    train = make_tokens(n_tokens, vocab_size, seed)
    models = fit(train, vocab_size)
    random = np.random.default_rng(seed)
    contexts = [
        train[n_tokens - 6 :],  # its last tokens, which only themselves may follow
        train[: seed % 6],
        random.integers(vocab_size, size=seed % 7).astype(np.uint16),
    ]
    for context in contexts:
        p = np.array(
            [
                models.probabilities(np.append(context, np.uint16(token)))[:, -1]
                for token in range(vocab_size)
            ]
        )
        assert p.min() > 0
        assert p.sum(axis=0) == pytest.approx(np.ones(MAX_ORDER), abs=1e-12)


@pytest.mark.parametrize("train", [[0, 0], [1, 0], [0, 1, 1], [1] * 50, [0, 1] * 50])
def test_texts_that_are_short_or_always_the_same_leave_something_for_all_tokens(train):
    models = fit(np.array(train, dtype=np.uint16), 3)
    for text in ([2, 2, 2], [0, 1, 2, 0, 1, 2], [*train[:8], 2]):
        p = models.probabilities(np.array(text, dtype=np.uint16))
        assert p.min() > 0
        assert p.max() <= 1


def test_discounts_are_chen_and_goodmans():
    counts = np.repeat([1, 2, 3, 4, 5, 900], [100, 40, 20, 12, 7, 1])
    y = 100 / (100 + 2 * 40)
    expected = [0, 1 - 2 * y * 40 / 100, 2 - 3 * y * 20 / 40, 3 - 4 * y * 12 / 20]
    assert discounts(counts) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "counts",
    [
        [],
        [7, 8, 9],
        [1, 1, 1, 1],  # all different
        [1] * 4 + [2] + [3] * 10,  # D(2) below zero
        [1, 2, 3, 3],  # D(2) zero
    ],
)
def test_discounts_leave_something_where_they_cannot_be_estimated(counts):
    found = discounts(np.array(counts, dtype=np.int64))
    assert found[0] == 0
    assert (found[1:] > 0).all()
    assert (found[1:] <= [1, 2, 3]).all()


def test_keys_larger_than_32_bits_are_told_apart():
    train = make_tokens(30_000, 12, 0)
    few = fit(train, 12)
    many = fit(train.astype(np.uint32) * 250_000, 3_000_000)
    assert many.orders[-1].keys[-2] > 1 << 32
    for one, other in zip(few.orders, many.orders, strict=True):
        assert len(one.keys) == len(other.keys)


# --- The measure ----------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 3, 5, 64, 1000])
def test_each_token_but_the_first_is_measured_once_whatever_is_looked_up_at_once(
    monkeypatch, block
):
    models = fit(make_tokens(400, 12, 0), 12)
    text = make_tokens(150, 12, 1)
    expected = -np.log(models.probabilities(text)[:, 1:]).sum(axis=1)
    monkeypatch.setattr(ngram, "BLOCK", block)
    assert models.nats(text) == pytest.approx(expected, rel=1e-12)


def test_ngram_json_says_the_loss_of_each_order_in_all_units(play, tmp_path):
    result = measure(play, tmp_path / "ngram.json")
    assert result == read_json(tmp_path / "ngram.json")
    assert result["dataset"] == play.name
    assert result["method"] == "interpolated modified Kneser-Ney"
    files = load(play)
    assert result["n_train_tokens"] == len(files.train)
    nats = fit(files.train, files.tokenizer.vocab_size).nats(files.val)
    assert [order["order"] for order in result["orders"]] == list(ORDERS)
    for order, expected in zip(result["orders"], nats, strict=True):
        n = len(files.val) - 1
        assert order["n_tokens"] == order["n_bytes"] == order["n_characters"] == n
        assert order["loss"] == pytest.approx(expected / n, rel=1e-12)
        assert order["perplexity"] == pytest.approx(math.exp(expected / n), rel=1e-12)
        bits = expected / n / math.log(2)
        assert order["bits_per_byte"] == pytest.approx(bits, rel=1e-12)
        assert order["bits_per_character"] == pytest.approx(bits, rel=1e-12)


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_bytes_and_characters_are_those_of_the_text_after_the_first_token(tmp_path, tokenizer):
    text = "".join(f"{number}. Ein Märchen: »€ 5« 😀.\n" for number in range(100))
    (tmp_path / "text.txt").write_bytes(text.encode())
    split = {"tokenizer": tokenizer, "val_ratio": 0.1}
    if tokenizer == "bpe":
        split["vocab_size"] = 300
    corpus = Corpus(files=["text.txt"])
    prepare([tmp_path / "text.txt"], corpus, Dataset(**split), tmp_path / "dataset")
    files = load(tmp_path / "dataset")
    held_out = files.tokenizer.to_bytes(files.val[1:])
    orders = measure(tmp_path / "dataset", tmp_path / "ngram.json")["orders"]
    for order in orders:
        assert order["n_tokens"] == len(files.val) - 1
        assert order["n_bytes"] == len(held_out)
        assert order["n_characters"] == len(held_out.decode())
        nats = order["loss"] * order["n_tokens"]
        assert order["bits_per_byte"] * order["n_bytes"] * math.log(2) == pytest.approx(nats)
        characters = order["bits_per_character"] * order["n_characters"]
        assert characters * math.log(2) == pytest.approx(nats)


def test_longer_contexts_tell_more_of_the_play_and_none_more_than_its_source_knows(play, tmp_path):
    orders = measure(play, tmp_path / "ngram.json")["orders"]
    losses = [order["loss"] for order in orders]
    assert losses == sorted(losses, reverse=True)
    assert losses[4] < 0.3 * losses[0]
    assert orders[4]["bits_per_byte"] > load(play).meta["source"]["val_bits_per_byte"]


def test_only_the_last_tokens_of_a_long_text_are_counted(play, tmp_path, monkeypatch):
    monkeypatch.setattr(ngram, "MAX_TRAIN_TOKENS", 1000)
    result = measure(play, tmp_path / "ngram.json")
    assert result["n_train_tokens"] == 1000
    files = load(play)
    nats = fit(files.train[-1000:], files.tokenizer.vocab_size).nats(files.val)
    losses = [order["loss"] for order in result["orders"]]
    assert losses == pytest.approx((nats / (len(files.val) - 1)).tolist(), rel=1e-12)


def test_the_same_dataset_gives_the_same_bytes_again(play, tmp_path):
    for name in ("one", "other"):
        measure(play, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.mirror
@pytest.mark.skipif(
    not PLAY_FILE.is_file(),
    reason="Tiny Shakespeare is not there: NANOGPT_MIRROR is not set, or lacks it",
)
def test_tiny_shakespeare_s_characters_have_these_losses(tmp_path):
    prepare([PLAY_FILE], Corpus(files=["input.txt"]), Dataset(val_ratio=0.1), tmp_path)
    result = measure(tmp_path, tmp_path / "ngram.json")
    assert result["n_train_tokens"] == 1_003_854
    assert [order["n_tokens"] for order in result["orders"]] == [111_539] * MAX_ORDER
    assert [order["loss"] for order in result["orders"]] == pytest.approx(
        [3.347304, 2.483518, 2.038082, 1.719016, 1.561127], abs=2e-6
    )
