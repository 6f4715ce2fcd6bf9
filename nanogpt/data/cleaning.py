"""Leave out documents: those that fail a filter, and duplicates.

Pass 1 gives each document a row in a table: the filter that it fails, its length, and hashes of its
text. From the tables of all groups, `choose_documents` decides which documents stay. So the choice
doesn't depend on how the files are grouped. Pass 2 skips the others.

Tables can have more rows than fit into memory, so they're in files. A file has chunks of rows, and
a chunk has one column after the other, so a column can be read without the others.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from nanogpt.artifacts.records.datasets import CleaningMeta
from nanogpt.artifacts.records.groups import CleaningPlan, GroupCounts
from nanogpt.config.corpora import FILTERS, Dataset
from nanogpt.data.near_duplicates import N_BANDS, Keys, Signature, find_near_duplicates
from nanogpt.errors import UserError, damaged_file, missing_file, plural
from nanogpt.files.atomic import atomic_write

# Why a document is left out; 0 is for those that stay.
REASONS = ("", *FILTERS, "exact_duplicates", "near_duplicates")
EXACT, NEAR = REASONS.index("exact_duplicates"), REASONS.index("near_duplicates")

LONGEST_LINE = 1 << 20  # characters; a longer line is judged in parts
MOST_LINES = 1 << 20  # different lines of a document that later lines are compared with
CHUNK = 1 << 14  # rows that are written at once

Documents = NDArray[np.void]  # a row for each document
Kept = NDArray[np.bool_]  # whether each document stays
ALL: Kept = np.zeros(0, dtype=np.bool_)  # for a dataset that leaves out none


def row_type(dataset: Dataset) -> np.dtype[np.void]:
    """The columns of a table: reason, lengths, and keys that duplicates have in common."""
    # The digest is the first 16 bytes of the text's SHA-256.
    keys = ["digest_0", "digest_1"]
    if dataset.deduplicate == "near":
        keys += [f"band_{number}" for number in range(N_BANDS)]
    return np.dtype([("reason", "u1"), *((n, "<u8") for n in ("n_characters", "n_bytes", *keys))])


def by_column(rows: Documents) -> bytes:
    """A chunk of a table: all values of the first column, then all of the next."""
    return b"".join(rows[name].tobytes() for name in rows.dtype.names or ())


def _limits(dataset: Dataset) -> dict[str, Fraction]:
    """The limits of the filters, as the decimal numbers that they are in config.yaml."""
    return {name: Fraction(repr(getattr(dataset, name))) for name in dataset.filters}


class Cleaner:
    """Judges the documents of a group of files in pass 1.

    write: is called with the next chunk of their table.
    """

    def __init__(self, dataset: Dataset, write: Callable[[bytes], object]) -> None:
        self._limits = _limits(dataset)
        self._is_near = dataset.deduplicate == "near"
        self._row_type = row_type(dataset)
        self._rows: list[tuple[Any, ...]] = []
        self._write = write

    def read(self, pieces: Iterable[tuple[str, bool]]) -> Iterator[str]:
        """Judge documents, and yield the characters of those that pass the filters.

        pieces: the documents of a file, as `read_documents` returns them.
        """
        document, characters = self._new_document(), set[str]()
        for text, ends_document in pieces:
            document.read(text)
            is_whole = ends_document and not characters
            if not is_whole:
                characters.update(text)
            if ends_document:
                self._rows.append(document.row())
                if not self._rows[-1][0]:
                    yield text if is_whole else "".join(sorted(characters))
                if len(self._rows) == CHUNK:
                    self.write_rows()
                document, characters = self._new_document(), set()

    def write_rows(self) -> None:
        """Write the rows that haven't been written yet."""
        self._write(by_column(np.array(self._rows, dtype=self._row_type)))
        self._rows = []

    def _new_document(self) -> "_Document":
        return _Document(self._limits, self._is_near)


