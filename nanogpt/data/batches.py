"""Datasets: open token files and draw batches from them.

`train.bin` and `val.bin`, written by preparing.py, are raw little-endian token ids in nanoGPT's
format; see shards.py for large datasets. The batch of a step is a pure function of (tokens, seed,
batch size, step), so a resumed training has no data-loader state to restore.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.datasets import DatasetMeta, SplitMeta
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.shards import ShardedTokens, SplitTokens, check_ids, check_size
from nanogpt.data.tokenizers import Tokenizer, Tokens, token_texts
from nanogpt.errors import REMAKE, RUN_AGAIN, UserError, plural
from nanogpt.project import token_file

BLOCK = 1 << 22  # bytes of a token file checked at a time
COUNTED = 1 << 24  # tokens counted to find the most frequent one
ALL_ROWS = slice(None)


@dataclass(frozen=True)
class TokenFiles:
    """A dataset on disk: its tokens, tokenizer and meta.json."""

    train: SplitTokens
    val: SplitTokens
    tokenizer: Tokenizer
    meta: DatasetMeta


def load(directory: Path) -> TokenFiles:
    """Open a dataset, with its token files memory-mapped.

    Errors: UserError for a file that's missing, damaged or not the size given in meta.json, for a
    token id outside the vocabulary (those of a sharded dataset are checked when read), and for a
    shard that was edited.
    """
    meta_file = directory / "meta.json"
    if not meta_file.exists() and not directory.is_file():
        raise UserError(
            f"{directory}: no dataset here (meta.json is missing); prepare the dataset, or give "
            "another directory"
        )
    meta = read_record(meta_file, DatasetMeta)
    dtype = np.dtype(meta.dtype).newbyteorder("<")
    tokenizer = load_tokenizer(directory / "tokenizer.json")

    def open_split(split: str, of_split: SplitMeta) -> SplitTokens:
        if of_split.shards:
            tokens = ShardedTokens(directory, split, of_split, dtype, tokenizer.vocab_size)
            tokens.check_edits(meta_file, of_split)
            return tokens
        return _open_tokens(
            directory / token_file(split), dtype, of_split.n_tokens, tokenizer.vocab_size
        )

    train, val = open_split("train", meta.train), open_split("val", meta.val)
    return TokenFiles(train, val, tokenizer, meta)


def _open_tokens(path: Path, dtype: np.dtype[Any], n_tokens: int, vocab_size: int) -> Tokens:
    check_size(path, n_tokens, dtype, REMAKE if path.is_file() else RUN_AGAIN)
    check_ids(path, _largest_id(path, dtype), vocab_size, REMAKE)
    tokens: Tokens = np.memmap(path, dtype=dtype, mode="r")
    return tokens


def _largest_id(path: Path, dtype: np.dtype[Any]) -> int:
    """The largest token id of a file.

    Read in blocks, because a scan of the memory map would fill memory with a large file's pages.
    """
    with open(path, "rb") as file:
        return max(
            int(np.frombuffer(block, dtype).max()) for block in iter(lambda: file.read(BLOCK), b"")
        )


def check_block_size(files: TokenFiles, block_size: int, name: str) -> None:
    """Raise UserError if a split of dataset `name` is shorter than a window and its last target."""
    for split, n_tokens in (
        ("train", files.meta.train.n_tokens),
        ("val", files.meta.val.n_tokens),
    ):
        if n_tokens <= block_size:
            raise UserError(
                f"dataset `{name}`: the {split} split has {plural(n_tokens, 'token')}, but "
                f"block_size {block_size} needs at least {block_size + 1:,}; lower block_size or "
                "add text"
            )


def start_tokens(files: TokenFiles) -> tuple[int, ...]:
    """The tokens that start a sample without a prompt: those before a text of the training split.

    They are the separator of documents. For a single document, it's the most frequent token that
    ends a line or, if no token does, the most frequent token.
    """
    if files.meta.separator:
        return files.meta.separator
    counts = np.bincount(files.train[:COUNTED], minlength=files.tokenizer.vocab_size)
    texts = token_texts(files.tokenizer)
    ends_line = [text.endswith((b"\n", b"\r")) for text in texts]
    ending = counts[: len(texts)] * ends_line
    return (int((ending if ending.any() else counts).argmax()),)


def windows(tokens: SplitTokens, starts: NDArray[np.int64], block_size: int) -> NDArray[np.int64]:
    """The windows that start at `starts`, each with the token after it: (B, block_size + 1)."""
    if isinstance(tokens, ShardedTokens):
        rows = np.empty((len(starts), block_size + 1), np.int64)
        for row, start in zip(rows, starts.tolist(), strict=True):
            row[:] = tokens[start : start + block_size + 1]
        return rows
    return cast(
        NDArray[np.int64], tokens[starts[:, None] + np.arange(block_size + 1)].astype(np.int64)
    )


def batch(
    tokens: SplitTokens,
    block_size: int,
    n_rows: int,
    seed: int,
    step: int,
    share: slice = ALL_ROWS,
) -> NDArray[np.int64]:
    """The windows of one optimizer step, (n_rows, block_size + 1): inputs and shifted targets.

    share: the rows to read.

    Each epoch cuts the tokens into windows from a random offset and uses each window once, in
    random order. Tokens at the ends that don't fill a window are left to other epochs' offsets.
    """
    n_tokens = len(tokens)
    n_windows = max(1, (n_tokens - block_size) // block_size)
    first, last = step * n_rows, (step + 1) * n_rows  # window numbers over all epochs
    starts = []
    for epoch in range(first // n_windows, (last - 1) // n_windows + 1):
        offset, order = _epoch(n_tokens, n_windows, block_size, seed, epoch)
        before = epoch * n_windows
        starts.append(offset + block_size * order[max(0, first - before) : last - before])
    return windows(tokens, np.concatenate(starts)[share], block_size)


# A batch can span two epochs.
@lru_cache(maxsize=2)
def _epoch(
    n_tokens: int, n_windows: int, block_size: int, seed: int, epoch: int
) -> tuple[int, NDArray[np.int64]]:
    random = np.random.default_rng([seed, epoch])
    # The largest offset makes the last token a target, so every token is used in some epoch.
    offset = int(random.integers(n_tokens - n_windows * block_size))
    return offset, random.permutation(n_windows)
