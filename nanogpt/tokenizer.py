"""Tokenizers: text to token ids and back, saved as one JSON file.

Which text belongs to the vocabulary is decided by whoever builds the tokenizer (dataset.py).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from nanogpt.config import UserError
from nanogpt.files import read_json, write_json

# Token ids as the token files hold them.
Tokens = NDArray[np.uint16] | NDArray[np.uint32]

# The most unknown characters that an error names.
NAMED_UNKNOWN = 5


@dataclass(frozen=True)
class CharTokenizer:
    """One token a character; ids follow the order of code points, as in nanoGPT.

    vocabulary: the characters, sorted, each once; a character's index is its id.
    """

    vocabulary: str

    @property
    def vocab_size(self) -> int:
        """How many different tokens there are."""
        return len(self.vocabulary)

    @cached_property
    def _id_of_code_point(self) -> NDArray[np.int32]:
        code_points = _code_points(self.vocabulary)
        table = np.full(0x110000, -1, dtype=np.int32)
        table[code_points] = np.arange(len(code_points))
        return table

    @cached_property
    def token_bytes(self) -> NDArray[np.int64]:
        """Length of each token in bytes of UTF-8, shape (vocab_size,)."""
        return np.array([len(c.encode("utf-8")) for c in self.vocabulary], dtype=np.int64)

    def encode(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:
        """The token ids of a text, shape (n_tokens,), in the dtype of the token files.

        Errors: UserError that names the characters which the vocabulary lacks, unless they are
        to be skipped.
        """
        ids = self._id_of_code_point[_code_points(text)]
        if (ids < 0).any():
            if unknown == "error":
                raise UserError(self._unknown_message(text))
            ids = ids[ids >= 0]
        return cast(Tokens, ids.astype(token_dtype(self.vocab_size)))

    def decode(self, ids: Any) -> str:
        """The text of an array or list of token ids, each below vocab_size."""
        ids = np.asarray(ids)
        assert not len(ids) or 0 <= ids.min() <= ids.max() < self.vocab_size
        return "".join(map(self.vocabulary.__getitem__, ids.tolist()))

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON."""
        write_json(path, {"type": "char", "vocabulary": self.vocabulary})

    def _unknown_message(self, text: str) -> str:
        unknown = [c for c in dict.fromkeys(text) if c not in self.vocabulary]
        named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:NAMED_UNKNOWN])
        more = f" and {len(unknown) - NAMED_UNKNOWN} more" if len(unknown) > NAMED_UNKNOWN else ""
        return (
            f"the vocabulary of {self.vocab_size} characters lacks {named}{more}; "
            "leave them out, or say `unknown: skip`"
        )


def char_tokenizer(text: str) -> CharTokenizer:
    """The tokenizer whose vocabulary is every character of `text`."""
    return CharTokenizer("".join(map(chr, np.unique(_code_points(text)))))


def load_tokenizer(path: str | Path) -> CharTokenizer:
    """Read a tokenizer that `save` wrote.

    Errors: UserError for a file that is absent or no tokenizer.
    """
    try:
        saved = read_json(path)
        if saved["type"] == "char" and isinstance(saved["vocabulary"], str):
            return CharTokenizer(saved["vocabulary"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make the dataset or model again") from None
    except (ValueError, KeyError, TypeError, OSError):
        pass
    raise UserError(f"{path}: not a tokenizer of ours; make the dataset or model again")


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The dtype of the token files: uint16 up to 65,535 symbols, else uint32."""
    return np.uint16 if vocab_size <= 0xFFFF else np.uint32


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
