"""A file's content decides how it's read, whatever its name; only texts are accepted."""

import bz2
import codecs
import contextlib
import gzip
import io
import json
import lzma
import tarfile
import time
import zipfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nanogpt.config.corpora import Corpus
from nanogpt.data.opening import zstd
from nanogpt.data.sniffing import format_of
from nanogpt.errors import UserError
from nanogpt.files.signatures import is_json_object
from tests.data.reading import (
    FRENCH,
    GERMAN,
    complaint,
    csv_of,
    documents,
    jsonl,
    text_of,
    varied,
    write,
)

ROWS = jsonl({"text": "one"}, {"text": "two\nthree"})
PAGE = "<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n"
POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\n"
    "size 12345\n"
)
RTF = r"{\rtf1\ansi\deff0 {\fonttbl {\f0 Times;}}\f0\fs60 Hello!}"
NOTEBOOK = json.dumps({"cells": [{"source": ["x = 1"]}]}, indent=1)


def kind(path, **corpus):
    return format_of(path, Corpus(files=[str(path)], **corpus))


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(**members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data.encode())
            archive.addfile(info, io.BytesIO(data.encode()))
    return file.getvalue()


# Detection by content


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a", "a.ndjson", "A.JSON", "a.md"])
def test_json_lines_are_read_as_rows_under_any_name(tmp_path, name):
    assert documents(write(tmp_path / name, ROWS)) == ["one", "two\nthree"]
    assert documents(write(tmp_path / name, "\n\ufeff"[1:] + "\n" + ROWS)) == ["one", "two\nthree"]
    assert documents(write(tmp_path / f"{name}.gz", gzip.compress(ROWS.encode()))) == [
        "one",
        "two\nthree",
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_json_lines_in_other_encodings_are_recognised(tmp_path, encoding):
    assert documents(write(tmp_path / "a.json", ROWS.encode(encoding))) == ["one", "two\nthree"]


def test_a_long_first_row_of_json_lines_is_recognised(tmp_path):
    rows = [varied(FRENCH, 100_000), varied(GERMAN, 100_000)]
    data = jsonl(*({"text": row} for row in rows))
    assert documents(write(tmp_path / "c4.json.gz", gzip.compress(data.encode()))) == rows


@pytest.mark.parametrize(
    "text",
    [
        "{ a brace } begins this line\nand this is the second\n",
        "{}\n{ int x; }\n",
        '{"text": "one"}\nThis line explains the one above.\n',
        "[A stage. Enter two clowns.]\nFirst clown. Is she to be buried?\n",
        "%PD is no signature\n",
        "version https://example.org is what it says\n",
        "<p>A fragment of a page</p>\n",
        "BZh is how it begins\n",
        "PKs and other letters\n",
        "#!/bin/sh\necho hello\n",
        "% LaTeX\n\\documentclass{book}\n",
    ],
)
def test_a_text_can_start_with_anything(tmp_path, text):
    path = write(tmp_path / "a.txt", text * 3)
    assert kind(path) == "text"
    assert text_of(path) == text * 3


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
@settings(deadline=None)
def test_a_utf_8_text_is_read_unchanged_or_rejected_by_its_kind(scratch, text):
    path = write(scratch.with_suffix(".txt"), text)
    assume(not text.startswith("\ufeff"))
    assert text_of(path, format="text") == text
    try:
        assert kind(path) == "text" or is_json_object(text.splitlines()[0].encode())
    except UserError as error:
        assert "looks like" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("book.txt", PAGE, "a web page (HTML)"),
        ("book.txt", "\n\n  <html lang='en'>" + PAGE, "a web page (HTML)"),
        ("book.txt", "<!-- saved -->\n" + PAGE, "a web page (HTML)"),
        ("book.txt", codecs.BOM_UTF8 + PAGE.encode(), "a web page (HTML)"),
        ("book.txt", PAGE.encode("utf-16"), "a web page (HTML)"),
        ("book.csv", PAGE, "a web page (HTML)"),
        ("book.parquet", PAGE, "a web page (HTML)"),
        ("book.html", "<p>A fragment</p>", "a web page (HTML)"),
        ("book.HTM", "A text", "a web page (HTML)"),
        ("book.txt", POINTER, "a git-lfs pointer"),
        ("book.parquet", POINTER, "a git-lfs pointer"),
        ("book.jsonl", POINTER, "a git-lfs pointer"),
        ("book.txt", RTF, "RTF"),
        ("book.txt", b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n", "a PDF"),
        ("book.txt", "%!PS-Adobe-3.0\n", "PostScript"),
        ("book.txt", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Word or Excel file"),
        ("book.txt", b"\x89PNG\r\n\x1a\n" + bytes(99), "an image"),
        ("book.txt", b"\xff\xd8\xff\xe0JFIF", "an image"),
        ("book.txt", b"SQLite format 3\0" + bytes(99), "an SQLite database"),
        ("book.arrow", b"ARROW1\0\0" + bytes(99), "an Arrow file"),
        ("book.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive"),
        ("book.xml", "<book>text</book>", "XML"),
        ("book.txt", "<?xml version='1.0'?>\n<book>text</book>", "XML"),
        ("book.json", '[\n {"text": "one"},\n {"text": "two"}\n]\n', "a JSON array"),
        ("book.json", '["one", "two"]', "a JSON array"),
        ("book.txt", '[{"text": "one"}]', "a JSON array"),
        ("book.json", json.dumps({"text": "one"}, indent=2), "JSON that isn't JSON Lines"),
        ("book.json", "3", "JSON that isn't JSON Lines"),
        ("book.ipynb", NOTEBOOK, "JSON that isn't JSON Lines"),
    ],
)
def test_files_that_are_not_text_are_rejected_unless_format_is_text(tmp_path, name, data, what):
    path = write(tmp_path / name, data)
    message = complaint(path)
    assert f"looks like {what}" in message
    assert "or set `format: text`" in message
    assert kind(path, format="text") == "text"
    packed = write(tmp_path / f"{name}.gz", gzip.compress(path.read_bytes()))
    assert f"looks like {what}" in complaint(packed)


def test_markup_is_read_unchanged_if_format_is_text(tmp_path):
    assert text_of(write(tmp_path / "a.html", PAGE), format="text") == PAGE


@pytest.mark.parametrize("name", ["a.parquet", "a.txt", "a", "a.csv"])
def test_parquet_is_read_under_any_name(tmp_path, name):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["one", "two"]}), tmp_path / name)
    assert documents(tmp_path / name) == ["one", "two"]


