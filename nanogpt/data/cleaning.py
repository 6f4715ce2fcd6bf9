"""Leave out documents: those that fail a filter, and duplicates.

Pass 1 gives each document a row in a table: the filter that it fails, its length, and hashes of its
text. From the tables of all groups, `choose_documents` decides which documents stay. So the choice
doesn't depend on how the files are grouped. Pass 2 skips the others.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.artifacts.records.datasets import CleaningMeta
from nanogpt.artifacts.records.groups import CleaningPlan, GroupCounts
from nanogpt.config.corpora import Dataset
from nanogpt.config.parameters import neutral_values
from nanogpt.data.near_duplicates import N_BANDS, Signature, find_near_duplicates
from nanogpt.errors import REMAKE, UserError, plural
from nanogpt.files.atomic import atomic_write

FILTERS = ("min_characters", "max_characters", "min_alphabetic_words", "max_repeated_lines")
# Why a document is left out; 0 is for those that stay.
REASONS = ("", *FILTERS, "exact_duplicates", "near_duplicates")
EXACT, NEAR = REASONS.index("exact_duplicates"), REASONS.index("near_duplicates")

LONGEST_LINE = 1 << 20  # characters; a longer line is judged in parts
CHUNK = 1 << 12  # rows that are converted to an array at once

Documents = NDArray[np.void]  # a row for each document
Kept = NDArray[np.bool_]  # whether each document stays
ALL: Kept = np.zeros(0, dtype=np.bool_)  # for a dataset that leaves out none


def cleans(dataset: Dataset) -> bool:
    """Whether a dataset can leave out documents."""
    return dataset.deduplicate != "none" or bool(_filters(dataset))


def _filters(dataset: Dataset) -> list[str]:
    """The filters that a dataset uses."""
    off = neutral_values(Dataset)
    return [name for name in FILTERS if getattr(dataset, name) != off[name]]


def _row_type(dataset: Dataset) -> np.dtype[np.void]:
    # digest: the first 16 bytes of the text's SHA-256
    fields: list[Any] = [("reason", "u1"), ("n_characters", "<u8"), ("n_bytes", "<u8")]
    fields.append(("digest", "<u8", (2,)))
    if dataset.deduplicate == "near":
        fields.append(("bands", "<u8", (N_BANDS,)))
    return np.dtype(fields)


class Cleaner:
    """Judges the documents of a group of files in pass 1."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._rows: list[tuple[Any, ...]] = []
        self._chunks = [np.zeros(0, dtype=_row_type(dataset))]

    def read(self, pieces: Iterable[tuple[str, bool]]) -> Iterator[str]:
        """Judge documents, and yield the characters of those that pass the filters.

        pieces: the documents of a file, as `read_documents` returns them.
        """
        document, characters = _Document(self._dataset), set[str]()
        for text, ends_document in pieces:
            document.read(text)
            is_whole = ends_document and not characters
            if not is_whole:
                characters.update(text)
            if ends_document:
                self._add(document.row())
                if not self._rows[-1][0]:
                    yield text if is_whole else "".join(sorted(characters))
                document, characters = _Document(self._dataset), set()

    def documents(self) -> Documents:
        """The rows of all documents so far."""
        self._pack()
        return np.concatenate(self._chunks)

    def _add(self, row: tuple[Any, ...]) -> None:
        if len(self._rows) == CHUNK:
            self._pack()
        self._rows.append(row)

    def _pack(self) -> None:
        self._chunks.append(np.array(self._rows, dtype=self._chunks[0].dtype))
        self._rows = []


class _Document:
    """Judges one document, whose text comes in pieces."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._filters = _filters(dataset)
        self._digest = hashlib.sha256()
        self._signature = Signature() if dataset.deduplicate == "near" else None
        self._needs_lines = self._signature or {*self._filters} & {*FILTERS[2:]}
        self._line = ""  # the start of a line, which isn't complete yet
        self._n_characters = self._n_bytes = 0
        self._n_words = self._n_alphabetic = 0
        self._lines: set[int] = set()  # hashes of all lines
        self._n_in_lines = self._n_repeated = 0  # characters

    def read(self, text: str) -> None:
        """Judge the next piece."""
        data = text.encode("utf-8")
        self._digest.update(data)
        self._n_characters += len(text)
        self._n_bytes += len(data)
        if self._needs_lines:
            text = self._line + text
            end = text.rfind("\n") + 1
            if not end and len(text) >= LONGEST_LINE:
                end = len(text)
            self._judge(text[:end])
            self._line = text[end:]

    def row(self) -> tuple[Any, ...]:
        """The document's row, after the last piece."""
        self._judge(self._line)
        failed = next((name for name in self._filters if self._fails(name)), "")
        digest = self._digest.digest()[:16]
        halves = [int.from_bytes(digest[start : start + 8], "little") for start in (0, 8)]
        row = (REASONS.index(failed), self._n_characters, self._n_bytes, halves)
        return (*row, self._signature.bands(digest)) if self._signature else row

    def _judge(self, text: str) -> None:
        """Count the words and repeated lines of some whole lines."""
        if "min_alphabetic_words" in self._filters:
            words = text.split()
            self._n_words += len(words)
            self._n_alphabetic += sum(any(map(str.isalpha, word)) for word in words)
        if "max_repeated_lines" in self._filters:
            for line in map(str.strip, text.splitlines()):
                n_lines = len(self._lines)
                self._lines.add(hash(line))
                self._n_in_lines += len(line)
                self._n_repeated += len(line) if len(self._lines) == n_lines else 0
        if self._signature:
            self._signature.update(text)

    def _fails(self, name: str) -> bool:
        limit: float = getattr(self._dataset, name)
        if name == "min_characters":
            return self._n_characters < limit
        if name == "max_characters":
            return self._n_characters > limit
        if name == "min_alphabetic_words":
            return self._n_alphabetic < limit * self._n_words or not self._n_words
        return self._n_repeated > limit * self._n_in_lines


