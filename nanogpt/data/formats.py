"""The documents of a file: plain text, JSONL, CSV or parquet, compressed or not.

A text is read in pieces of bounded size, whatever the size of its file. Only a row of a table,
which is a document, is held as a whole.
"""

import codecs
import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nanogpt.config.corpora import Corpus
from nanogpt.data.encodings import OnBytesRead, decode, without_surrogates
from nanogpt.data.opening import TABLES, kind_of, open_unpacked
from nanogpt.errors import UserError, plural


def read_text(path: Path) -> str:
    """The text of a small file of no corpus, such as a prompt's: UTF-8, with or without a mark.

    Errors: UserError for what cannot be read, and for other encodings.
    """
    with open_unpacked(path) as (raw, _):
        data = raw.read()
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start + data.startswith(codecs.BOM_UTF8) * len(codecs.BOM_UTF8)
        raise UserError(
            f"{path}: not UTF-8: byte 0x{data[start]:02x} at offset {start}; convert it"
        ) from None


def read_documents(
    path: Path, corpus: Corpus, encoding: str, progress: OnBytesRead | None = None
) -> Iterator[tuple[str, bool]]:
    """The documents of a file, in pieces: (text, whether a document ends with it).

    A row of a .jsonl, .parquet or .csv file is a document, empty ones left out; any other file is
    one. Only the last piece of a document can be empty. encoding: from `decide_encoding`.

    Errors: UserError for what cannot be read, bytes that do not fit, and where there is no text.
    """
    kind = kind_of(path)
    if kind not in TABLES:
        yield from _whole(path, decode(path, corpus, encoding, progress))
        return
    if kind == ".parquet":
        rows = _parquet_rows(path, corpus.text_column, progress)
    else:
        lines = _lines(decode(path, corpus, encoding, progress))
        read_rows = _csv_rows if kind == ".csv" else _jsonl_rows
        rows = read_rows(path, lines, corpus.text_column)
    n_documents = 0
    for where, row in rows:
        text = row
        if corpus.newlines == "lf":
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if text:
            yield without_surrogates(text, corpus.errors, where), True
            n_documents += 1
    if not n_documents:
        raise UserError(f"{path}: no document in it; put texts there or take it out of the corpus")


def _whole(path: Path, pieces: Iterable[str]) -> Iterator[tuple[str, bool]]:
    empty = True
    for piece in pieces:
        empty = False
        yield piece, False
    if empty:
        raise UserError(f"{path}: empty; put a text there, or take it out of the corpus")
    yield "", True


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines with their line feeds; no other character ends one."""
    parts: list[str] = []
    for piece in pieces:
        *lines, rest = piece.split("\n")
        for line in lines:
            yield "".join([*parts, line, "\n"])
            parts = []
        parts.append(rest)
    if any(parts):
        yield "".join(parts)


def _jsonl_rows(path: Path, lines: Iterable[str], column: str) -> Iterator[tuple[str, str]]:
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
            raise UserError(f"{where}: not JSON: {flaw}; mend the line or take it out") from None
        if not isinstance(record, dict):
            example = json.dumps({column: "a document"}, ensure_ascii=False)
            raise UserError(
                f"{where}: not a JSON object, such as {example}; mend the line or take it out"
            )
        if column not in record:
            raise _no_column(where, column, list(record))
        yield where, _text_of(record[column], where, column)


def _csv_rows(path: Path, lines: Iterable[str], column: str) -> Iterator[tuple[str, str]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(lines, strict=True)
    try:
        columns = next(reader, [])
        if column not in columns:
            raise _no_column(str(path), column, columns)
        index = columns.index(column)
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if row and len(row) != len(columns):
                raise UserError(
                    f"{where}: {plural(len(row), 'field')} where the header has {len(columns)}; "
                    "mend the row: a field with a comma in it stands in double quotes"
                )
            yield where, row[index] if row else ""
    except csv.Error as error:
        raise UserError(
            f"{path}: line {reader.line_num}: not CSV: {error}; mend the row, where a double "
            "quote may be missing or not be doubled"
        ) from None


def _parquet_rows(
    path: Path, column: str, progress: OnBytesRead | None
) -> Iterator[tuple[str, str]]:
    import pyarrow
    from pyarrow import parquet

    with open_unpacked(path) as (raw, _):
        try:
            table = parquet.ParquetFile(raw, pre_buffer=False)
            if column not in table.schema_arrow.names:
                raise _no_column(str(path), column, table.schema_arrow.names)
            number = reported = 0
            size, n_rows = os.fstat(raw.fileno()).st_size, table.metadata.num_rows
            for rows in table.iter_batches(256, columns=[column], use_threads=False):
                for text in rows.column(0):
                    number += 1
                    where = f"{path}: row {number}"
                    yield where, _text_of(text.as_py(), where, column)
                if progress:
                    progress(size * number // n_rows - reported)
                    reported = size * number // n_rows
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: row {number}: `{column}` is not UTF-8: {error}; write the file again"
            ) from None
        except pyarrow.ArrowException as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: not a parquet file that can be read: {reason.rstrip('.')}; get it again"
            ) from None


def _no_column(where: str, column: str, columns: list[str]) -> UserError:
    there = ", ".join(f"`{name}`" for name in columns) or "none"
    return UserError(
        f"{where}: no column `{column}`; there is {there}; "
        "name the one with the text as the corpus's `text_column:`"
    )


def _text_of(value: Any, where: str, column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f"{where}: `{column}` is no text but {type(value).__name__}; mend it, or name what "
            "holds the text as the corpus's `text_column:`"
        )
    return value
