"""Tokenizers: text to token ids and back, each saved as one JSON file.

Three kinds with one interface: characters, bytes, and byte pairs, GPT-2's or trained here.
Which text a tokenizer is made from is left to prepare.py.
"""

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import read_json, sha256_file, write_json

# Token ids as the token files hold them.
Tokens = NDArray[np.uint16] | NDArray[np.uint32]

# The most unknown characters that an error names.
NAMED_UNKNOWN = 5

END_OF_TEXT = "<|endoftext|>"

# Bytes of a word that training looks at as one: its time grows with the square of a word's length,
# and there are texts without blanks.
LONGEST_TRAINED = 1024

# The merges of GPT-2, as OpenAI publishes them; all else of its vocabulary follows from them.
GPT2_MERGES_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

# Of the tokenizer.json that they make.
GPT2_SHA256 = "d05c6ba73cacc287984e43baae6ea468039bcf9097962e2c3aafcfa34f106ba4"

# GPT-2's rule of what byte pairs may join: a word with the space before it, a number, ...
# https://github.com/openai/gpt-2/blob/master/src/encoder.py, in the syntax of tiktoken's engine.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# The same where there is no LONG_BLANK; without a look ahead, the engine needs half the time.
FAST_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s"
# Three blanks or more but for the last one, or two and more that end a text: one word of that rule.
# Python's \s has four characters more than that of the engine.
_BLANK = r"[^\S\x1c-\x1f]"
LONG_BLANK = re.compile(rf"{_BLANK}{{2,}}(?:\Z|(?={_BLANK}))")
LONG_BLANKS_APART = (
    2000  # characters; where they stand closer, as in code, parts cost more than time
)
# Where that rule always separates, whatever stands further left or right: before the blanks after
# something, and between a letter of CJK and a mark of punctuation, as such text may have no blanks.
SEPARATED = re.compile(
    r"(?<=\S)(?=[ \n])|(?<=[ぁ-ゖァ-ヺ一-龥가-힣])(?=[,.!?，。、！？；：])"  # noqa: RUF001
)
NEAR_END = 4096  # characters, in which there nearly always is such a place

# GPT-2's order of the 256 bytes, and the printable character that stands for each in its files.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTE_ORDER = [*_PRINTABLE, *(byte for byte in range(256) if byte not in _PRINTABLE)]
CHARACTER_OF_BYTE = {
    byte: chr(byte if byte in _PRINTABLE else 0x100 + index - len(_PRINTABLE))
    for index, byte in enumerate(BYTE_ORDER)
}
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


class Tokenizer(Protocol):
    """What all tokenizers can do."""

    @property
    def vocab_size(self) -> int:
        """How many different tokens there are."""

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """How many bytes of text each token stands for, shape (vocab_size,)."""

    def encode(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:
        """The token ids of a text, shape (n_tokens,), in the dtype of the token files.

        Errors: UserError that names the characters which the vocabulary lacks, unless they are
        to be skipped.
        """

    def cut(self, text: str) -> int:
        """Where a text that goes on can be cut, as far right as possible; 0: nowhere.

        The tokens of both sides are those of the whole, whatever follows.
        """

    def end_of_document(self, separator: str) -> Tokens:
        """The tokens that stand after each of several documents."""

    def to_bytes(self, ids: Any) -> bytes:
        """The text of an array or list of token ids, each below vocab_size, as UTF-8."""

    def decode(self, ids: Any) -> str:
        """That text; U+FFFD for what is no UTF-8, such as a character cut in two."""

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON."""


@dataclass(frozen=True)
class CharTokenizer:
    """One token a character; ids follow the order of code points, as in nanoGPT.

    vocabulary: the characters, sorted, each once; a character's index is its id.
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

    def cut(self, text: str) -> int:
        return len(text)

    def end_of_document(self, separator: str) -> Tokens:
        return self.encode(separator)

    def to_bytes(self, ids: Any) -> bytes:
        return self.decode(ids).encode("utf-8")

    def decode(self, ids: Any) -> str:
        _check_ids(ids, self.vocab_size)
        return "".join(map(self.vocabulary.__getitem__, np.asarray(ids).tolist()))

    def save(self, path: str | Path) -> None:
        write_json(path, {"type": "char", "vocabulary": self.vocabulary})

    def _unknown_message(self, text: str) -> str:
        unknown = [c for c in dict.fromkeys(text) if c not in self.vocabulary]
        named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:NAMED_UNKNOWN])
        more = f" and {len(unknown) - NAMED_UNKNOWN} more" if len(unknown) > NAMED_UNKNOWN else ""
        size = plural(self.vocab_size, "character")
        those = "it" if len(unknown) == 1 else "them"
        return f"the tokenizer's vocabulary of {size} lacks {named}{more}; leave {those} out"


