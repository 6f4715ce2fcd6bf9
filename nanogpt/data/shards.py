"""Token files: one per split, or numbered shards that are read as one.

A split is `train.bin` or, in a sharded dataset, `train.000.bin`, `train.001.bin`, ... meta.json
lists the shards. Documents, and windows of a training, can continue in the next shard.
"""

import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from nanogpt.artifacts.records.datasets import SplitMeta
from nanogpt.data.tokenizers import Tokens
from nanogpt.errors import RUN_AGAIN, UserError, plural
from nanogpt.files.atomic import sha256_file
from nanogpt.project import token_file

logger = logging.getLogger(__name__)

# Memory maps of a split at a time. Each keeps a file open, and many systems allow 1,024.
MOST_MAPPED = 256


def token_files(split: str, meta: SplitMeta) -> list[str]:
    """The names of all token files of a split, in order."""
    shards = [token_file(split, shard) for shard in range(len(meta.shards))]
    return shards or [token_file(split)]


class ShardedTokens:
    """The tokens of a split in several files, read in slices as if it were one array.

    A file is mapped when it's first read, so a process maps only what it reads.
    """

    def __init__(
        self, directory: Path, split: str, meta: SplitMeta, dtype: np.dtype[Any], vocab_size: int
    ) -> None:
        self.dtype = dtype
        self._paths = [directory / name for name in token_files(split, meta)]
        lengths = [shard.n_tokens for shard in meta.shards]
        self._ends = np.cumsum(lengths)
        self._vocab_size = vocab_size
        self._map = lru_cache(MOST_MAPPED)(self._open)
        self._states = {
            path: check_size(path, n_tokens, dtype, how_to_remake(path))
            for path, n_tokens in zip(self._paths, lengths, strict=True)
        }

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, part: slice) -> Tokens:
        return self._join(
            (path, self._map(path)[first:last]) for path, first, last in self._parts(part)
        )

    def read(self, part: slice) -> Tokens:
        """Read a slice without a memory map, whose pages would stay in memory."""
        width = self.dtype.itemsize
        return self._join(
            (path, np.fromfile(self._same(path), self.dtype, last - first, offset=first * width))
            for path, first, last in self._parts(part)
        )

    def check_edits(self, meta_file: Path, meta: SplitMeta) -> None:
        """Raise UserError if a shard was edited after meta.json was written.

        Only shards newer than meta.json are hashed; hashing all can take hours.
        """
        written = meta_file.stat().st_mtime_ns
        wanted = {p: shard.sha256 for p, shard in zip(self._paths, meta.shards, strict=True)}
        newer = [path for path in self._paths if self._states[path].date > written]
        if newer:
            logger.info(
                "%s: computing the digests of %s newer than meta.json; copies made with `cp -p` "
                "need none",
                meta_file.parent,
                plural(len(newer), "shard"),
            )
        for path in newer:
            if sha256_file(path) != wanted[path]:
                raise UserError(
                    f"{path}: edited after meta.json was written; {how_to_remake(path)}"
                )

    def _same(self, path: Path) -> Path:
        """Return a path whose file is the one that was there when the dataset was opened."""
        if _state_of(path) != self._states[path]:
            raise UserError(f"{path}: changed or removed while it was in use; {RUN_AGAIN}")
        return path

    def _open(self, path: Path) -> Tokens:
        self._same(path)
        return cast(Tokens, np.memmap(path, self.dtype, mode="r"))

    def _parts(self, part: slice) -> Iterator[tuple[Path, int, int]]:
        """Yield the files of a slice, each with the first and last position in it."""
        start, stop, step = part.indices(len(self))
        assert step == 1, part
        number = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            end = int(self._ends[number])
            before = int(self._ends[number - 1]) if number else 0
            if start < end:
                yield self._paths[number], start - before, min(stop, end) - before
            start, number = max(start, end), number + 1

    def _join(self, parts: Iterator[tuple[Path, Tokens]]) -> Tokens:
        """Join parts of files. Each is checked, because a scan of all files would take long."""
        arrays = [np.empty(0, self.dtype)]
        for path, tokens in parts:
            check_ids(path, int(tokens.max()), self._vocab_size, how_to_remake(path))
            arrays.append(tokens)
        return cast(Tokens, arrays[-1] if len(arrays) <= 2 else np.concatenate(arrays))


# The tokens of a split.
SplitTokens = Tokens | ShardedTokens


def read_unmapped(tokens: SplitTokens, start: int, stop: int) -> Tokens:
    """Read tokens from their files, for one pass over a large split that leaves no pages behind."""
    if isinstance(tokens, ShardedTokens):
        return tokens.read(slice(start, stop))
    assert isinstance(tokens, np.memmap)
    assert tokens.filename
    offset = start * tokens.dtype.itemsize
    return cast(Tokens, np.fromfile(tokens.filename, tokens.dtype, stop - start, offset=offset))


class FileState(NamedTuple):
    """A file's size in bytes and date of change in nanoseconds; zeros if there isn't one."""

    size: int
    date: int


def _state_of(path: Path) -> FileState:
    try:
        found = path.stat()
    except FileNotFoundError:
        return FileState(0, 0)
    return FileState(found.st_size, found.st_mtime_ns)


def check_size(path: Path, n_tokens: int, dtype: np.dtype[Any], remedy: str) -> FileState:
    """Raise UserError if a token file is missing or doesn't have the size given in meta.json.

    remedy: what the message tells the user to do. Returns the file's state.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    state = _state_of(path)
    if state.size != n_tokens * dtype.itemsize:
        raise UserError(
            f"{path}: has {plural(state.size, 'byte')}, but should have "
            f"{n_tokens * dtype.itemsize:,} ({plural(n_tokens, 'token')} as {dtype}, according to "
            f"meta.json); {remedy}"
        )
    return state


def check_ids(path: Path, largest: int, vocab_size: int, remedy: str) -> None:
    """Raise UserError if the largest token id of a file is outside the vocabulary."""
    if largest >= vocab_size:
        raise UserError(
            f"{path}: token id {largest} is outside the vocabulary of "
            f"{plural(vocab_size, 'token')}; {remedy}"
        )


def how_to_remake(path: Path) -> str:
    """Say what to do about a damaged shard. The workflow only looks at meta.json."""
    return f"delete {path.parent / 'meta.json'} and {RUN_AGAIN}"
