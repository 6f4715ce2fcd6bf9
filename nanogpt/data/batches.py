"""Datasets: open token files, and draw batches from them.

`train.bin` and `val.bin` are raw little-endian token ids, nanoGPT's format, as preparing.py writes
them. The batch of a step is a pure function of (tokens, seed, batch size, step), so a resumed
training has nothing to restore.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.datasets import DatasetMeta
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import Tokenizer, Tokens, token_texts
from nanogpt.errors import UserError, plural

BLOCK = 1 << 22  # bytes of a token file that are checked at once
COUNTED = 1 << 24  # tokens among which the most frequent one is looked for


@dataclass(frozen=True)
class TokenFiles:
    """A dataset on disk: its tokens, its tokenizer, and its meta.json."""

    train: Tokens
    val: Tokens
    tokenizer: Tokenizer
    meta: DatasetMeta


def load(directory: Path) -> TokenFiles:
    """Open a dataset by memory map.

    Errors: UserError for a file that is absent, damaged or of another size than meta.json says, and
    for a token id that the vocabulary lacks.
    """
    meta_file = directory / "meta.json"
    if not meta_file.exists() and not directory.is_file():
        raise UserError(
            f"{directory}: no dataset here; meta.json is missing: make the dataset, or name the "
            "directory of one"
        )
    meta = read_record(meta_file, DatasetMeta, "make the dataset again")
    dtype = np.dtype(meta.dtype).newbyteorder("<")
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    n_symbols = tokenizer.vocab_size
    return TokenFiles(
        train=_open_tokens(directory / "train.bin", dtype, meta.train.n_tokens, n_symbols),
        val=_open_tokens(directory / "val.bin", dtype, meta.val.n_tokens, n_symbols),
        tokenizer=tokenizer,
        meta=meta,
    )


def _open_tokens(path: Path, dtype: np.dtype[Any], n_tokens: int, vocab_size: int) -> Tokens:
    if not path.is_file():
        raise UserError(f"{path}: no such file; make the dataset again")
    size = path.stat().st_size
    if size != n_tokens * dtype.itemsize:
        raise UserError(
            f"{path}: {plural(size, 'byte')} where meta.json promises "
            f"{plural(n_tokens, 'token')} of {dtype}; make the dataset again"
        )
    largest = _largest_id(path, dtype)
    if largest >= vocab_size:
        raise UserError(
            f"{path}: token id {largest} is outside the vocabulary of {vocab_size}; "
            "make the dataset again"
        )
    tokens: Tokens = np.memmap(path, dtype=dtype, mode="r")
    return tokens


def _largest_id(path: Path, dtype: np.dtype[Any]) -> int:
    """Read in blocks: through the map, all of a large file would be in memory."""
    with open(path, "rb") as file:
        return max(
            int(np.frombuffer(block, dtype).max()) for block in iter(lambda: file.read(BLOCK), b"")
        )


def check_block_size(files: TokenFiles, block_size: int, name: str) -> None:
    """UserError if a split of dataset `name` does not hold one window and the token after it."""
    for split, n_tokens in (
        ("train", files.meta.train.n_tokens),
        ("val", files.meta.val.n_tokens),
    ):
        if n_tokens <= block_size:
            raise UserError(
                f"dataset {name}: the {split} split has {plural(n_tokens, 'token')}, fewer than "
                f"one window of block_size {block_size} and its last target; lower block_size or "
                "add text"
            )


def start_tokens(files: TokenFiles) -> tuple[int, ...]:
    """The tokens that a text of the training split begins after, for samples without a prompt.

    What separates documents; of a single document, the most frequent token that ends a line, or
    the most frequent one where nothing does.
    """
    if files.meta.separator:
        return files.meta.separator
    counts = np.bincount(files.train[:COUNTED], minlength=files.tokenizer.vocab_size)
    texts = token_texts(files.tokenizer)
    ends_line = [text.endswith((b"\n", b"\r")) for text in texts]
    ending = counts[: len(texts)] * ends_line
    return (int((ending if ending.any() else counts).argmax()),)


def windows(tokens: Tokens, starts: NDArray[np.int64], block_size: int) -> NDArray[np.int64]:
    """The windows that begin at `starts`, each with the token after it: (B, block_size + 1)."""
    rows: NDArray[np.int64] = tokens[starts[:, None] + np.arange(block_size + 1)].astype(np.int64)
    return rows


def batch(tokens: Tokens, block_size: int, n_rows: int, seed: int, step: int) -> NDArray[np.int64]:
    """The windows of one optimizer step, (n_rows, block_size + 1): inputs and, one on, targets.

    An epoch cuts the tokens into windows from a random offset and takes each once, in random
    order. What fills no window is left to another epoch's offset.
    """
    n_windows = max(1, (len(tokens) - block_size) // block_size)
    first, last = step * n_rows, (step + 1) * n_rows  # windows, counted over all epochs
    starts = []
    for epoch in range(first // n_windows, (last - 1) // n_windows + 1):
        offset, order = _epoch(len(tokens), n_windows, block_size, seed, epoch)
        before = epoch * n_windows
        starts.append(offset + block_size * order[max(0, first - before) : last - before])
    return windows(tokens, np.concatenate(starts), block_size)


# Two, because a batch can stand astride two epochs.
@lru_cache(maxsize=2)
def _epoch(
    n_tokens: int, n_windows: int, block_size: int, seed: int, epoch: int
) -> tuple[int, NDArray[np.int64]]:
    random = np.random.default_rng([seed, epoch])
    # Up to where the last target is the last token, so that every token gets its turn.
    offset = int(random.integers(n_tokens - n_windows * block_size))
    return offset, random.permutation(n_windows)
