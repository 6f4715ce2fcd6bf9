"""The text of each token in a vocabulary: its bytes, characters and kind."""

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.tokenizers import Tokenizer, token_characters, token_texts

KINDS = ("letters", "digits", "punctuation", "blank", "end_of_text", "other")

# By the first letter of a Unicode category. Marks count as letters, such as the vowels of Hindi.
KIND_OF_CATEGORY = {
    "L": "letters",
    "M": "letters",
    "N": "digits",
    "P": "punctuation",
    "S": "punctuation",
}


@dataclass(frozen=True)
class Symbols:
    """The size and kind of each token's text.

    counts: 1, the number of bytes and the number of characters, (V, 3). kinds: index in KINDS,
    (V,).
    """

    counts: NDArray[np.int64]
    kinds: NDArray[np.int64]


def describe_symbols(tokenizer: Tokenizer) -> Symbols:
    """Describe the text of each token in a tokenizer's vocabulary."""
    n_bytes = tokenizer.token_bytes
    return Symbols(
        np.stack([np.ones_like(n_bytes), n_bytes, token_characters(tokenizer)], axis=1),
        np.array([KINDS.index(content_suffix(text)) for text in token_texts(tokenizer)]),
    )


def content_suffix(text: bytes) -> str:
    """Return which of KINDS a token's text is. A blank before a word counts as part of the word."""
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
