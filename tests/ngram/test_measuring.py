"""N-gram models are evaluated on every token except the first, in all units."""

import math
import os
from pathlib import Path

import pytest

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.batches import load
from nanogpt.data.preparing import prepare
from nanogpt.files.atomic import read_json
from nanogpt.ngram import measuring
from nanogpt.ngram.measuring import measure
from nanogpt.ngram.probabilities import MAX_ORDER, fit
from tests.ngram.examples import ORDERS

PLAY_FILE = (
    Path(os.environ.get("NANOGPT_MIRROR") or "nowhere")
    / "raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)


def test_ngram_json_has_the_loss_of_each_order_in_all_units(play, tmp_path):
    result = measure(play, tmp_path / "ngram.json")
    assert result.content() == read_json(tmp_path / "ngram.json")
    assert result.dataset == play.name
    assert result.method == "interpolated modified Kneser-Ney"
    files = load(play)
    assert result.n_train_tokens == len(files.train)
    nats = fit(files.train, files.tokenizer.vocab_size).nats(files.val)
    assert [order.order for order in result.orders] == list(ORDERS)
    for order, expected in zip(result.orders, nats, strict=True):
        n = len(files.val) - 1
        assert order.n_tokens == order.n_bytes == order.n_characters == n
        assert order.loss == pytest.approx(expected / n, rel=1e-12)
        assert order.perplexity == pytest.approx(math.exp(expected / n), rel=1e-12)
        bits = expected / n / math.log(2)
        assert order.bits_per_byte == pytest.approx(bits, rel=1e-12)
        assert order.bits_per_character == pytest.approx(bits, rel=1e-12)


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_bytes_and_characters_exclude_the_first_token(tmp_path, tokenizer):
    text = "".join(f"{number}. Ein Märchen: »€ 5« 😀.\n" for number in range(100))
    (tmp_path / "text.txt").write_bytes(text.encode())
    split = {"tokenizer": tokenizer, "val_ratio": 0.1}
    if tokenizer == "bpe":
        split["vocab_size"] = 300
    corpus = Corpus(files=["text.txt"])
    prepare([tmp_path / "text.txt"], corpus, Dataset(**split), tmp_path / "dataset")
    files = load(tmp_path / "dataset")
    held_out = files.tokenizer.to_bytes(files.val[1:])
    orders = measure(tmp_path / "dataset", tmp_path / "ngram.json").orders
    for order in orders:
        assert order.n_tokens == len(files.val) - 1
        assert order.n_bytes == len(held_out)
        assert order.n_characters == len(held_out.decode())
        nats = order.loss * order.n_tokens
        assert order.bits_per_byte * order.n_bytes * math.log(2) == pytest.approx(nats)
        characters = order.bits_per_character * order.n_characters
        assert characters * math.log(2) == pytest.approx(nats)


def test_longer_contexts_predict_better_but_never_beat_the_source(play, tmp_path):
    orders = measure(play, tmp_path / "ngram.json").orders
    losses = [order.loss for order in orders]
    assert losses == sorted(losses, reverse=True)
    assert losses[4] < 0.3 * losses[0]
    assert orders[4].bits_per_byte > load(play).meta.source.val_bits_per_byte


def test_only_the_last_tokens_of_a_long_text_are_counted(play, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "MAX_TRAIN_TOKENS", 1000)
    result = measure(play, tmp_path / "ngram.json")
    assert result.n_train_tokens == 1000
    files = load(play)
    nats = fit(files.train[-1000:], files.tokenizer.vocab_size).nats(files.val)
    losses = [order.loss for order in result.orders]
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
    assert result.n_train_tokens == 1_003_854
    assert [order.n_tokens for order in result.orders] == [111_539] * MAX_ORDER
    assert [order.loss for order in result.orders] == pytest.approx(
        [3.347304, 2.483518, 2.038082, 1.719016, 1.561127], abs=2e-6
    )