def test_a_configured_format_is_not_checked_against_the_content(tmp_path):
    table = write(tmp_path / "a.txt", csv_of([["text", "id"], ["one", 1]]))
    assert documents(table, format="csv") == ["one"]
    assert text_of(write(tmp_path / "b.jsonl", ROWS), format="text") == ROWS


# Compressed files and archives


@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, zstd.compress, bz2.compress], ids=lambda f: f.__module__
)
@pytest.mark.parametrize("name", ["a.txt", "a", "a.bin"])
def test_a_compressed_file_is_decompressed_under_any_name(tmp_path, pack, name):
    assert text_of(write(tmp_path / name, pack(FRENCH.encode()))) == FRENCH


def test_a_file_compressed_twice_is_decompressed_twice(tmp_path):
    twice = gzip.compress(lzma.compress(FRENCH.encode()))
    assert text_of(write(tmp_path / "a.txt.gz", twice)) == FRENCH
    assert text_of(write(tmp_path / "b.gz", gzip.compress(gzip.compress(b"A text.")))) == "A text."


@pytest.mark.parametrize("name", ["a.txt.bz2", "a.txt.zstd", "a.TXT.BZ2"])
def test_other_suffixes_of_compressed_files_are_recognised(tmp_path, name):
    pack = zstd.compress if "zst" in name else bz2.compress
    assert text_of(write(tmp_path / name, pack(FRENCH.encode()))) == FRENCH


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"text8": FRENCH}, FRENCH),
        ({"book.txt": FRENCH, "cover.jpg": "x", "__MACOSX/._book.txt": "x"}, FRENCH),
        ({"book": FRENCH, "a/style.css": "x", "a/b.PNG": "x"}, FRENCH),
        ({"a/b/book.txt": FRENCH, ".DS_Store": "x"}, FRENCH),
        ({"rows.jsonl": ROWS}, "onetwo\nthree"),
    ],
)
def test_an_archive_of_one_text_reads_like_the_text(tmp_path, members, text):
    archives = {
        "a.zip": zipped(**members),
        "a.tar": tarred(**members),
        "a.tar.gz": gzip.compress(tarred(**members)),
        "a.tgz": gzip.compress(tarred(**members)),
        "a.tar.xz": lzma.compress(tarred(**members)),
    }
    for name, data in archives.items():
        assert text_of(write(tmp_path / name, data)) == text


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_of_several_texts_needs_a_member(tmp_path, pack):
    path = write(tmp_path / "a.zip", pack(**{f"{n}.txt": f"text {n}" for n in range(5)}))
    message = complaint(path)
    assert "an archive of 5 files (0.txt, 1.txt, 2.txt, ...); set the corpus's `member:`" in message
    assert text_of(path, member="3.txt") == "text 3"
    assert "no file `9.txt` in this archive of 5 files" in complaint(path, member="9.txt")


