"""A mixture is the weighted mean of the GPT's and the n-grams' probabilities."""

import numpy as np
import pytest
import torch

from nanogpt.config.schema import NgramSettings
from nanogpt.data.batches import load
from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.errors import UserError
from nanogpt.ngram.counts import count_split
from nanogpt.ngram.mixing import find_ngrams, load_ngrams


def write_ngrams(play, path, **settings):
    count_split(play, NgramSettings(max_order=4, **settings), path)
    return load_ngrams(path, load(play).tokenizer)


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("caution", [0.0, 0.5, 2.0])
def test_each_probability_is_the_weighted_mean(play, tmp_path, weight, caution):
    ngrams = write_ngrams(play, tmp_path / "n.safetensors", weight=weight, caution=caution)
    text = load(play).val[:12].astype(np.int64)
    logits = torch.randn(1, ngrams.trie.vocab_size, generator=torch.Generator().manual_seed(1))
    mixed = ngrams.mix(logits, ngrams.contexts(text.tolist())).exp()[0]
    assert mixed.sum().item() == pytest.approx(1, abs=1e-5)
    for token in (0, 5, 20):
        one = ngrams.trie.probabilities(np.append(text, token))
        share = weight * (1 - one.held_back[-1]) ** caution
        gpt = torch.softmax(logits, -1)[0, token].item()
        expected = (1 - share) * gpt + share * one.p[-1]
        assert mixed[token].item() == pytest.approx(expected, rel=1e-4)


def test_with_a_weight_of_0_the_logits_are_the_gpts(play, tmp_path):
    ngrams = write_ngrams(play, tmp_path / "n.safetensors", weight=0.0)
    logits = torch.randn(1, ngrams.trie.vocab_size, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ngrams.mix(logits, ngrams.contexts([1, 2])), logits)
    assert ngrams.summary() == "n-grams, not mixed: max_order 4, weight 0"


def test_growing_sequences_equal_those_read_as_a_whole(play, tmp_path):
    ngrams = write_ngrams(play, tmp_path / "n.safetensors")
    texts = load(play).val[:30].astype(np.int64).reshape(3, 10)
    grown = np.concatenate([ngrams.contexts(text[:1].tolist()) for text in texts])
    for step in range(1, 10):
        grown = ngrams.read(grown, texts[:, step])
    at_once = np.concatenate([ngrams.contexts(text.tolist()) for text in texts])
    logits = torch.zeros(3, ngrams.trie.vocab_size)
    assert torch.equal(ngrams.mix(logits, grown), ngrams.mix(logits, at_once))


def test_ngrams_of_another_vocabulary_are_rejected(play, tmp_path):
    write_ngrams(play, tmp_path / "ngrams.safetensors")
    char_tokenizer("abc").save(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="its vocabulary isn't the model's"):
        find_ngrams(tmp_path)


def test_a_model_without_ngrams_has_none(tmp_path):
    assert find_ngrams(tmp_path) is None