@dataclass(frozen=True)
class ByteTokenizer:
    """One token a byte of UTF-8; a byte is its own id."""

    vocab_size: ClassVar[int] = 256

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        return np.ones(256, dtype=np.int64)

    def encode(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:  # noqa: ARG002
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint16)

    def cut(self, text: str) -> int:
        return len(text)

    def end_of_document(self, separator: str) -> Tokens:
        return self.encode(separator)

    def to_bytes(self, ids: Any) -> bytes:
        _check_ids(ids, 256)
        return bytes(np.asarray(ids, dtype=np.uint8))

    def decode(self, ids: Any) -> str:
        return self.to_bytes(ids).decode("utf-8", "replace")

    def save(self, path: str | Path) -> None:
        write_json(path, {"type": "byte"})


@dataclass(frozen=True)
class BytePairTokenizer:
    """Byte pairs, joined as GPT-2 joins them; `<|endoftext|>` has the last id.

    tokens: the bytes of each other token, the 256 bytes among them, in the order in which pairs are
    joined; a token's index is its id.
    """

    tokens: tuple[bytes, ...]

    @property
    def vocab_size(self) -> int:
        return len(self.tokens) + 1

    @cached_property
    def _engine(self) -> Any:
        return self._engine_for(PATTERN)

    @cached_property
    def _fast_engine(self) -> Any:
        return self._engine_for(FAST_PATTERN)

    def _engine_for(self, pattern: str) -> Any:
        import tiktoken

        return tiktoken.Encoding(
            "nanogpt",
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self.tokens)},
            special_tokens={END_OF_TEXT: len(self.tokens)},
        )

    @cached_property
    def token_bytes(self) -> NDArray[np.int64]:
        # The end of a text is predicted, and costs bits, but is no text.
        return np.array([*map(len, self.tokens), 0], dtype=np.int64)

    def encode(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:  # noqa: ARG002
        dtype = token_dtype(self.vocab_size)
        parts, start = [], 0
        few = len(text) // LONG_BLANKS_APART
        blanks = list(itertools.islice(LONG_BLANK.finditer(text), few + 1))
        if len(blanks) > few:
            try:
                return cast(Tokens, _encode(self._engine, text).astype(dtype, copy=False))
            except ValueError:  # its stack is full: there is a blank of a million characters
                blanks = list(LONG_BLANK.finditer(text))
        for blank in blanks:
            parts.append(_encode(self._fast_engine, text[start : blank.start()]))
            parts.append(_encode(self._engine, blank.group()))
            start = blank.end()
        parts.append(_encode(self._fast_engine, text[start:]))
        return cast(Tokens, np.concatenate(parts).astype(dtype, copy=False))

    def cut(self, text: str) -> int:
        return separated_at(text)

    def end_of_document(self, separator: str) -> Tokens:  # noqa: ARG002
        return cast(Tokens, np.array([len(self.tokens)], dtype=token_dtype(self.vocab_size)))

    def to_bytes(self, ids: Any) -> bytes:
        _check_ids(ids, self.vocab_size)
        return b"".join(map(self._bytes_of_id.__getitem__, np.asarray(ids).tolist()))

    @cached_property
    def _bytes_of_id(self) -> tuple[bytes, ...]:
        return (*self.tokens, END_OF_TEXT.encode())

    def decode(self, ids: Any) -> str:
        return self.to_bytes(ids).decode("utf-8", "replace")

    def save(self, path: str | Path) -> None:
        printable = ["".join(map(CHARACTER_OF_BYTE.__getitem__, token)) for token in self.tokens]
        write_json(path, {"type": "bpe", "tokens": printable})


def _encode(engine: Any, text: str) -> NDArray[np.uint32]:
    # encode_ordinary, but without a list of Python's integers.
    ids: NDArray[np.uint32] = engine.encode_to_numpy(text, disallowed_special=())
    return ids


def separated_at(text: str) -> int:
    """The last place of a text where byte pairs never join what stands around it; 0: none."""
    for start in (max(0, len(text) - NEAR_END), 0):
        places = [found.start() for found in SEPARATED.finditer(text, start)]
        if places:
            return places[-1]
    return 0


def char_tokenizer(text: str) -> CharTokenizer:
    """The tokenizer whose vocabulary is every character of `text`."""
    return CharTokenizer("".join(map(chr, np.unique(code_points(text)))))


def gpt2_tokenizer(merges: Path) -> BytePairTokenizer:
    """GPT-2's tokenizer, from its file of merges; UserError for any other file."""
    if sha256_file(merges) != GPT2_MERGES_SHA256:
        raise UserError(f"{merges}: not GPT-2's merges, by its sha256; remove it, and try again")
    # Its first line is a version.
    pairs = [line.split(" ") for line in merges.read_text(encoding="utf-8").split("\n")[1:-1]]
    return BytePairTokenizer((*_single_bytes(), *(_unprintable("".join(pair)) for pair in pairs)))


def train_byte_pairs(pieces: Iterable[str], vocab_size: int, threads: int) -> BytePairTokenizer:
    """Byte pairs that are frequent in a text, vocab_size tokens of them or as many as there are.

    pieces: the text, cut where a byte-pair tokenizer's `cut` says. A word of more than
    LONGEST_TRAINED bytes counts as several, so no pair across their borders does; encoding joins
    across them.
    """
    # Read when the library starts its threads, and never again.
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from tokenizers import Tokenizer as Trained
    from tokenizers import models, pre_tokenizers, trainers

    trained = Trained(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.FixedLength(LONGEST_TRAINED),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=list(CHARACTER_OF_BYTE.values()),
        show_progress=False,
    )
    trained.train_from_iterator(pieces, trainer)
    ids: Mapping[str, int] = trained.get_vocab()
    merged = [token for token in sorted(ids, key=ids.__getitem__) if len(token) > 1]
    return BytePairTokenizer((*_single_bytes(), *map(_unprintable, merged)))


def _single_bytes() -> list[bytes]:
    return [bytes([byte]) for byte in BYTE_ORDER]


def _unprintable(token: str) -> bytes:
    return bytes(map(BYTE_OF_CHARACTER.__getitem__, token))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer that `save` wrote, or GPT-2's from its file of merges, vocab.bpe.

    Errors: UserError for a file that is absent or no tokenizer.
    """
    if Path(path).suffix == ".bpe" and Path(path).exists():
        return gpt2_tokenizer(Path(path))
    try:
        saved = read_json(path)
        if saved["type"] == "char":
            vocabulary = saved["vocabulary"]
            vocabulary.encode("utf-8")  # fails for half a pair of UTF-16, which is no character
            if len(set(vocabulary)) == len(vocabulary):
                return CharTokenizer(vocabulary)
        if saved["type"] == "byte":
            return ByteTokenizer()
        if saved["type"] == "bpe":
            tokens = tuple(map(_unprintable, saved["tokens"]))
            if set(_single_bytes()) <= set(tokens) and len(set(tokens)) == len(tokens):
                return BytePairTokenizer(tokens)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make the dataset or model again") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        pass
    raise UserError(f"{path}: not a tokenizer of ours; make the dataset or model again")


def token_texts(tokenizer: Tokenizer) -> list[bytes]:
    """The UTF-8 of each token, by id; nothing for the end of a text, which is no text."""
    ids = np.flatnonzero(tokenizer.token_bytes)
    joined = tokenizer.to_bytes(ids)
    ends = tokenizer.token_bytes.cumsum().tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def token_characters(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """How many characters each token begins, shape (vocab_size,): 0 for the end of a text.

    Its bytes that continue no character of UTF-8, so that a text's tokens add up to its characters.
    """
    texts = token_texts(tokenizer)
    return np.array([sum(byte & 0xC0 != 0x80 for byte in text) for text in texts], dtype=np.int64)


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The dtype of the token files: uint16 up to 65,535 symbols, else uint32."""
    return np.uint16 if vocab_size <= 0xFFFF else np.uint32


def code_points(text: str) -> NDArray[np.unsignedinteger[Any]]:
    """The code points of a text, shape (n_characters,), in any unsigned dtype."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _check_ids(ids: Any, vocab_size: int) -> None:
    ids = np.asarray(ids)
    assert not len(ids) or 0 <= ids.min() <= ids.max() < vocab_size
