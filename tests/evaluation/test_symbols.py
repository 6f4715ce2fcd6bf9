"""A token's kind follows from its text."""

import numpy as np
import pytest

from nanogpt.data.tokenizers import ByteTokenizer
from nanogpt.evaluation.symbols import KINDS, content_suffix, describe_symbols
from tests.evaluation.examples import BYTE_PAIRS

TEXTS_OF_KINDS = {
    "letters": ["a", " the", "Ñandú", " 日本", "हिन्दी", " e"],  # Hindi has marks
    "digits": ["7", " 2024", "½", "٣"],
    "punctuation": [".", " --", "'", "+=", " €", "🎭"],
    "blank": [" ", "\n", "   ", "\t\n", "\u3000", "\r"],
    "end_of_text": [""],
    "other": ["'s", "a1", "the ", "\n\nThe", "  a", "a b", ".\n", "\0", "\u200d"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokens_kind_follows_from_its_text(kind):
    assert {content_suffix(text.encode()) for text in TEXTS_OF_KINDS[kind]} == {kind}


@pytest.mark.parametrize("text", [b"\xc3", b"\xa9", b" \xe6\x97", b"a\xff", "é".encode() + b"\xc3"])
def test_partial_characters_are_of_kind_other(text):
    assert content_suffix(text) == "other"


def test_bytes_beyond_ascii_are_of_kind_other():
    names = [KINDS[kind] for kind in describe_symbols(ByteTokenizer()).kinds]
    assert set(names[0x80:]) == {"other"}
    for byte, kind in (
        (b"a", "letters"),
        (b"0", "digits"),
        (b"\n", "blank"),
        (b"!", "punctuation"),
    ):
        assert names[byte[0]] == kind


def test_only_the_last_token_of_byte_pairs_is_end_of_text():
    symbols = describe_symbols(BYTE_PAIRS)
    assert np.flatnonzero(symbols.kinds == KINDS.index("end_of_text")).tolist() == [
        BYTE_PAIRS.vocab_size - 1
    ]
    assert symbols.counts[-1].tolist() == [1, 0, 0]