@pytest.mark.parametrize(
    "members", [("README.md", "enwik8"), ("LICENSE.txt", "a.html"), ("a.txt", "b.csv")]
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_no_text_in_an_archive_is_skipped_silently(tmp_path, pack, members):
    path = write(tmp_path / "a.zip", pack(**dict.fromkeys(members, FRENCH)))
    assert f"2 files ({', '.join(members)}); set the corpus" in complaint(path)


def test_an_archive_in_a_stream_of_several_parts_is_recognised(tmp_path):
    tar = tarred(**{"a.txt": FRENCH})
    for pack, name in ((gzip.compress, "a.tar.gz"), (lzma.compress, "a.tar.xz")):
        path = write(tmp_path / name, pack(tar[:100]) + pack(tar[100:]))
        assert text_of(path) == FRENCH


def test_a_compressed_member_of_an_archive_is_decompressed(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.jsonl.gz", gzip.compress(ROWS.encode()))
    assert documents(write(tmp_path / "a.zip", packed.getvalue())) == ["one", "two\nthree"]


def test_compressed_parquet_is_an_error(tmp_path):
    path = write(tmp_path / "a.parquet.gz", gzip.compress(b"PAR1" + bytes(99)))
    assert "a compressed parquet file; decompress it" in complaint(path)


@pytest.mark.parametrize("place", range(4, 60))
def test_an_archive_with_a_wrong_byte_is_read_or_a_one_line_error(tmp_path, place):
    data = bytearray(zipped(**{"é.txt": FRENCH}))
    for offset in (place, len(data) - place):
        damaged = bytearray(data)
        damaged[offset] ^= 0xFF
        path = write(tmp_path / "a.zip", bytes(damaged))
        with contextlib.suppress(UserError):
            assert text_of(path) in (FRENCH, data.decode("latin-1"))


def test_hundreds_of_comments_at_the_start_take_no_time(tmp_path):
    text = "<!--- Licensed to you -->\n" * 400 + "# A book\n"
    began = time.monotonic()
    assert text_of(write(tmp_path / "a.md", text)) == text
    assert time.monotonic() - began < 2


def test_a_member_of_a_file_that_is_not_an_archive_is_an_error(tmp_path):
    assert "not an archive" in complaint(write(tmp_path / "a.txt", FRENCH), member="b.txt")


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"[Content_Types].xml": "", "word/document.xml": "x"}, "a Word, Excel or PowerPoint file"),
        ({"mimetype": "", "META-INF/container.xml": "x"}, "an e-book (EPUB)"),
        ({"mimetype": "", "META-INF/manifest.xml": "x"}, "an OpenDocument file"),
        ({}, "an archive of 0 files"),
    ],
)
def test_office_documents_and_e_books_are_rejected_by_their_kind(tmp_path, members, what):
    assert what in complaint(write(tmp_path / "book.txt", zipped(**members)))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.txt.bz2"])
def test_a_damaged_archive_is_a_one_line_error(tmp_path, name, share):
    text = varied(FRENCH, 100_000)
    data = {
        "a.zip": zipped(**{"a.txt": text}),
        "a.tar.gz": gzip.compress(tarred(**{"a.txt": text})),
        "a.txt.bz2": bz2.compress(text.encode()),
    }[name]
    complaint(write(tmp_path / name, data[: int(share * len(data))]))


def test_an_encrypted_archive_is_an_error(tmp_path):
    data = bytearray(zipped(**{"a.txt": FRENCH}))
    data[6] |= 1  # the encryption flag, in both headers
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "unpack it by hand" in complaint(write(tmp_path / "a.zip", bytes(data)))
