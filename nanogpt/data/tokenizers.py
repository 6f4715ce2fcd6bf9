"""The interface of all tokenizers, and the two simple ones: characters and bytes.

byte_pairs.py has the third. Each is saved as one JSON file.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import write_json

# Token ids in the dtype of the token files.
Tokens = NDArray[np.uint16] | NDArray[np.uint32]

# The most unknown characters that an error lists.
NAMED_UNKNOWN = 5


class Tokenizer(Protocol):
    """The interface of all tokenizers."""

    @property
    def vocab_size(self) -> int:
        """The number of different tokens."""

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """The length of each token's text in bytes, shape (vocab_size,)."""

    def encode(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:
        """The token ids of a text, shape (n_tokens,), in the dtype of the token files.

        Errors: UserError that lists the characters missing from the vocabulary, unless `unknown`
        is "skip".
        """

    def encode_prompt(self, text: str, unknown: Literal["error", "skip"]) -> Tokens:
        """The token ids of a prompt, in which `<|endoftext|>` is the token that ends a document.

        Characters and bytes have no such token, so it's ordinary text for them.
        """

    def cut(self, text: str) -> int:
        """The last position where an unfinished text can be cut; 0 if there isn't one.

        Encoding both sides separately gives the same tokens as the whole, whatever follows.
        """

    def end_of_document(self, separator: str) -> Tokens:
        """The tokens after each document, if there are several."""

    def to_bytes(self, ids: Any) -> bytes:
        """The UTF-8 bytes of an array or list of token ids, each below vocab_size."""

    def decode(self, ids: Any) -> str:
        """The text of token ids, with U+FFFD for invalid UTF-8, such as half a character."""

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON."""


@dataclass(frozen=True)
class CharTokenizer:
    """One token per character, with ids in the order of code points, as in nanoGPT.

    vocabulary: the characters, sorted, each once. A character's index is its id.
    """

    vocabulary: str

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def _id_of_code_point(self) -> NDArray[np.int32]:
        characters = code_points(self.vocabulary)
        table = np.full(0x110000, -1, dtype=np.int32)
        table[characters] = np.arange(len(characters))
        return table

    @cached_property
    def token_bytes(self) -> NDArray[np.int64]:
        return np.array([len(c.encode("utf-8")) for c in self.vocabulary], dtype=np.int64)

    def encode(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:
        ids = self._id_of_code_point[code_points(text)]
        if len(ids) and ids.min() < 0:
            if unknown == "error":
                raise UserError(self._unknown_message(text))
            ids = ids[ids >= 0]
        return cast(Tokens, ids.astype(token_dtype(self.vocab_size)))

    encode_prompt = encode

    def cut(self, text: str) -> int:
        return len(text)

    def end_of_document(self, separator: str) -> Tokens:
        return self.encode(separator)

    def to_bytes(self, ids: Any) -> bytes:
        return self.decode(ids).encode("utf-8")

    def decode(self, ids: Any) -> str:
        check_ids(ids, self.vocab_size)
        return "".join(map(self.vocabulary.__getitem__, np.asarray(ids).tolist()))

    def save(self, path: str | Path) -> None:
        write_json(path, {"type": "char", "vocabulary": self.vocabulary})

    def _unknown_message(self, text: str) -> str:
        unknown = [c for c in dict.fromkeys(text) if c not in self.vocabulary]
        listed = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:NAMED_UNKNOWN])
        more = f" and {len(unknown) - NAMED_UNKNOWN} more" if len(unknown) > NAMED_UNKNOWN else ""
        size = plural(self.vocab_size, "character")
        those = "it" if len(unknown) == 1 else "them"
        return f"the tokenizer's vocabulary of {size} lacks {listed}{more}; leave {those} out"


@dataclass(frozen=True)
class ByteTokenizer:
    """One token per byte of UTF-8, with the byte as its id."""

    vocab_size: ClassVar[int] = 256

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        return np.ones(256, dtype=np.int64)

    def encode(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:  # noqa: ARG002
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint16)

    encode_prompt = encode

    def cut(self, text: str) -> int:
        return len(text)

    def end_of_document(self, separator: str) -> Tokens:
        return self.encode(separator)

    def to_bytes(self, ids: Any) -> bytes:
        check_ids(ids, 256)
        return bytes(np.asarray(ids, dtype=np.uint8))

    def decode(self, ids: Any) -> str:
        return self.to_bytes(ids).decode("utf-8", "replace")

    def save(self, path: str | Path) -> None:
        write_json(path, {"type": "byte"})


def char_tokenizer(text: str) -> CharTokenizer:
    """The tokenizer whose vocabulary is every character of `text`."""
    return CharTokenizer("".join(map(chr, np.unique(code_points(text)))))


def token_texts(tokenizer: Tokenizer) -> list[bytes]:
    """The UTF-8 bytes of each token by id, without `<|endoftext|>`, which has no text."""
    ids = np.flatnonzero(tokenizer.token_bytes)
    joined = tokenizer.to_bytes(ids)
    ends = tokenizer.token_bytes.cumsum().tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def token_characters(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """How many characters start in each token, shape (vocab_size,); 0 for `<|endoftext|>`.

    These are a token's bytes that aren't UTF-8 continuation bytes, so the sum over a text's tokens
    is its number of characters.
    """
    texts = token_texts(tokenizer)
    return np.array([sum(byte & 0xC0 != 0x80 for byte in text) for text in texts], dtype=np.int64)


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The dtype of the token files: uint16 for up to 65,535 tokens, otherwise uint32."""
    return np.uint16 if vocab_size <= 0xFFFF else np.uint32


def code_points(text: str) -> NDArray[np.unsignedinteger[Any]]:
    """The code points of a text, shape (n_characters,), in any unsigned dtype."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def check_ids(ids: Any, vocab_size: int) -> None:
    """Assert that all ids are in the vocabulary; only a bug can cause others."""
    ids = np.asarray(ids)
    assert not len(ids) or 0 <= ids.min() <= ids.max() < vocab_size
