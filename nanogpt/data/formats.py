"""Read the documents of a file: plain text, JSONL, CSV, TSV or parquet, compressed or not.

Plain text is read in pieces of bounded size, so a file of any size takes little memory. A row of
a table is in memory as a whole.
"""

import codecs
import contextlib
import csv
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nanogpt.config.corpora import Corpus
from nanogpt.data.encodings import OnBytesRead, decode, without_surrogates
from nanogpt.data.opening import content_suffix, open_unpacked
from nanogpt.data.sniffing import BY_NAME, format_of
from nanogpt.errors import NoTextError, UserError, plural, shorten

COLUMNS_SHOWN = 8  # column names listed in an error message


def read_text(path: Path) -> str:
    """Read a small UTF-8 file outside any corpus, such as a prompt. Drops a byte order mark.

    Errors: UserError for a file that can't be read or isn't UTF-8.
    """
    with open_unpacked(path) as (_, content, _):
        data = content.read()
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start + data.startswith(codecs.BOM_UTF8) * len(codecs.BOM_UTF8)
        raise UserError(
            f"{path}: not UTF-8: byte 0x{data[start]:02x} at offset {start}; convert it to UTF-8"
        ) from None


def read_documents(
    path: Path, corpus: Corpus, encoding: str, progress: OnBytesRead | None = None
) -> Iterator[tuple[str, bool]]:
    """Yield the documents of a file in pieces: (text, whether a document ends with it).

    Each row of a table is a document, unless rows are joined; empty rows are skipped. Any other
    file is a single document. Only the last piece of a document can be empty. encoding: from
    `decide_encoding`.

    Errors: UserError for a file that can't be read or decoded; NoTextError for one without text.
    """
    form = format_of(path, corpus)
    pieces: Iterator[tuple[str, bool]]
    if form == "text":
        pieces = ((text, False) for text in decode(path, corpus, encoding, progress))
    else:
        pieces = _table(path, corpus, form, encoding, progress)
    empty = ends_document = True
    for text, ends_document in pieces:
        empty = False
        yield text, ends_document
    if empty:
        raise NoTextError(path)
    if not ends_document:
        yield "", True


