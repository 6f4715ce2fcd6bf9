"""Any files become a correct dataset or a one-line error, never a traceback."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import time
import zipfile

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.batches import load
from nanogpt.data.opening import zstd
from nanogpt.data.preparing import prepare
from nanogpt.data.sources import find_files
from nanogpt.errors import LONGEST_MESSAGE, UserError
from tests.data.reading import csv_of

# The duration of the long test in seconds, and the limit for a single file.
LONG = float(os.environ.get("NANOGPT_ANYTHING_SECONDS", "60"))
LONGEST = 10

SUFFIXES = [
    *("", ".txt", ".TXT", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".html", ".xml"),
    *(".txt.gz", ".csv.bz2", ".jsonl.zst", ".txt.xz", ".zip", ".tar", ".pdf", ".gz"),
]
BEGINNINGS = [
    *(b"", b"{", b'{"text": "', b"[{", b"text,id\n", b"text;id\n", b"<html>", b"%PDF-", b"PAR1"),
    *(b"PK\x03\x04", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"{\\rtf"),
]
LETTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(LETTERS, max_size=200)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "cp1252", "shift_jis", "gb18030", "latin-1"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ROWS = st.lists(
    st.dictionaries(st.sampled_from(["text", "id", "a.b", ""]) | TEXT, VALUES | TEXT, max_size=3),
    max_size=12,
)


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table_of(rows, delimiter):
    return csv_of([["text", "id"], *rows], delimiter=delimiter).encode()


def parquet_of(rows):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = io.BytesIO()
    try:
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):  # of other types
        return b"PAR1"
    return file.getvalue()


def zip_of(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


PLAIN = st.one_of(
    st.binary(max_size=600),
    st.builds(bytes.__add__, st.sampled_from(BEGINNINGS), st.binary(max_size=200)),
    st.builds(
        lambda text, encoding: (text * 9).encode(encoding, "replace"),
        TEXT,
        st.sampled_from(ENCODINGS),
    ),
    st.builds(lines_of, ROWS),
    st.builds(parquet_of, ROWS),
    st.builds(table_of, st.lists(st.tuples(TEXT, TEXT)), st.sampled_from(",;\t|")),
)
PACK = st.sampled_from([gzip.compress, lzma.compress, bz2.compress, zstd.compress])
MEMBERS = st.dictionaries(st.sampled_from(["a.txt", "b.csv", "c", ".d", "e/f.txt"]), PLAIN)
CONTENT = st.one_of(
    PLAIN,
    st.builds(lambda pack, data: pack(data), PACK, PLAIN),
    st.builds(lambda pack, data, end: pack(data)[:end], PACK, PLAIN, st.integers(0, 90)),
    st.builds(zip_of, MEMBERS),
)
NAMES = st.builds(
    str.__add__,
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=8),
    st.sampled_from(SUFFIXES),
).filter(lambda name: name not in ("", ".", ".."))

CORPORA = st.fixed_dictionaries(
    {},
    optional={
        "format": st.sampled_from(["auto", "text", "jsonl", "csv", "tsv", "parquet"]),
        "encoding": st.sampled_from(["auto", *ENCODINGS]),
        "errors": st.sampled_from(["strict", "replace"]),
        "newlines": st.sampled_from(["keep", "lf"]),
        "rows": st.sampled_from(["documents", "joined"]),
        "missing": st.sampled_from(["error", "skip"]),
        "text_column": st.sampled_from(["text", "a.b", "id"]),
        "delimiter": st.sampled_from(["auto", ",", "x"]),
    },
)
DATASETS = st.fixed_dictionaries(
    {},
    optional={
        "tokenizer": st.sampled_from(["char", "byte", "bpe"]),
        "vocab_size": st.just(260),
        "val_ratio": st.sampled_from([0.1, 0.5]),
        "split": st.sampled_from(["auto", "position", "document", "last_file"]),
        "separator": st.sampled_from(["\n", "|", ""]),
    },
)


def prepare_anything(directory, files, corpus, dataset):
    """Prepare files with any names and contents, as a directory and one by one."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "texts").mkdir(parents=True)
    for name, data in files.items():
        (directory / "texts" / name).write_bytes(data)
    for entries in (["texts"], [f"texts/{name}" for name in files]):
        settings = Corpus(files=[str(directory / entry) for entry in entries], **corpus)
        began = time.monotonic()
        try:
            found = find_files("any", settings)
            prepare(found, settings, Dataset(**dataset), directory / "made")
        except UserError as error:
            message = str(error)
            assert len(message.splitlines()) == 1
            assert len(message) < LONGEST_MESSAGE + 10
        else:
            made = load(directory / "made")
            assert min(len(made.train), len(made.val)) >= 2
            check_text(made, files, settings)
        assert time.monotonic() - began < LONGEST


def check_text(made, files, corpus):
    """A single UTF-8 text survives unchanged."""
    (data,) = files.values() if len(files) == 1 else [b""]
    if corpus.format != "text" or corpus.encoding not in ("auto", "utf-8") or not data:
        return
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    if corpus.newlines == "keep" and "\0" not in text and not text.startswith("\ufeff"):
        joined = made.tokenizer.to_bytes([*made.train, *made.val]).decode("utf-8", "replace")
        assert joined == text


@given(st.dictionaries(NAMES, CONTENT, min_size=1, max_size=3), CORPORA, DATASETS)
@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
def test_any_files_become_a_dataset_or_a_one_line_error(scratch, files, corpus, dataset):
    prepare_anything(scratch.parent / "anything", files, corpus, dataset)


@pytest.mark.slow
def test_any_files_become_a_dataset_or_a_one_line_error_for_a_minute(scratch):
    end = time.monotonic() + LONG
    number = 0
    while time.monotonic() < end:
        number += 1

        @seed(number)
        @given(st.dictionaries(NAMES, CONTENT, min_size=1, max_size=3), CORPORA, DATASETS)
        @settings(
            deadline=None,
            max_examples=200,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def try_files(files, corpus, dataset):
            prepare_anything(scratch.parent / "anything", files, corpus, dataset)

        try_files()
