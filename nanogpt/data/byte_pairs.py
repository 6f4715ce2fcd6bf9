"""Byte-pair tokenizers: GPT-2's, and those trained on a dataset."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from nanogpt.data.tokenizers import Tokens, check_ids, token_dtype
from nanogpt.errors import UserError
from nanogpt.files.atomic import sha256_file, write_json
from nanogpt.project import set_tokenizer_threads

END_OF_TEXT = "<|endoftext|>"

# Training splits longer words, in bytes: its time grows with the square of a word's length, and
# some texts have no spaces.
LONGEST_TRAINED = 1024

# GPT-2's merges, as published by OpenAI. The rest of its vocabulary follows from them.
GPT2_MERGES_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

# The sha256 of the tokenizer.json made from those merges.
GPT2_SHA256 = "d05c6ba73cacc287984e43baae6ea468039bcf9097962e2c3aafcfa34f106ba4"

# The spans within which GPT-2 joins byte pairs: a word with the space before it, a number, ...
# From https://github.com/openai/gpt-2/blob/master/src/encoder.py, in the syntax of tiktoken's
# regex engine.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# Equivalent for text without a LONG_BLANK, and twice as fast because it has no lookahead.
FAST_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s"
# A run of three or more blanks without its last one, or two or more at the end of a text: PATTERN
# makes one word of it. Python's \s matches four characters that the engine's doesn't.
_BLANK = r"[^\S\x1c-\x1f]"
LONG_BLANK = re.compile(rf"{_BLANK}{{2,}}(?:\Z|(?={_BLANK}))")
# Characters per long blank. If they're more frequent, as in code, encoding in parts is slower.
LONG_BLANKS_APART = 2000
# Where PATTERN always separates, whatever the text further left or right: before blanks that follow
# something, and between a CJK letter and punctuation, because such text may have no blanks.
SEPARATED = re.compile(
    r"(?<=\S)(?=[ \n])|(?<=[ぁ-ゖァ-ヺ一-龥가-힣])(?=[,.!?，。、！？；：])"  # noqa: RUF001
)
NEAR_END = 4096  # characters, nearly always enough to contain such a place

# GPT-2's order of the 256 bytes, and the printable character that represents each in its files.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTE_ORDER = [*_PRINTABLE, *(byte for byte in range(256) if byte not in _PRINTABLE)]
CHARACTER_OF_BYTE = {
    byte: chr(byte if byte in _PRINTABLE else 0x100 + index - len(_PRINTABLE))
    for index, byte in enumerate(BYTE_ORDER)
}
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


@dataclass(frozen=True)
class BytePairTokenizer:
    """A byte-pair tokenizer that works like GPT-2's; `<|endoftext|>` has the last id.

    tokens: the bytes of each other token, including the 256 single bytes, in merge order. A
    token's index is its id.
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
        # `<|endoftext|>` is predicted and adds to the loss, but it has no bytes of text.
        return np.array([*map(len, self.tokens), 0], dtype=np.int64)

    def encode(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:  # noqa: ARG002
        dtype = token_dtype(self.vocab_size)
        parts, start = [], 0
        few = len(text) // LONG_BLANKS_APART
        blanks = list(itertools.islice(LONG_BLANK.finditer(text), few + 1))
        if len(blanks) > few:
            try:
                return cast(Tokens, _encode(self._engine, text).astype(dtype, copy=False))
            except ValueError:  # the engine's stack overflowed on a blank of a million characters
                blanks = list(LONG_BLANK.finditer(text))
        for blank in blanks:
            parts.append(_encode(self._fast_engine, text[start : blank.start()]))
            parts.append(_encode(self._engine, blank.group()))
            start = blank.end()
        parts.append(_encode(self._fast_engine, text[start:]))
        return cast(Tokens, np.concatenate(parts).astype(dtype, copy=False))

    def encode_prompt(self, text: str, unknown: Literal["error", "skip"] = "error") -> Tokens:
        first, *others = (self.encode(part, unknown) for part in text.split(END_OF_TEXT))
        end = self.end_of_document("")
        parts = [first, *itertools.chain.from_iterable((end, part) for part in others)]
        return cast(Tokens, np.concatenate(parts))

    def cut(self, text: str) -> int:
        return separated_at(text)

    def end_of_document(self, separator: str) -> Tokens:  # noqa: ARG002
        return cast(Tokens, np.array([len(self.tokens)], dtype=token_dtype(self.vocab_size)))

    def to_bytes(self, ids: Any) -> bytes:
        check_ids(ids, self.vocab_size)
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
    # Like encode_ordinary, but without building a list of Python integers.
    ids: NDArray[np.uint32] = engine.encode_to_numpy(text, disallowed_special=())
    return ids


def separated_at(text: str) -> int:
    """The last position in a text that byte pairs never join across; 0 if there isn't one."""
    for start in (max(0, len(text) - NEAR_END), 0):
        places = [found.start() for found in SEPARATED.finditer(text, start)]
        if places:
            return places[-1]
    return 0


def gpt2_tokenizer(merges: Path) -> BytePairTokenizer:
    """Load GPT-2's tokenizer from its file of merges; UserError for any other file."""
    if sha256_file(merges) != GPT2_MERGES_SHA256:
        raise UserError(
            f"{merges}: not GPT-2's merges (its sha256 differs); delete it and try again"
        )
    # The first line is a version number.
    pairs = [line.split(" ") for line in merges.read_text(encoding="utf-8").split("\n")[1:-1]]
    return BytePairTokenizer((*single_bytes(), *(from_printable("".join(pair)) for pair in pairs)))


def train_byte_pairs(pieces: Iterable[str], vocab_size: int, threads: int) -> BytePairTokenizer:
    """Train a tokenizer of the most frequent byte pairs, with up to vocab_size tokens.

    It has fewer tokens if the text runs out of pairs. pieces: the text, cut at positions from
    `separated_at`. A word of more than LONGEST_TRAINED bytes is counted as several words, without
    the pairs across their borders. Encoding has no such limit.
    """
    set_tokenizer_threads(threads)
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
    return BytePairTokenizer((*single_bytes(), *map(from_printable, merged)))


def single_bytes() -> list[bytes]:
    """The 256 single bytes in GPT-2's order: the first tokens of every vocabulary."""
    return [bytes([byte]) for byte in BYTE_ORDER]


def from_printable(token: str) -> bytes:
    """Convert a token from its spelling in GPT-2's files and tokenizer.json to bytes."""
    return bytes(map(BYTE_OF_CHARACTER.__getitem__, token))
