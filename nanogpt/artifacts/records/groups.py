"""Files that jobs pass to each other while they prepare a corpus of many files."""

from nanogpt.artifacts.records.base import Count, Record
from nanogpt.artifacts.records.datasets import CleaningMeta, FileMeta, Split


class GroupCounts(Record):
    """counts.json: the counts from the first pass over a group of files.

    characters: all characters that occur, sorted, each once.
    """

    files: tuple[FileMeta, ...]
    n_documents: Count
    n_characters: Count
    characters: str


class CleaningPlan(Record):
    """Which documents stay, for a dataset that can leave some out.

    first_documents: the number of documents in all groups before each group, as read.
    n_characters: of the documents of each group that stay.
    """

    first_documents: tuple[Count, ...]
    n_characters: tuple[Count, ...]
    totals: CleaningMeta


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
    cleaning: CleaningPlan | None = None


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