class _Document:
    """Judges one document, whose text comes in pieces. limits: of the filters, by name."""

    def __init__(self, limits: dict[str, Fraction], is_near: bool) -> None:
        self._limits = limits
        self._digest = hashlib.sha256()
        self._signature = Signature() if is_near else None
        self._needs_lines = self._signature or limits.keys() & {*FILTERS[2:]}
        self._line: list[str] = []  # the parts of a line that isn't complete yet
        self._n_characters = self._n_bytes = self._n_in_line = 0
        self._n_words = self._n_alphabetic = 0
        self._lines: set[int] = set()  # hashes of different lines
        self._n_in_lines = self._n_repeated = 0  # characters

    def read(self, text: str) -> None:
        """Judge the next piece. It can be a whole document of any length."""
        for start in range(0, len(text), LONGEST_LINE):
            part = text[start : start + LONGEST_LINE]
            data = part.encode("utf-8")
            self._digest.update(data)
            self._n_characters += len(part)
            self._n_bytes += len(data)
            if self._needs_lines:
                self._read_lines(part)

    def row(self) -> tuple[Any, ...]:
        """The document's row, after the last piece."""
        self._judge("".join(self._line))
        failed = next((name for name in self._limits if self._fails(name)), "")
        digest = self._digest.digest()[:16]
        halves = [int.from_bytes(digest[start : start + 8], "little") for start in (0, 8)]
        bands = self._signature.bands(digest) if self._signature else []
        return (REASONS.index(failed), self._n_characters, self._n_bytes, *halves, *bands)

    def _read_lines(self, text: str) -> None:
        """Judge the lines that end in a part of the text, and keep the start of the next one."""
        end = text.rfind("\n") + 1
        if not end and self._n_in_line + len(text) >= LONGEST_LINE:
            end = len(text)
        if end:
            self._judge("".join([*self._line, text[:end]]))
            self._line, self._n_in_line = [], 0
        self._line.append(text[end:])
        self._n_in_line += len(text) - end

    def _judge(self, text: str) -> None:
        """Count the words and repeated lines of some whole lines."""
        if "min_alphabetic_words" in self._limits:
            words = text.split()
            self._n_words += len(words)
            self._n_alphabetic += sum(any(map(str.isalpha, word)) for word in words)
        if "max_repeated_lines" in self._limits:
            for line in map(str.strip, text.splitlines()):
                self._n_in_lines += len(line)
                line_hash = hash(line)
                if line_hash in self._lines:
                    self._n_repeated += len(line)
                elif len(self._lines) < MOST_LINES:
                    self._lines.add(line_hash)
        if self._signature:
            self._signature.update(text)

    def _fails(self, name: str) -> bool:
        limit = self._limits[name]
        if name == "min_characters":
            return self._n_characters < limit
        if name == "max_characters":
            return self._n_characters > limit
        if name == "min_alphabetic_words":
            return self._n_alphabetic < limit * self._n_words or not self._n_words
        return self._n_repeated > limit * self._n_in_lines


@dataclass(frozen=True)
class TableFile:
    """The table of a group in a file. n_documents: its rows.

    file: a path, which is open only while a column is read, or an open file.

    Errors of reading: UserError for a missing or damaged file.
    """

    file: Path | IO[bytes]
    row_type: np.dtype[np.void]
    n_documents: int

    def column(self, name: str) -> Iterator[NDArray[Any]]:
        """Read a column, in parts."""
        row_size, column_type = self.row_type.itemsize, self.row_type[name]
        offset = cast(Any, self.row_type.fields)[name][1]
        with self._opened() as file:
            if file.seek(0, os.SEEK_END) != self.n_documents * row_size:
                raise damaged_file(self.file)
            for start in range(0, self.n_documents, CHUNK):
                n_rows = min(CHUNK, self.n_documents - start)
                file.seek(start * row_size + n_rows * offset)
                yield np.frombuffer(file.read(n_rows * column_type.itemsize), column_type)

    def _opened(self) -> AbstractContextManager[IO[bytes]]:
        if not isinstance(self.file, Path):
            return nullcontext(self.file)
        try:
            return self.file.open("rb")
        except FileNotFoundError:
            raise missing_file(self.file) from None


def table_files(
    paths: Iterable[str], counts: Sequence[GroupCounts], dataset: Dataset
) -> list[TableFile]:
    """The tables of all groups; none for a dataset that leaves out no documents."""
    groups = zip(paths, counts, strict=True)
    columns = row_type(dataset)
    tables = [TableFile(Path(path), columns, group.n_documents) for path, group in groups]
    return tables if dataset.cleans else []


@dataclass(frozen=True)
class Choice:
    """Which documents of a corpus stay. n_bytes: of those of each group."""

    kept: Kept
    plan: CleaningPlan
    n_bytes: tuple[int, ...]


def choose_documents(
    counts: Sequence[GroupCounts], tables: Sequence[TableFile], dataset: Dataset
) -> Choice | None:
    """Choose the documents that stay; None for all. counts, tables: of all groups, in order.

    The first of several duplicates stays, in the order of the corpus. With `split: last_file`, the
    last file comes first, so that the validation split loses no document to the training split.

    Errors: UserError if no document stays or, with `split: last_file`, none of the last file or
    none of the others.
    """
    if not dataset.cleans:
        return None
    sizes = [group.n_documents for group in counts]
    n_last = counts[-1].files[-1].n_documents if dataset.split == "last_file" else 0
    reasons = _column(tables, sum(sizes), "reason")
    _mark_duplicates(reasons, n_last, tables, dataset)
    kept = reasons == 0
    _check_left(counts, reasons, n_last, dataset)
    of_groups = np.split(kept, np.cumsum(sizes)[:-1])
    n_characters, n_bytes = (
        tuple(_length(table, column, own) for table, own in zip(tables, of_groups, strict=True))
        for column in ("n_characters", "n_bytes")
    )
    plan = CleaningPlan(
        first_documents=tuple(sum(sizes[:group]) for group in range(len(sizes))),
        n_characters=n_characters,
        totals=CleaningMeta(
            n_documents_read=len(kept),
            n_characters_read=sum(group.n_characters for group in counts),
            removed=_removed(reasons, dataset),
            n_documents=int(kept.sum()),
            n_characters=sum(n_characters),
        ),
    )
    return Choice(kept, plan, n_bytes)


