"""What jobs leave for each other while they prepare a corpus of many files."""

from nanogpt.artifacts.records.base import Count, Record
from nanogpt.artifacts.records.datasets import FileMeta, Split


class GroupCounts(Record):
    """counts.json: what the first pass over a group of files finds.

    characters: all that occur, sorted, each once.
    """

    files: tuple[FileMeta, ...]
    n_documents: Count
    n_characters: Count
    characters: str


class Plan(Record):
    """plan.json: how a dataset is split.

    n_train: characters for training, where the split is by position; bytes, where it's by bytes.
    n_end: bytes before the end of the validation split, where it's by bytes. starts: of each group,
    how many characters or bytes stand before it.
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
    """totals.json: what the second pass over a group of files wrote."""

    train: SplitTotals
    val: SplitTotals
