"""Datasets: a text as token files that a model can train on, and the batches drawn from them.

`train.bin` and `val.bin` are raw little-endian token ids, nanoGPT's format. The batch of a step is
a pure function of (tokens, seed, batch size, step), so a resumed training has nothing to restore.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt import playwright
from nanogpt.config import Corpus, Dataset, UserError
from nanogpt.corpus import read_text
from nanogpt.files import atomic_write, read_json, sha256_file, write_json
from nanogpt.tokenizer import CharTokenizer, Tokens, char_tokenizer, load_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenFiles:
    """A dataset on disk: its tokens, its tokenizer, and what meta.json says of it."""

    train: Tokens
    val: Tokens
    tokenizer: CharTokenizer
    meta: Mapping[str, Any]


def prepare(corpus_file: Path, corpus: Corpus, dataset: Dataset, directory: Path) -> None:
    """Write train.bin, val.bin, tokenizer.json and meta.json of a text to `directory`.

    The validation split is the text's tail, cut where nanoGPT cuts it. The vocabulary is that of
    the whole text. Errors: UserError for a text that cannot be read or split.
    """
    text, encoding = read_text(corpus_file, corpus.encoding)
    corpus_sha256 = sha256_file(corpus_file)
    if corpus.sha256 not in (None, corpus_sha256):
        raise UserError(
            f"{corpus_file}: its sha256 is {corpus_sha256}, but config.yaml says {corpus.sha256}; "
            "remove the file to download it again"
        )
    n_train = int(len(text) * (1 - dataset.val_ratio))
    splits = {"train": text[:n_train], "val": text[n_train:]}
    for name, part in splits.items():
        if len(part) < 2:
            raise UserError(
                f"{corpus_file}: {len(text):,} characters are too few to split; the {name} split "
                f"would have {len(part)}"
            )
    tokenizer = char_tokenizer(text)
    tokenizer.save(directory / "tokenizer.json")
    meta: dict[str, Any] = {
        "tokenizer": dataset.tokenizer,
        "vocab_size": tokenizer.vocab_size,
        "dtype": tokenizer.encode("").dtype.name,
        "encoding": encoding,
        "corpus_sha256": corpus_sha256,
        "tokenizer_sha256": sha256_file(directory / "tokenizer.json"),
    }
    for name, part in splits.items():
        tokens = tokenizer.encode(part)
        path = directory / f"{name}.bin"
        with atomic_write(path) as file:
            file.write(tokens.astype(tokens.dtype.newbyteorder("<")).tobytes())
        meta[name] = {
            "n_tokens": len(tokens),
            "n_characters": len(part),
            "n_bytes": len(part.encode("utf-8")),
            "sha256": sha256_file(path),
        }
        logger.info("%s: %s tokens", name, f"{len(tokens):,}")
    if corpus.builtin:
        # Over what evaluation predicts: every character of the split but the first.
        bits = playwright.surprisal(text)[n_train + 1 :].sum()
        meta["source"] = {"val_bits_per_byte": float(bits) / (meta["val"]["n_bytes"] - 1)}
    write_json(directory / "meta.json", meta)


def load(directory: Path) -> TokenFiles:
    """Open a dataset by memory map.

    Errors: UserError for a file that is absent, of another size than meta.json says, or with a
    token id that the vocabulary lacks.
    """
    try:
        meta = read_json(directory / "meta.json")
        dtype = np.dtype(meta["dtype"]).newbyteorder("<")
        n_train, n_val = meta["train"]["n_tokens"], meta["val"]["n_tokens"]
    except FileNotFoundError:
        raise UserError(f"{directory}: no dataset here; meta.json is missing") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{directory}/meta.json: damaged; make the dataset again") from None
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    return TokenFiles(
        train=_open_tokens(directory / "train.bin", dtype, n_train, tokenizer.vocab_size),
        val=_open_tokens(directory / "val.bin", dtype, n_val, tokenizer.vocab_size),
        tokenizer=tokenizer,
        meta=meta,
    )


def _open_tokens(path: Path, dtype: np.dtype[Any], n_tokens: int, vocab_size: int) -> Tokens:
    size = path.stat().st_size if path.is_file() else 0
    if size != n_tokens * dtype.itemsize:
        raise UserError(
            f"{path}: {size:,} bytes where meta.json promises {n_tokens:,} tokens of {dtype}; "
            "make the dataset again"
        )
    tokens: Tokens = np.memmap(path, dtype=dtype, mode="r")
    if int(tokens.max()) >= vocab_size:
        raise UserError(
            f"{path}: token id {tokens.max()} is outside the vocabulary of {vocab_size}; "
            "make the dataset again"
        )
    return tokens


def check_block_size(files: TokenFiles, block_size: int, name: str) -> None:
    """UserError if a split of dataset `name` does not hold one window and the token after it."""
    for split in ("train", "val"):
        n_tokens = files.meta[split]["n_tokens"]
        if n_tokens <= block_size:
            raise UserError(
                f"dataset {name}: the {split} split has {n_tokens:,} tokens, fewer than one window "
                f"of block_size {block_size} and its last target; lower block_size or add text"
            )


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
    index = np.arange(step * n_rows, (step + 1) * n_rows)  # of a window, counted over all epochs
    starts = np.empty(n_rows, dtype=np.int64)
    for epoch in np.unique(index // n_windows).tolist():
        rows = index // n_windows == epoch
        offset, order = _epoch(len(tokens), n_windows, block_size, seed, epoch)
        starts[rows] = offset + block_size * order[index[rows] % n_windows]
    return windows(tokens, starts, block_size)


# Two, because a batch can stand astride two epochs.
@lru_cache(maxsize=2)
def _epoch(
    n_tokens: int, n_windows: int, block_size: int, seed: int, epoch: int
) -> tuple[int, NDArray[np.int64]]:
    random = np.random.default_rng([seed, epoch])
    # Up to where the last target is the last token, so that every token gets its turn.
    offset = int(random.integers(n_tokens - n_windows * block_size))
    return offset, random.permutation(n_windows)
