"""Any text survives the tokenizer, and what the vocabulary lacks is named."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.config import UserError
from nanogpt.tokenizer import CharTokenizer, char_tokenizer, load_tokenizer, token_dtype

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(TEXTS)
def test_any_text_comes_back(text):
    tokenizer = char_tokenizer(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None)
@given(TEXTS)
def test_ids_are_places_in_the_order_of_code_points(text):
    tokenizer = char_tokenizer(text)
    symbols = sorted(set(text))
    assert tokenizer.vocabulary == "".join(symbols)
    assert tokenizer.vocab_size == len(symbols)
    assert tokenizer.encode(text).tolist() == [symbols.index(c) for c in text]


def test_code_points_beyond_the_basic_plane_come_last():
    # In UTF-16 they would come before U+FFFD.
    assert char_tokenizer("😀�a").vocabulary == "a�😀"


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_unknown_characters_are_skipped_when_asked_for_and_named_otherwise(known, text):
    tokenizer = char_tokenizer(known)
    kept = "".join(c for c in text if c in known)
    assert tokenizer.decode(tokenizer.encode(text, "skip")) == kept
    if kept == text:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    else:
        first = next(c for c in text if c not in known)
        with pytest.raises(UserError) as error:
            tokenizer.encode(text)
        assert f"U+{ord(first):04X}" in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_the_message_names_each_unknown_character_once_and_says_what_to_do():
    with pytest.raises(UserError) as error:
        char_tokenizer("abc").encode("aéb😀é\n")
    message = str(error.value)
    assert "3 characters" in message
    assert message.count("U+00E9") == 1
    assert "'é' (U+00E9), '😀' (U+1F600), '\\n' (U+000A);" in message
    assert "unknown: skip" in message


def test_of_many_unknown_characters_five_are_named():
    with pytest.raises(UserError, match=r"'0' .*'4' \(U\+0034\) and 5 more;") as error:
        char_tokenizer("abc").encode("0123456789")
    assert str(error.value).count("U+") == 5


def test_token_bytes_are_utf_8_lengths():
    tokenizer = char_tokenizer("aé€😀")
    assert tokenizer.token_bytes.tolist() == [1, 2, 3, 4]
    assert tokenizer.token_bytes.dtype == np.int64


def test_token_bytes_of_a_text_sum_to_its_bytes():
    text = "Ein Märchen: 😀€ und »Anführung«\n"
    tokenizer = char_tokenizer(text)
    assert tokenizer.token_bytes[tokenizer.encode(text)].sum() == len(text.encode())


def test_ids_have_the_dtype_of_the_token_files():
    assert char_tokenizer("ab").encode("ab").dtype == np.uint16
    large = CharTokenizer("".join(map(chr, range(0x10000, 0x10000 + 65_536))))
    assert large.encode("\U00010000").dtype == np.uint32


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(1, np.uint16), (65_535, np.uint16), (65_536, np.uint32), (1_114_112, np.uint32)],
)
def test_more_than_65535_symbols_need_four_bytes(vocab_size, dtype):
    assert token_dtype(vocab_size) is dtype


def test_decode_takes_lists_and_arrays_of_any_integer_type():
    tokenizer = char_tokenizer("abc")
    assert tokenizer.decode([2, 0]) == "ca"
    assert tokenizer.decode(np.array([2, 0], dtype=np.int64)) == "ca"
    assert tokenizer.decode([]) == ""


@settings(deadline=None, max_examples=25)
@given(TEXTS)
def test_a_saved_tokenizer_is_the_same_one(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer = char_tokenizer(text)
    tokenizer.save(path)
    assert load_tokenizer(path) == tokenizer


def test_a_saved_tokenizer_is_json_with_its_type(tmp_path):
    char_tokenizer("ba").save(tmp_path / "tokenizer.json")
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved == {"type": "char", "vocabulary": "ab"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"type": "char", "vocab',
        "[]",
        "3",
        "null",
        "{}",
        '{"type": "char"}',
        '{"type": "char", "vocabulary": 3}',
        '{"type": "char", "vocabulary": ["a", "b"]}',
        '{"type": "another", "vocabulary": "ab"}',
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(
        UserError, match=r"tokenizer\.json: not a tokenizer.*make .* again"
    ) as error:
        load_tokenizer(path)
    assert len(str(error.value).splitlines()) == 1


def test_bytes_that_are_no_utf_8_are_a_damaged_file(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b'{"type": "char", "vocabulary": "\xff"}')
    with pytest.raises(UserError, match="not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        load_tokenizer(tmp_path / "tokenizer.json")
