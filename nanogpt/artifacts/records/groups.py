"""Files that jobs pass to each other while they prepare a corpus of many files."""

from nanogpt.artifacts.records.base import Count, Record
from nanogpt.artifacts.records.datasets import FileMeta, Split


class GroupCounts(Record):
    """counts.json: the counts from the first pass over a group of files.

    characters: all characters that occur, sorted, each once.
    """

    files: tuple[FileMeta, ...]
    n_documents: Count
    n_characters: Count
    characters: str


class Plan(Record):
    """plan.json: how a dataset is split.

    n_train: length of the training split, in characters or, for a split by bytes, in bytes. n_end:
    the end of the validation split in bytes, for a split by bytes. starts: the position of each
    group in the same unit.
    """

    split: Split
    n_documents: Count
    n_train: Count
    n_end: Count | None = None
    starts: tuple[Count, ...]


class SplitTotals(Record):
    """A group's part of a split. sha256: of its token file."""

    n_tokens: Count
    n_characters: Count
    n_bytes: Count
    n_documents: Count
    sha256: str


class GroupTotals(Record):
    """totals.json: the totals of the token files written by the second pass over a group."""

    train: SplitTotals
    val: SplitTotals
