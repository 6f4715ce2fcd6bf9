"""What the tokens of a vocabulary are in text: bytes, characters, kinds."""

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.tokenizers import Tokenizer, token_characters, token_texts

KINDS = ("letters", "digits", "punctuation", "blank", "end_of_text", "other")

# By the first letter of a Unicode category. A mark belongs to a letter, as vowels of Hindi do.
KIND_OF_CATEGORY = {
    "L": "letters",
    "M": "letters",
    "N": "digits",
    "P": "punctuation",
    "S": "punctuation",
}


@dataclass(frozen=True)
class Symbols:
    """What each token of a vocabulary is in text.

    counts: 1, its bytes and its characters, (V, 3). kinds: the index of its kind in KINDS, (V,).
    """

    counts: NDArray[np.int64]
    kinds: NDArray[np.int64]


def describe_symbols(tokenizer: Tokenizer) -> Symbols:
    """What the tokens of a tokenizer's vocabulary are in text."""
    n_bytes = tokenizer.token_bytes
    return Symbols(
        np.stack([np.ones_like(n_bytes), n_bytes, token_characters(tokenizer)], axis=1),
        np.array([KINDS.index(content_suffix(text)) for text in token_texts(tokenizer)]),
    )


def content_suffix(text: bytes) -> str:
    """The one of KINDS that a token's text is: a blank before a word is a part of the word."""
    if not text:
        return "end_of_text"
    try:
        characters = text.decode("utf-8")
    except UnicodeDecodeError:
        return "other"
    if characters.isspace():
        return "blank"
    categories = {unicodedata.category(c)[0] for c in characters.removeprefix(" ")}
    kinds = {KIND_OF_CATEGORY.get(category, "other") for category in categories}
    return kinds.pop() if len(kinds) == 1 else "other"
