"""Raw text: local files found, their encoding decided, their text read as a stream.

A text is read in pieces of bounded size, whatever the size of its file; only a row of a table
(JSONL, parquet, CSV), which is a document, is held as a whole. How a corpus comes to this machine
is left to download.py; what becomes of the text, to prepare.py.
"""

import codecs
import csv
import glob
import gzip
import io
import itertools
import json
import logging
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from nanogpt.config.schema import Corpus
from nanogpt.errors import UserError, plural

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

logger = logging.getLogger(__name__)

DOWNLOADS = Path("resources/corpora")

PIECE = 1 << 18  # bytes of a file that are decoded at once

# What is taken from a directory. A file that is named may have any name, and be plain text.
KINDS = (".txt", ".jsonl", ".ndjson", ".csv", ".parquet")
TABLES = KINDS[1:]
COMPRESSIONS = (".gz", ".zst", ".xz")

# UTF-32's little-endian mark begins with UTF-16's, so UTF-32 comes first.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLES = 16  # places of a file that its encoding is decided on
SAMPLE = 16384  # bytes at each
SCANNED = 1 << 24  # bytes of a compressed file that the places are spread over
# Bytes below 0x30 are inside no character of any multi-byte encoding: a cut there splits none.
INSIDE_CHARACTERS = bytes(range(0x30, 0x100))
ASCII = bytes(range(0x80))
# What has the form of UTF-8, surrogates included.
UTF8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)

# What Western European languages write beside ASCII. In cp1250, Polish and Czech would have others.
WESTERN = set(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŒßàáâãäåæçèéêëìíîïñòóôõöøùúûüœÿ¡¿«»‘’‚“”„–—…·•§©®™°ªº½²€£¢\xa0"  # noqa: RUF001
)

# Called with how many more bytes of a file were read.
Progress = Callable[[int], object]


def find_files(name: str, corpus: Corpus) -> list[Path]:
    """The files of a corpus, in the order in which they are read.

    A directory and a pattern give theirs sorted by path. A download need not be there yet.

    Errors: UserError where nothing is found, and for a pattern that leads out of the project.
    """
    if corpus.builtin:
        return [DOWNLOADS / name / "input.txt"]
    if corpus.url:
        return [DOWNLOADS / name / file for file in corpus.downloads]
    found: dict[Path, None] = {}
    for entry in corpus.files:
        try:
            files = _expand(entry)
        except OSError as error:
            raise UserError(f"corpora.{name}.files: {error.filename}: {error.strerror}") from None
        except UserError as error:
            raise UserError(f"corpora.{name}.files: {error}") from None
        found.update(dict.fromkeys(files))
    return list(found)


def _expand(entry: str) -> list[Path]:
    path = Path(entry)
    if path.is_dir():
        files = sorted(_files_below(path))
        if not files:
            raise UserError(
                f"there is no {', '.join(KINDS)} file in the directory {entry}; put texts there, "
                "or name a file of it, whatever its name"
            )
        return files
    if path.is_file():
        return [path]
    if not glob.has_magic(entry):
        raise UserError(f"there is no file {entry}; put it there or correct the path")
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"the pattern {entry} leads out of the project, where a slip may search a whole disk; "
            "name a directory instead, or link the texts into resources/"
        )
    # Not pathlib's, which takes hidden files and refuses some patterns.
    paths = map(Path, glob.glob(entry, recursive=True))  # noqa: PTH207
    matches = [path for path in paths if path.is_file()]
    if not matches:
        raise UserError(f"no file matches the pattern {entry}; put texts there or correct it")
    return sorted(matches)


def _files_below(directory: Path) -> Iterator[Path]:
    """What of a directory is a corpus' file, by its name; hidden ones are none."""

    def fail(error: OSError) -> None:
        raise error

    walked = set()  # links may lead in a circle
    for root, directories, names in os.walk(directory, onerror=fail, followlinks=True):
        if (place := os.path.realpath(root)) in walked:
            directories.clear()
            continue
        walked.add(place)
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            if _kind(path) in KINDS and not name.startswith("."):
                if not path.exists():
                    raise UserError(f"{path}: a link to nothing; mend or remove it")
                yield path


def read_text(path: Path) -> str:
    """The text of a small file of no corpus, such as a prompt's: UTF-8, with or without a mark.

    Errors: UserError for what cannot be read, and for other encodings.
    """
    with _opened(path) as (raw, _):
        data = raw.read()
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start + data.startswith(codecs.BOM_UTF8) * len(codecs.BOM_UTF8)
        raise UserError(
            f"{path}: not UTF-8: byte 0x{data[start]:02x} at offset {start}; convert it"
        ) from None