def _column(tables: Sequence[TableFile], n_documents: int, name: str) -> NDArray[Any]:
    """A column of all documents."""
    column, end = np.zeros(n_documents, np.uint8 if name == "reason" else np.uint64), 0
    for table in tables:
        for values in table.column(name):
            column[end : end + len(values)] = values
            end += len(values)
    return column


def _mark_duplicates(
    reasons: NDArray[np.uint8], n_last: int, tables: Sequence[TableFile], dataset: Dataset
) -> None:
    """Set the reason of each duplicate. n_last: documents at the end that take precedence."""

    def candidates() -> NDArray[np.int64]:
        """The documents that aren't left out yet, those first that take precedence."""
        rows = np.flatnonzero(reasons == 0)
        return np.roll(rows, np.count_nonzero(rows >= len(reasons) - n_last))

    def column(name: str, rows: NDArray[np.int64]) -> Keys:
        return cast(Keys, _column(tables, len(reasons), name)[rows])

    if dataset.deduplicate == "none":
        return
    rows = candidates()
    reasons[rows[_copies(column("digest_0", rows), column("digest_1", rows))]] = EXACT
    if dataset.deduplicate == "near":
        rows = candidates()
        near = find_near_duplicates(len(rows), lambda number: column(f"band_{number}", rows))
        reasons[rows[near]] = NEAR


def _copies(low: Keys, high: Keys) -> NDArray[np.int64]:
    """The indices of digests that occurred before. low, high: the halves of each digest."""
    order = np.lexsort((low, high))  # stable
    is_copy = np.ones(max(0, len(order) - 1), dtype=np.bool_)
    for half in (low, high):
        half = half[order]
        is_copy &= half[1:] == half[:-1]
    return order[1:][is_copy]


def _check_left(
    counts: Sequence[GroupCounts], reasons: NDArray[np.uint8], n_last: int, dataset: Dataset
) -> None:
    """Raise UserError if no document stays, or none for a split. n_last: of the last file."""
    first, last = counts[0].files[0].path, counts[-1].files[-1].path
    parts = [(first, reasons, "", "")]
    if n_last:
        parts.append((last, reasons[-n_last:], " of the last file", "validate"))
        parts.append((first, reasons[:-n_last], " before the last file", "train"))
    for path, of_part, which, purpose in parts:
        if len(of_part) and of_part.all():
            removed = _in_words(_count_by_setting(_removed(of_part, dataset)))
            nothing = f": nothing to {purpose} on" if purpose else ""
            raise UserError(
                f"{path}: the dataset's settings leave out every document{which} ({removed})"
                f"{nothing}; change the settings or add text"
            )


def _length(table: TableFile, column: str, kept: Kept) -> int:
    """The characters or bytes of the documents of a group that stay."""
    length = start = 0
    for values in table.column(column):
        length += int(values[kept[start : start + len(values)]].sum())
        start += len(values)
    return length


def _removed(reasons: NDArray[np.uint8], dataset: Dataset) -> dict[str, int]:
    """The number of documents left out for each reason that the dataset's settings allow."""
    deduplicating = {"none": 0, "exact": 1, "near": 2}[dataset.deduplicate]
    names = [*dataset.filters, *REASONS[EXACT : EXACT + deduplicating]]
    return {name: int(np.count_nonzero(reasons == REASONS.index(name))) for name in names}


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


def explain(cleaning: CleaningPlan) -> str:
    """Describe which settings left out documents, for an error message."""
    totals = cleaning.totals
    numbers = _count_by_setting(totals.removed)
    n_removed = totals.n_documents_read - totals.n_documents
    n_read = plural(totals.n_documents_read, "document")
    by = f" by `{min(numbers)}`" if len(numbers) == 1 else f": {_in_words(numbers)}"
    return f"{n_removed:,} of {n_read} left out{by}"


def _count_by_setting(removed: Mapping[str, int]) -> Counter[str]:
    """How many documents each setting left out. removed: by reason."""
    numbers = Counter[str]()
    for reason, number in removed.items():
        numbers[reason if reason in FILTERS else "deduplicate"] += number
    return +numbers  # without zeros


def _in_words(numbers: Counter[str]) -> str:
    return ", ".join(f"{number:,} by `{name}`" for name, number in numbers.items())


def write_choice(path: Path, kept: Kept) -> None:
    """Write to a file which documents stay, for later jobs."""
    with atomic_write(path) as file:
        np.save(file, kept)


def read_choice(path: str | Path) -> Kept:
    """Map a file of `write_choice` into memory.

    Errors: UserError for a missing or damaged file.
    """
    try:
        return cast(Kept, np.load(path, mmap_mode="r"))
    except FileNotFoundError:
        raise missing_file(path) from None
    except (ValueError, EOFError):
        raise damaged_file(path) from None
