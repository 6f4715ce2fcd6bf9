"""A saved tokenizer can be loaded, and a damaged file is named."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.data import byte_pairs
from nanogpt.data.byte_pairs import train_byte_pairs
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import (
    ByteTokenizer,
    char_tokenizer,
)
from nanogpt.errors import UserError
from tests.data.hard_texts import ALL_KINDS, SMALL_TEXT, TEXTS


@settings(deadline=None, max_examples=25)
@given(TEXTS)
def test_a_saved_vocabulary_loads_as_the_same(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer = char_tokenizer(text)
    tokenizer.save(path)
    assert load_tokenizer(path) == tokenizer


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_saved_tokenizer_loads_as_the_same(of_kind, kind, tmp_path):
    tokenizer = of_kind(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded == tokenizer
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.encode(SMALL_TEXT).tolist() == tokenizer.encode(SMALL_TEXT).tolist()
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_saved_tokenizer_is_json_with_its_type(tmp_path):
    path = tmp_path / "tokenizer.json"

    def saved(tokenizer):
        tokenizer.save(path)
        return json.loads(path.read_text(encoding="utf-8"))

    assert saved(char_tokenizer("ba")) == {"type": "char", "vocabulary": "ab"}
    assert saved(ByteTokenizer()) == {"type": "byte"}
    pairs = saved(train_byte_pairs(["é é é é a a"], 5000, 1))
    assert pairs["type"] == "bpe"
    # Bytes are spelled as in GPT-2's own files: a space is Ġ.
    assert pairs["tokens"][:3] == ["!", '"', "#"]
    assert pairs["tokens"][256:] == ["Ã©", "ĠÃ©", "Ġa"]


SINGLE = [*byte_pairs.CHARACTER_OF_BYTE.values()]


def bpe_file(*more, single=SINGLE):
    return json.dumps({"type": "bpe", "tokens": [*single, *more]})


def test_byte_pairs_are_loaded_from_the_256_bytes_and_more(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(bpe_file("Ġa", "bc"), encoding="utf-8")
    assert load_tokenizer(path).tokens[256:] == (b" a", b"bc")


DAMAGED = {
    "empty": "",
    "truncated": '{"type": "char", "vocab',
    "a list": "[]",
    "a number": "3",
    "null": "null",
    "nothing in it": "{}",
    "no vocabulary": '{"type": "char"}',
    "a number for a vocabulary": '{"type": "char", "vocabulary": 3}',
    "a list for a vocabulary": '{"type": "char", "vocabulary": ["a", "b"]}',
    "a character twice": '{"type": "char", "vocabulary": "aab"}',
    "another kind": '{"type": "another", "vocabulary": "ab"}',
    "a lone surrogate": '{"type": "char", "vocabulary": "a\\ud800"}',
    "brackets without end": 100_000 * "[",
    "no tokens": '{"type": "bpe"}',
    "a number for tokens": '{"type": "bpe", "tokens": 3}',
    "no bytes": '{"type": "bpe", "tokens": []}',
    "a byte missing": bpe_file(single=SINGLE[:-1]),
    "a token twice": bpe_file("ab", "ab"),
    "a number for a token": bpe_file(3),
    "a token of no byte": bpe_file("漢"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        UserError, match=r"tokenizer\.json: not a nanogpt tokenizer; delete the file"
    ) as error:
        load_tokenizer(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["byte", "pairs"])
def test_a_file_truncated_anywhere_is_damaged(of_kind, kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    of_kind(kind).save(path)
    whole = path.read_bytes().rstrip()

    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, len(whole) - 1))
    def check(size):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a nanogpt tokenizer"):
            load_tokenizer(path)

    check()


def test_a_file_that_is_not_utf_8_is_damaged(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b'{"type": "char", "vocabulary": "\xff"}')
    with pytest.raises(UserError, match="not a nanogpt tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.bpe"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}: no such file"):
        load_tokenizer(tmp_path / name)


def test_merges_that_are_not_gpt2s_are_rejected(tmp_path):
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nt h\n")
    with pytest.raises(UserError, match=r"vocab\.bpe: not GPT-2's merges"):
        load_tokenizer(tmp_path / "vocab.bpe")
