"""Datasets that are missing, damaged or too short."""

import os
from collections.abc import Callable

from tests.mistakes.base import TEXT, Mistake, in_turn, write_files
from tests.mistakes.materials import BOOK, TINY, edit_json, make_dataset, make_shards, train_first


def damaged_dataset(title: str, shown: str, damage: Callable[[], object], message: str) -> Mistake:
    """A training on a dataset that was damaged after it was prepared."""

    def make() -> None:
        make_dataset()
        damage()
        train_first()

    return Mistake(title, shown, make, message)


def damaged_shard(title: str, shown: str, content: bytes | None, message: str) -> Mistake:
    """A training on a dataset with a shard that was removed, or has other bytes now."""

    def make() -> None:
        make_shards()
        shard = BOOK / "train.000.bin"
        if content is None:
            shard.unlink()
        else:
            shard.write_bytes(content * (shard.stat().st_size // 2))
            os.utime(shard, (LATER, LATER))
        train_first()

    remedy = "delete results/datasets/book/meta.json and run the workflow again"
    return Mistake(title, shown, make, f"results/datasets/book/train.000.bin: {message}; {remedy}")


LATER = 4e9  # as the time of a file

DATASETS = [
    Mistake(
        "a missing dataset",
        "training before `prepare`",
        train_first,
        "results/datasets/book: no dataset here (meta.json is missing); prepare the dataset, or "
        "give another directory",
    ),
    damaged_dataset(
        "a truncated meta.json",
        "`meta.json` cut in half",
        lambda: (BOOK / "meta.json").write_text('{"dtype": "ui'),
        "results/datasets/book/meta.json: damaged: not JSON; delete the file and run the workflow "
        "again",
    ),
    damaged_dataset(
        "an unknown dtype of tokens",
        '`"dtype": "uint17"` in `meta.json`',
        lambda: edit_json(BOOK / "meta.json", dtype="uint17"),
        "results/datasets/book/meta.json: damaged: `dtype` should be `uint16` or `uint32`; delete "
        "the file and run the workflow again",
    ),
    damaged_dataset(
        "a dtype that token files don't have",
        '`"dtype": "int16"` in `meta.json`',
        lambda: edit_json(BOOK / "meta.json", dtype="int16"),
        "results/datasets/book/meta.json: damaged: `dtype` should be `uint16` or `uint32`; delete "
        "the file and run the workflow again",
    ),
    damaged_dataset(
        "a string for a number of tokens",
        '`"n_tokens": "5"` in `meta.json`',
        lambda: edit_json(BOOK / "meta.json", val={"n_tokens": "5"}),
        "results/datasets/book/meta.json: damaged: `val.n_tokens` should be a whole number; "
        "delete the file and run the workflow again",
    ),
    damaged_dataset(
        "null for a number of tokens",
        '`"n_tokens": null` in `meta.json`',
        lambda: edit_json(BOOK / "meta.json", train={"n_tokens": None}),
        "results/datasets/book/meta.json: damaged: `train.n_tokens` should be a whole number; "
        "delete the file and run the workflow again",
    ),
    damaged_dataset(
        "a split without tokens",
        '`"n_tokens": 0` and `val.bin` with 0 bytes',
        in_turn(
            lambda: edit_json(BOOK / "meta.json", val={"n_tokens": 0}),
            lambda: (BOOK / "val.bin").write_bytes(b""),
        ),
        "results/datasets/book/meta.json: damaged: `val.n_tokens` should be greater than 0; "
        "delete the file and run the workflow again",
    ),
    damaged_dataset(
        "a directory instead of meta.json",
        "`meta.json/`",
        in_turn((BOOK / "meta.json").unlink, (BOOK / "meta.json").mkdir),
        "results/datasets/book/meta.json: can't be read: Is a directory; delete the file and run "
        "the workflow again",
    ),
    Mistake(
        "a file at the path of a dataset",
        "`results/datasets/book`, a file",
        in_turn(lambda: write_files({str(BOOK): TEXT}), train_first),
        "results/datasets/book/meta.json: can't be read: Not a directory; delete the file and run "
        "the workflow again",
    ),
    damaged_dataset(
        "a truncated token file",
        "`train.bin` two bytes shorter",
        lambda: os.truncate(BOOK / "train.bin", 400),
        "results/datasets/book/train.bin: has 400 bytes, but should have 532 (266 tokens as "
        "uint16, according to meta.json); delete the file and run the workflow again",
    ),
    damaged_dataset(
        "a missing token file",
        "`val.bin` removed",
        lambda: (BOOK / "val.bin").unlink(),
        "results/datasets/book/val.bin: no such file; run the workflow again",
    ),
    damaged_dataset(
        "a token id out of range",
        "`val.bin` of another dataset of the same size",
        lambda: (BOOK / "val.bin").write_bytes(b"\xff" * (BOOK / "val.bin").stat().st_size),
        "results/datasets/book/val.bin: token id 65535 is outside the vocabulary of 24 tokens; "
        "delete the file and run the workflow again",
    ),
    damaged_shard("a missing shard", "`train.000.bin` removed", None, "no such file"),
    damaged_shard(
        "an edited shard",
        "other tokens in `train.000.bin`",
        b"\0\0",
        "edited after meta.json was written",
    ),
    damaged_dataset(
        "a dataset without a tokenizer",
        "`tokenizer.json` removed",
        lambda: (BOOK / "tokenizer.json").unlink(),
        "results/datasets/book/tokenizer.json: no such file; run the workflow again",
    ),
    Mistake(
        "a block_size longer than a split",
        "`model: {block_size: 64}` for a short text",
        in_turn(make_dataset, lambda: train_first(TINY.model_copy(update={"block_size": 64}))),
        "dataset `book`: the val split has 30 tokens, but block_size 64 needs at least 65; "
        "lower block_size or add text",
    ),
]