def texts(
    path: Path, corpus: Corpus, encoding: str, progress: Progress | None = None
) -> Iterator[tuple[str, bool]]:
    """The documents of a file, in pieces: (text, whether a document ends with it).

    A row of a .jsonl, .parquet or .csv file is a document, empty ones left out; any other file is
    one. Only the last piece of a document can be empty. encoding: what `decide_encoding` said.

    Errors: UserError for what cannot be read, bytes that do not fit, and where there is no text.
    """
    kind = _kind(path)
    if kind not in TABLES:
        yield from _whole(path, _decoded(path, corpus, encoding, progress))
        return
    if kind == ".parquet":
        rows = _parquet_rows(path, corpus.text_column, progress)
    else:
        lines = _lines(_decoded(path, corpus, encoding, progress))
        read_rows = _csv_rows if kind == ".csv" else _jsonl_rows
        rows = read_rows(path, lines, corpus.text_column)
    n_documents = 0
    for where, row in rows:
        text = row
        if corpus.newlines == "lf":
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if text:
            yield _without_surrogates(text, corpus.errors, where), True
            n_documents += 1
    if not n_documents:
        raise UserError(f"{path}: no document in it; put texts there or take it out of the corpus")


def _kind(path: Path) -> str:
    """The suffix that tells a file's format, without that of its compression."""
    path = Path(path.name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix


def _whole(path: Path, pieces: Iterable[str]) -> Iterator[tuple[str, bool]]:
    empty = True
    for piece in pieces:
        empty = False
        yield piece, False
    if empty:
        raise UserError(f"{path}: empty; put a text there, or take it out of the corpus")
    yield "", True


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A file as it lies on the disk, and what it holds once unpacked."""
    suffix = path.suffix.lower()
    try:
        with open(path, "rb") as raw:
            if suffix == ".gz":
                yield raw, cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            elif suffix == ".xz":
                yield raw, cast(BinaryIO, lzma.LZMAFile(raw))  # noqa: SIM115
            elif suffix == ".zst":
                yield raw, cast(BinaryIO, zstd.ZstdFile(raw))
            else:
                yield raw, raw
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put a text there or correct the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a directory; name a text file in it") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it; try `chmod a+r {path}`") from None
    except (EOFError, lzma.LZMAError, zlib.error, zstd.ZstdError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not of what unpacks
            raise UserError(
                f"{path}: cannot be read: {error.strerror}; correct the path, or get it again"
            ) from None
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: cannot be read to its end: {reason}; it may be cut short or damaged: "
            "get it again"
        ) from None


def _decoded(path: Path, corpus: Corpus, encoding: str, progress: Progress | None) -> Iterator[str]:
    """The text of a file in pieces, none empty."""
    decoder = codecs.getincrementaldecoder(encoding)(corpus.errors)
    line_feeds = io.IncrementalNewlineDecoder(None, translate=True)
    offset = reported = 0
    with _opened(path) as (raw, file):
        while True:
            data = file.read(PIECE)
            offset += len(data)
            if progress:
                progress(raw.tell() - reported)
                reported = raw.tell()
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                # What the decoder was at ends where the data end.
                start = offset - len(error.object) + error.start
                byte = f"byte 0x{error.object[error.start]:02x} at offset {start}"
                raise _misfit(path, encoding, f"{byte} does not fit ({error.reason})") from None
            except UnicodeError as error:  # there is no byte order mark
                flaw = f"{error}: name {encoding}-le or {encoding}-be"
                raise _misfit(path, encoding, flaw) from None
            if "\0" in text and corpus.errors == "strict":
                raise _binary(path)
            text = text.replace("\0", "\ufffd")
            if corpus.newlines == "lf":
                text = line_feeds.decode(text, final=not data)
            if text:
                yield _without_surrogates(text, corpus.errors, str(path))
            if not data:
                return


def _misfit(path: Path, encoding: str, flaw: str) -> UserError:
    return UserError(
        f"{path}: not {encoding}: {flaw}; convert the file to UTF-8, name the right encoding as "
        "its corpus's `encoding:`, or say `errors: replace` there"
    )


def _binary(path: Path) -> UserError:
    return UserError(
        f"{path}: binary, not text: it has zero bytes, or no encoding's form; if it is text, name "
        "its corpus's `encoding:` (as UTF-16 without a byte order mark needs), and say "
        "`errors: replace` to take zero bytes"
    )


def _without_surrogates(text: str, errors: str, where: str) -> str:
    """A text that is one: JSON, UTF-7 and others let halves of a pair of UTF-16 pass."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if errors == "replace":
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        raise UserError(
            f"{where}: a lone surrogate, U+{ord(text[error.start]):04X}, which is no character; "
            "mend the text or say `errors: replace` of its corpus"
        ) from None
    return text


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


def _parquet_rows(path: Path, column: str, progress: Progress | None) -> Iterator[tuple[str, str]]:
    import pyarrow
    from pyarrow import parquet

    with _opened(path) as (raw, _):
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


def decide_encoding(path: Path, corpus: Corpus) -> str:
    """Python's name of a file's encoding: the one that its corpus names, or the likeliest.

    `auto` believes a byte order mark. Else it looks at a few places spread over the file: if they
    are UTF-8, even in part, it is UTF-8, and reading ends at the first byte that does not fit;
    otherwise it guesses, and logs the guess. Encodings of 7 bits (UTF-7, ISO-2022, HZ) pass for
    ASCII. A named encoding is taken at its word: `utf-8-sig` drops a mark, `utf-8` leaves it as
    U+FEFF. Parquet is UTF-8.

    Errors: UserError for a file that cannot be read or is binary.
    """
    if _kind(path) == ".parquet":
        return "utf-8"
    if corpus.encoding != "auto":
        return codecs.lookup(corpus.encoding).name
    sample = _sample(path)
    for mark, codec in BYTE_ORDER_MARKS:
        if sample[0].startswith(mark):
            return codec
    if any(b"\0" in part for part in sample):
        raise _binary(path)
    return _likeliest(b"\n".join(sample), path)


def _sample(path: Path) -> list[bytes]:
    """Bytes at places spread over a file; if they are all ASCII, then where some are not."""
    with _opened(path) as (raw, file):
        size = os.fstat(raw.fileno()).st_size
        if file is not raw:  # no going back in a compressed file
            file = io.BytesIO(file.read(SCANNED))
            size = len(file.getbuffer())
        if size <= SAMPLES * SAMPLE:
            return [file.read()]
        places = [number * (size - SAMPLE) // (SAMPLES - 1) for number in range(SAMPLES)]
        parts = [_part(file, place, size) for place in places]
        if all(map(bytes.isascii, parts)):
            not_ascii = itertools.islice(_first_not_ascii(file), SAMPLES)
            parts += [_part(file, max(0, place - SAMPLE // 2), size) for place in not_ascii]
        return parts


def _first_not_ascii(file: BinaryIO) -> Iterator[int]:
    """Where the first byte is that is not ASCII, in each piece of a file that has one."""
    offset = 0
    while True:
        file.seek(offset)  # whoever takes what is yielded reads elsewhere
        data = file.read(PIECE)
        if not data:
            return
        if not data.isascii():
            yield offset + len(data) - len(data.lstrip(ASCII))
        offset += len(data)


def _part(file: BinaryIO, place: int, size: int) -> bytes:
    """SAMPLE bytes of a file, less what may be a part of a character at either end."""
    file.seek(place)
    part = file.read(SAMPLE)
    whole = part if place == 0 else part.lstrip(INSIDE_CHARACTERS)
    whole = whole if place + SAMPLE >= size else whole.rstrip(INSIDE_CHARACTERS)
    return whole or part


def _likeliest(sample: bytes, path: Path) -> str:
    # Bytes that are not ASCII, of lines that have the form of UTF-8 or not, or have it for certain.
    in_form = out_of_form = certain = 0
    for line in sample.split(b"\n"):
        n_bytes = len(line.translate(None, ASCII))
        sequences = UTF8_SEQUENCE.findall(line)
        n_formed = sum(map(len, sequences))
        # Bad bytes in UTF-8, where a guess would spoil all the good ones, are few. Other encodings
        # have its form by accident, at most about half of a line (measured: Japanese in EUC-JP).
        if n_formed > 0.75 * n_bytes:
            in_form += n_bytes
        else:
            out_of_form += n_bytes
        if n_formed == n_bytes and len(sequences) > 3:
            certain += n_bytes
    # A line of a letter or two can be UTF-8 by accident (Chinese in GBK: one letter in seven).
    is_utf8 = in_form >= 0.2 * out_of_form or certain > 0.02 * out_of_form
    return "utf-8" if is_utf8 else _guess(sample, path)


def _guess(sample: bytes, path: Path) -> str:
    codec = "cp1252" if _is_western(sample) else _resembling(sample, path)
    logger.warning(
        "%s: not UTF-8; taken for %s, a guess: if letters are wrong, name its `encoding:`",
        path,
        codec,
    )
    return codec


def _is_western(sample: bytes) -> bool:
    """Whether a text is, in cp1252, English or another Western language.

    By far the commonest of old encodings; too few of its letters are not ASCII for the statistics
    of `_resembling`, which take French for Baltic.
    """
    letters = sample.translate(None, ASCII)
    try:
        decoded = letters.decode("cp1252")
    except UnicodeDecodeError:
        return False
    share = len(letters) / len(sample)
    return share < 0.02 or (share < 0.15 and set(decoded) <= WESTERN)


def _resembling(sample: bytes, path: Path) -> str:
    import charset_normalizer

    matches = charset_normalizer.from_bytes(sample)
    best = matches.best()
    if best is None:
        raise _binary(path)
    # Ties are listed by name, cp1250 before cp1252.
    tied = [m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
    western = any("cp1252" in match.could_be_from_charset for match in tied)
    return codecs.lookup("cp1252" if western else best.encoding).name
