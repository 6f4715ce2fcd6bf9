"""What jobs leave for each other while they prepare a corpus of many files."""

from typing import Literal

from nanogpt.artifacts.records.base import Count, Record
from nanogpt.artifacts.records.datasets import FileMeta


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

    n_train: characters for training, where the split is by position. starts: of each group, how
    many characters stand before it.
    """

    split: Literal["position", "document"]
    n_documents: Count
    n_train: Count
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