def _table(
    path: Path, corpus: Corpus, form: str, encoding: str, progress: OnBytesRead | None
) -> Iterator[tuple[str, bool]]:
    """The non-empty rows of a table, and whether each is a document."""
    if form == "parquet":
        rows = _parquet_rows(path, corpus, progress)
    else:
        lines = _lines(decode(path, corpus, encoding, progress))
        read_rows = _jsonl_rows if form == "jsonl" else _csv_rows
        rows = read_rows(path, lines, corpus, form)
    for where, text in rows:
        if corpus.newlines == "lf":
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if text:
            yield without_surrogates(text, corpus.errors, where), corpus.rows == "documents"


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Split pieces of text into lines, keeping their LF, CR or CRLF; drop a byte order mark.

    A quoted CSV field can span several lines. The CSV reader joins them.
    """
    parts: list[str] = []  # of a line that isn't complete yet
    carried, first = "", True
    for piece in pieces:
        text, carried = carried + piece, ""
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text.endswith("\r"):  # perhaps half of a CRLF
            text, carried = text[:-1], "\r"
        for line in io.StringIO(text, newline="").readlines():
            parts.append(line)
            if line.endswith(("\n", "\r")):
                yield "".join(parts)
                parts = []
    if rest := "".join(parts) + carried:
        yield rest


def _jsonl_rows(
    path: Path, lines: Iterable[str], corpus: Corpus, _: str
) -> Iterator[tuple[str, str]]:
    column = corpus.text_column
    sniffed = corpus.format == "auto" and content_suffix(path.name) not in BY_NAME
    more = ", or set `missing: skip`" + (" or `format: text`" if sniffed else "")
    has_column, lacking = False, None
    for number, line in enumerate(lines, 1):
        where = f"{path}: line {number}"
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            flaw = (
                f"{error.msg} (character {error.colno})"
                if isinstance(error, json.JSONDecodeError)
                else str(error)
            )
            raise UserError(f"{where}: not JSON: {flaw}; fix or remove the line") from None
        if not isinstance(record, dict):
            example = json.dumps({column: "a document"}, ensure_ascii=False)
            raise UserError(f"{where}: not a JSON object such as {example}; fix or remove the line")
        found = _field(record, column)
        if found is ABSENT:
            lacking = lacking or _no_column(where, column, list(record), more)
            if corpus.missing == "skip":
                continue
            raise lacking
        has_column = True
        yield where, _text_of(found, where, corpus)
    if lacking and not has_column:  # the name is most likely wrong
        raise lacking


# Marks a field that a row doesn't have, because None is a field with the value null.
ABSENT = object()


def _field(record: Any, column: str) -> Any:
    """A field of a row by its name; `a.b` is field b of the object in field a."""
    if not isinstance(record, dict):
        return ABSENT
    if column in record:
        return record[column]
    outer, dot, inner = column.partition(".")
    return _field(record.get(outer, ABSENT), inner) if dot else ABSENT


def _csv_rows(
    path: Path, lines: Iterable[str], corpus: Corpus, form: str
) -> Iterator[tuple[str, str]]:
    csv.field_size_limit(2**31 - 1)
    column, lines = corpus.text_column, iter(lines)
    skipped = 0  # lines before the header: blank lines and Excel's `sep=;`
    for header in lines:
        if header.strip() and not header.startswith("sep="):
            break
        skipped += 1
    else:
        header = ""
    delimiter = _delimiter(header, corpus, form)
    # TSV has no quoting: a field may start with a quotation mark, and each line is a row.
    quoted: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if form == "tsv" else {}
    rows = itertools.chain([header], lines)
    reader = csv.reader(rows, delimiter=delimiter, strict=True, **quoted)
    try:
        columns = next(reader, [])
        if column not in columns:
            raise _no_column(str(path), column, columns)
        if columns.count(column) > 1:
            raise _several_columns(path, column)
        index = columns.index(column)
        for row in reader:
            where = f"{path}: line {skipped + reader.line_num}"
            if row and len(row) != len(columns):
                raise UserError(
                    f"{where}: {plural(len(row), 'field')}, but the header has {len(columns)}; "
                    f"fix the row (a field that contains {delimiter!r} needs double quotes)"
                )
            yield where, row[index] if row else ""
    except csv.Error as error:
        where = f"{path}: line {skipped + reader.line_num}"
        raise UserError(
            f"{where}: not valid CSV: {error}; check the row's double quotes: one may be missing, "
            "or need doubling"
        ) from None


DELIMITERS = (",", ";", "\t", "|")


def _delimiter(header: str, corpus: Corpus, form: str) -> str:
    """The configured delimiter, or the one with which the header has the text column."""
    if corpus.delimiter != "auto":
        return corpus.delimiter
    if form == "tsv":
        return "\t"
    for delimiter in DELIMITERS:
        with contextlib.suppress(csv.Error):
            if corpus.text_column in next(csv.reader([header], delimiter=delimiter), []):
                return delimiter
    return ","


def _parquet_rows(
    path: Path, corpus: Corpus, progress: OnBytesRead | None
) -> Iterator[tuple[str, str]]:
    import pyarrow
    from pyarrow import parquet

    column = corpus.text_column
    number = reported = 0
    with open_unpacked(path) as (raw, _, _):
        try:
            table = parquet.ParquetFile(raw, pre_buffer=False)
            if column not in map(str, table.schema_arrow.names):
                paths = [table.schema.column(n).path for n in range(len(table.schema))]
                paths = [path for path in paths if ".list." not in path]
                if column not in paths:
                    raise _no_column(str(path), column, [*table.schema_arrow.names, *paths])
            size, n_rows = os.fstat(raw.fileno()).st_size, table.metadata.num_rows
            for rows in table.iter_batches(256, columns=[column], use_threads=False):
                name, *others = rows.schema.names
                if others:
                    raise _several_columns(path, column)
                for value in rows.column(0):
                    number += 1
                    where = f"{path}: row {number}"
                    found = _field({name: value.as_py()}, column)
                    yield where, _text_of(found, where, corpus)
                if progress:
                    progress(size * number // n_rows - reported)
                    reported = size * number // n_rows
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: row {number}: `{column}` isn't UTF-8: {error}; export the file again"
            ) from None
        except pyarrow.ArrowException as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: can't be read as parquet: {reason.rstrip('.')}; get a new copy"
            ) from None


def _no_column(where: str, column: str, columns: Iterable[str], more: str = "") -> UserError:
    names = list(dict.fromkeys(columns))
    found = ", ".join(f"`{shorten(name)}`" for name in names[:COLUMNS_SHOWN]) or "none"
    found += f" and {len(names) - COLUMNS_SHOWN} more" if len(names) > COLUMNS_SHOWN else ""
    return UserError(
        f"{where}: no column `{shorten(column)}` (found {found}); "
        f"set the corpus's `text_column:` to the one with the text{more}"
    )


def _several_columns(path: Path, column: str) -> UserError:
    return UserError(
        f"{path}: several columns are named `{shorten(column)}`; rename all but one of them"
    )


def _text_of(value: Any, where: str, corpus: Corpus) -> str:
    """The text of a row; "" for null. Parquet may store it as bytes."""
    if value is None or value is ABSENT:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8", corpus.errors)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{where}: `{corpus.text_column}` isn't UTF-8: {error.reason} at offset "
                f"{error.start}; export the file again, or set `errors: replace` for its corpus"
            ) from None
    if not isinstance(value, str):
        raise UserError(
            f"{where}: `{corpus.text_column}` should be text (found `{shorten(str(value))}`); fix "
            "the row, or set the corpus's `text_column:` to the column with the text"
        )
    return value
