"""Any text survives every tokenizer, and unknown characters are named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanogpt.data.byte_pairs import BytePairTokenizer, train_byte_pairs
from nanogpt.data.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    char_tokenizer,
    token_characters,
    token_dtype,
    token_texts,
)
from nanogpt.errors import UserError
from tests.data.hard_texts import ALL_KINDS, BYTE_PAIR_KINDS, HARD, TEXTS, joined

ROOT = Path(__file__).resolve().parents[2]


# --- Any text, any tokenizer ----------------------------------------------------------------


@settings(deadline=None)
@given(TEXTS)
def test_any_text_survives_its_own_vocabulary(text):
    tokenizer = char_tokenizer(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_any_text_survives_and_its_tokens_sum_to_its_bytes(of_kind, kind):
    tokenizer = of_kind(kind)
    n_bytes_of = tokenizer.token_bytes

    @settings(deadline=None)
    @given(st.one_of(TEXTS, HARD))
    @example("")
    def check(text):
        tokens = tokenizer.encode(text)
        assert tokens.dtype == token_dtype(tokenizer.vocab_size)
        assert tokenizer.decode(tokens) == text
        assert tokenizer.to_bytes(tokens) == text.encode()
        assert n_bytes_of[tokens].sum() == len(text.encode())

    check()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_tokens_never_join_across_a_cut(of_kind, kind):
    tokenizer = of_kind(kind)

    @settings(deadline=None, max_examples=300)
    @given(HARD, HARD)
    @example("a\x1c ", "b")  # a blank only to Python
    @example("漢字、", "、")
    def check(text, following):
        end = tokenizer.cut(text)
        assert 0 <= end <= len(text)
        whole = text + following
        assert joined(tokenizer, [whole[:end], whole[end:]]) == tokenizer.encode(whole).tolist()

    check()


def test_after_a_document_characters_and_bytes_have_the_separator():
    assert ByteTokenizer().end_of_document("é\n").tolist() == [0xC3, 0xA9, 10]
    assert char_tokenizer("ab\n").end_of_document("\n").tolist() == [0]
    assert len(ByteTokenizer().end_of_document("")) == 0
    assert len(char_tokenizer("ab").end_of_document("")) == 0
    with pytest.raises(UserError, match=r"U\+000A"):
        char_tokenizer("ab").end_of_document("\n")


@pytest.mark.parametrize("kind", ["byte", *BYTE_PAIR_KINDS])
def test_half_a_character_decodes_to_a_replacement_character(of_kind, kind):
    tokenizer = of_kind(kind)
    single = {tokenizer.to_bytes([token]): token for token in range(256)}
    assert tokenizer.decode([single[b"\xf0"], single[b"\x9f"]]) == "\ufffd"
    assert tokenizer.to_bytes([single[b"\xf0"], single[b"\x9f"]]) == b"\xf0\x9f"


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_decode_accepts_lists_and_arrays_of_any_integer_type(of_kind, kind):
    tokenizer = of_kind(kind)
    tokens = tokenizer.encode("the cab")
    assert tokenizer.decode(tokens.tolist()) == "the cab"
    assert tokenizer.decode(tokens.astype(np.int64)) == "the cab"
    assert tokenizer.decode([]) == ""
    assert tokenizer.to_bytes([]) == b""


@pytest.mark.parametrize("kind", ["pairs", "byte"])
def test_byte_tokens_cover_all_characters(of_kind, kind):
    tokenizer = of_kind(kind)
    assert tokenizer.encode("漢😀", "skip").tolist() == tokenizer.encode("漢😀").tolist()
    assert tokenizer.decode(tokenizer.encode("漢😀")) == "漢😀"


# --- Characters -----------------------------------------------------------------------------


@settings(deadline=None)
@given(TEXTS)
def test_ids_follow_the_order_of_code_points(text):
    tokenizer = char_tokenizer(text)
    symbols = sorted(set(text))
    assert tokenizer.vocabulary == "".join(symbols)
    assert tokenizer.vocab_size == len(symbols)
    assert tokenizer.encode(text).tolist() == [symbols.index(c) for c in text]


def test_code_points_beyond_the_basic_plane_come_last():
    # In UTF-16 they would come before U+FFFD.
    assert char_tokenizer("😀\ufffda").vocabulary == "a\ufffd😀"


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_unknown_characters_are_skipped_or_named(known, text):
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


def test_the_error_lists_each_unknown_character_once_with_a_remedy():
    with pytest.raises(UserError) as error:
        char_tokenizer("abc").encode("aéb😀é\n")
    assert str(error.value) == (
        "the tokenizer's vocabulary of 3 characters lacks 'é' (U+00E9), '😀' (U+1F600), "
        "'\\n' (U+000A); leave them out"
    )


def test_five_of_many_unknown_characters_are_listed():
    message = r"'0' .*'4' \(U\+0034\) and 5 more; leave them out$"
    with pytest.raises(UserError, match=message) as error:
        char_tokenizer("abc").encode("0123456789")
    assert str(error.value).count("U+") == 5


def test_the_bytes_of_a_character_are_those_of_utf_8():
    tokenizer = char_tokenizer("aé€😀")
    assert tokenizer.token_bytes.tolist() == [1, 2, 3, 4]
    assert tokenizer.token_bytes.dtype == np.int64


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


# --- Bytes ----------------------------------------------------------------------------------


def test_a_byte_is_its_own_id():
    tokenizer = ByteTokenizer()
    assert tokenizer.vocab_size == 256
    assert tokenizer.encode("aé").tolist() == [0x61, 0xC3, 0xA9]
    assert tokenizer.token_bytes.tolist() == [1] * 256


# --- Files ----------------------------------------------------------------------------------


def test_tokenizers_are_equal_if_their_tokens_are(pairs):
    assert BytePairTokenizer(pairs.tokens) == pairs
    assert BytePairTokenizer(pairs.tokens[:-1]) != pairs
    assert char_tokenizer("ab") == char_tokenizer("ba") != char_tokenizer("abc")
    assert ByteTokenizer() == ByteTokenizer() != pairs


# --- Texts of tokens ------------------------------------------------------------------------

SEEN = "so foul and fair a day I have not seen. Ñandú, 日本語 🎭🎭 123 456\n" * 3

BYTE_PAIRS = train_byte_pairs([SEEN], 300, threads=1)


@given(text=st.text())
def test_the_characters_of_a_texts_tokens_add_up_to_the_text(text):
    for tokenizer in (ByteTokenizer(), BYTE_PAIRS, char_tokenizer(text)):
        counts = token_characters(tokenizer)
        assert counts.shape == (tokenizer.vocab_size,)
        assert counts[tokenizer.encode(text)].sum() == len(text)


def test_characters_are_counted_where_they_start():
    counts = token_characters(ByteTokenizer())
    assert counts["é".encode()[0]] == 1
    assert counts["é".encode()[1]] == 0
    assert counts.tolist() == [1] * 0x80 + [0] * 0x40 + [1] * 0x40


def test_end_of_text_has_no_characters_and_no_text():
    end = BYTE_PAIRS.end_of_document("\n")[0]
    assert token_characters(BYTE_PAIRS)[end] == 0
    assert token_texts(BYTE_PAIRS)[end] == b""


def test_token_texts_are_what_tokens_decode_to():
    for tokenizer in (ByteTokenizer(), BYTE_PAIRS, char_tokenizer(SEEN)):
        texts = token_texts(tokenizer)
        assert b"".join(texts[id_] for id_ in tokenizer.encode(SEEN)) == SEEN.encode()
        some = range(0, tokenizer.vocab_size - 1, 7)
        assert [texts[id_] for id_ in some] == [tokenizer.to_bytes([id_]) for id_ in some]