@dataclass(frozen=True)
class Choice:
    """Which documents of a corpus stay. n_bytes: of those of each group."""

    kept: Kept
    plan: CleaningPlan
    n_bytes: tuple[int, ...]


def choose_documents(
    counts: Sequence[GroupCounts], tables: Sequence[Documents], dataset: Dataset
) -> Choice | None:
    """Choose the documents that stay; None for all. counts, tables: of all groups, in order.

    The first of several duplicates stays, in the order of the corpus. With `split: last_file`, the
    last file comes first, so that the validation split loses no document to the training split.

    Errors: UserError if no document stays, or none of the last file with `split: last_file`.
    """
    if not cleans(dataset):
        return None
    sizes = [len(table) for table in tables]
    reasons = np.concatenate([table["reason"] for table in tables])
    n_last = counts[-1].files[-1].n_documents if dataset.split == "last_file" else 0
    order = np.roll(np.arange(len(reasons)), n_last)
    _mark_duplicates(reasons, order, tables, dataset)
    kept = reasons == 0
    if len(kept) and not kept.any():
        raise _nothing_left(counts[0].files[0].path, reasons, "document")
    if n_last and not kept[-n_last:].any():
        what = "document of the last file"
        raise _nothing_left(counts[-1].files[-1].path, reasons[-n_last:], what)
    bounds = np.cumsum(sizes)[:-1]
    of_groups = list(zip(np.split(kept, bounds), tables, strict=True))
    n_characters = [int(table["n_characters"][own].sum()) for own, table in of_groups]
    deduplicating = {"none": 0, "exact": 1, "near": 2}[dataset.deduplicate]
    names = [*_filters(dataset), *REASONS[EXACT : EXACT + deduplicating]]
    numbers = np.bincount(reasons, minlength=len(REASONS)).tolist()
    totals = CleaningMeta(
        n_documents_read=len(kept),
        n_characters_read=sum(group.n_characters for group in counts),
        removed={name: numbers[REASONS.index(name)] for name in names},
        n_documents=int(kept.sum()),
        n_characters=sum(n_characters),
    )
    plan = CleaningPlan(
        first_documents=tuple(sum(sizes[:group]) for group in range(len(sizes))),
        n_characters=tuple(n_characters),
        totals=totals,
    )
    n_bytes = tuple(int(table["n_bytes"][own].sum()) for own, table in of_groups)
    return Choice(kept, plan, n_bytes)


def _mark_duplicates(
    reasons: NDArray[np.uint8],
    order: NDArray[np.int64],
    tables: Sequence[Documents],
    dataset: Dataset,
) -> None:
    """Set the reason of each duplicate. order: the documents, those first that take precedence."""

    def column(field: str, number: int, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        parts = [table[field][:, number] for table in tables]
        return np.concatenate(parts)[rows]

    if dataset.deduplicate == "none":
        return
    rows = order[reasons[order] == 0]
    low, high = (column("digest", half, rows) for half in (0, 1))
    by_digest = np.lexsort((low, high))  # stable
    low, high = low[by_digest], high[by_digest]
    is_copy = (low[1:] == low[:-1]) & (high[1:] == high[:-1])
    reasons[rows[by_digest[1:][is_copy]]] = EXACT
    if dataset.deduplicate == "near":
        del low, high, by_digest
        rows = order[reasons[order] == 0]
        near = find_near_duplicates(len(rows), lambda number: column("bands", number, rows))
        reasons[rows[near]] = NEAR


def _nothing_left(path: str, reasons: NDArray[np.uint8], what: str) -> UserError:
    numbers = np.bincount(reasons).tolist()
    by = ", ".join(f"{n:,} by `{REASONS[reason]}`" for reason, n in enumerate(numbers) if n)
    return UserError(
        f"{path}: the dataset's settings leave out every {what} ({by}); change these settings or "
        "add text"
    )


def keep(
    documents: Iterable[tuple[str, bool]], kept: Kept, path: str
) -> Iterator[tuple[str, bool]]:
    """Yield the documents of a file that stay. documents: in pieces. kept: whether each stays.

    Errors: UserError if the file has another number of documents.
    """
    number = 0
    for text, ends_document in documents:
        if number < len(kept) and kept[number]:
            yield text, ends_document
        number += ends_document
    if number != len(kept):
        raise UserError(
            f"{path}: this file changed while the dataset was prepared; run the same command again"
        )


def summarize(totals: CleaningMeta) -> str:
    """Describe in words which documents were left out."""
    parts = []
    for name, number in totals.removed.items():
        if number and name in FILTERS:
            parts.append(f"{number:,} by {name}")
        elif number:
            parts.append(plural(number, name.replace("_", " ").removesuffix("s")))
    n_removed = totals.n_documents_read - totals.n_documents
    n_read = plural(totals.n_documents_read, "document")
    return f"left out {n_removed:,} of {n_read}" + (f" ({', '.join(parts)})" if parts else "")


def write_array(path: Path, array: Documents | Kept) -> None:
    """Write a table or a choice to a file, for later jobs."""
    with atomic_write(path) as file:
        np.save(file, array)


def read_array(path: str | Path) -> Any:
    """Map a file of `write_array` into memory.

    Errors: UserError for a damaged file.
    """
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        raise UserError(f"{path}: missing or damaged; {REMAKE}") from None
