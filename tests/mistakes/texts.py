"""Files of a corpus that don't exist or aren't text."""

import gzip
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow
from pyarrow import parquet

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.pieces import Group
from nanogpt.data.preparing import count, encode, plan_dataset
from tests.mistakes.base import TEXT, Mistake, code, in_turn, workflow, write_files
from tests.mistakes.materials import BOOK, prepare_book


def text(
    title: str,
    shown: str,
    content: bytes | str,
    message: str,
    *,
    name: str = "book.txt",
    dataset: Mapping[str, object] | None = None,
    **corpus: object,
) -> Mistake:
    """A corpus file that isn't readable text. corpus, dataset: their settings."""
    return Mistake(
        title, shown, lambda: prepare_book({name: content}, corpus, **(dataset or {})), message
    )


def absent(title: str, files: str, message: str, *there: str) -> Mistake:
    """Files of a corpus that don't exist. there: files that do."""
    return Mistake(
        title,
        code(f"corpora: {{book: {{files: {files}}}}}"),
        lambda: prepare_book(dict.fromkeys(there, TEXT), {"files": files}),
        message,
    )


def parquet_bytes(columns: Mapping[str, list[object]]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(columns)), file)
    return file.getvalue()


def zip_bytes(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return file.getvalue()


def link_to_nothing() -> None:
    write_files({"texts/a.txt": TEXT})
    Path("texts/b.txt").symlink_to("nowhere.txt")
    prepare_book({}, {"files": ["texts/b.txt"]})


def edit_while_prepared() -> None:
    write_files({"book.txt": TEXT})
    corpus, dataset = Corpus(files=["book.txt"]), Dataset()
    counts = count([Path("book.txt")], corpus)
    plan, tokenizer = plan_dataset([counts], corpus, dataset)
    write_files({"book.txt": TEXT + TEXT})
    encode(Group(counts, plan, 0, corpus, dataset), tokenizer, BOOK)


TEXTS = [
    absent(
        "a missing text",
        "book.txt",
        "corpora.book.files: book.txt: no such file; put a text there or correct the path",
    ),
    absent(
        "a pattern that matches nothing",
        "texts/*.txt",
        "corpora.book.files: texts/*.txt: no file matches this pattern; put texts there or "
        "correct the pattern",
    ),
    absent(
        "a pattern that leaves the project",
        "../texts/*.txt",
        "corpora.book.files: ../texts/*.txt: this pattern leaves the project, where a typo "
        "could search a whole disk; name a directory instead, or link the texts into resources/",
    ),
    absent(
        "a directory without texts",
        "texts",
        "corpora.book.files: texts: this directory has no .txt, .md, .jsonl, .ndjson, .csv, "
        ".tsv, .parquet file (found 1 .jpg); put texts there, or name files in it one by one, "
        "which can have any suffix",
        "texts/cover.jpg",
    ),
    Mistake(
        "a broken link",
        "`texts/b.txt`, a link to a deleted file",
        link_to_nothing,
        "corpora.book.files: texts/b.txt: a broken link; fix it or name a file",
    ),
    Mistake(
        "a pipe",
        "`files: book.txt`, made by `mkfifo`",
        in_turn(lambda: os.mkfifo("book.txt"), lambda: prepare_book({}, {"files": "book.txt"})),
        "corpora.book.files: book.txt: a pipe or a device, which can't be read twice; name a file",
    ),
    Mistake(
        "a name that isn't UTF-8",
        "`texts/café.txt` with its name in Latin-1",
        lambda: prepare_book(
            {f"texts/{os.fsdecode(b'caf' + bytes([0xE9]))}.txt": TEXT}, {"files": "texts"}
        ),
        "corpora.book.files: texts/caf\\udce9.txt: its name isn't UTF-8; rename it, for example "
        "with `convmv`",
    ),
    absent(
        "a URL under files",
        "https://example.org/book.txt",
        "corpora.book.files: https://example.org/book.txt: a URL, not a file; put it under "
        "`url:` instead of `files:`",
    ),
    workflow(
        "braces in the name of a text",
        "`texts/{a}.txt`",
        "results/datasets/book/meta.json",
        "corpora.book.files: texts/{a}.txt: Snakemake treats braces in a name as "
        "wildcards; rename the file",
        "texts/{a}.txt",
    ),
    text(
        "an empty text",
        "`book.txt` with 0 bytes",
        b"",
        "book.txt: no text in it; add text or use another file",
    ),
    text(
        "a text too short to split",
        "`book.txt` of 4 characters",
        b"text",
        "book.txt: 4 characters in total, too few for `val_ratio: 0.1`: the val split "
        "would get 1 token; add text, or change the dataset's `val_ratio:` or `split:`",
    ),
    text(
        "a web page",
        "`book.txt` that is an HTML page",
        "<!DOCTYPE html>\n<html><body>Not found</body></html>\n",
        "book.txt: looks like a web page (HTML); save its text, or use the URL of the plain "
        "text, or set `format: text` for its corpus to read it as it is",
    ),
    text(
        "a PDF",
        "`book.txt` that is a PDF",
        b"%PDF-1.4\n1 0 obj\n",
        "book.txt: looks like a PDF; convert it to plain text, for example with pdftotext, or "
        "set `format: text` for its corpus to read it as it is",
    ),
    text(
        "a git-lfs pointer",
        "`book.txt` from a clone without git-lfs",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "book.txt: looks like a git-lfs pointer instead of the file; get the file with `git lfs "
        "pull`, or set `format: text` for its corpus to read it as it is",
    ),
    text(
        "a JSON array",
        code('[{"text": "one"}]'),
        '[{"text": "one"}]',
        "book.json: looks like a JSON array; write one object per line (JSON Lines), for "
        "example with `jq -c '.[]' FILE`, or set `format: text` for its corpus to read it as it "
        "is",
        name="book.json",
    ),
    text(
        "JSON over several lines",
        "`book.json` with one object over several lines",
        '{\n  "text": "one"\n}\n',
        "book.json: looks like JSON that isn't JSON Lines; write one object per line, for "
        "example with `jq -c . FILE`, or set `format: text` for its corpus to read it as it is",
        name="book.json",
    ),
    text(
        "an archive of several texts",
        "`books.zip` with `a.txt` and `b.txt`",
        zip_bytes("a.txt", "b.txt"),
        "books.zip: an archive of 2 files (a.txt, b.txt); set the corpus's `member:` to one of "
        "them, or unpack the archive and name the directory",
        name="books.zip",
    ),
    text(
        "a file that is not in the archive",
        "`member: c.txt` of `books.zip` with `a.txt` and `b.txt`",
        zip_bytes("a.txt", "b.txt"),
        "books.zip: no file `c.txt` in this archive of 2 files (a.txt, b.txt); correct the "
        "corpus's `member:`",
        name="books.zip",
        member="c.txt",
    ),
    text(
        "a Word document",
        "`book.txt` that is really a .docx",
        zip_bytes("[Content_Types].xml", "word/document.xml"),
        "book.txt: a Word, Excel or PowerPoint file, not text; save it as plain text",
    ),
    text(
        "a program",
        "`book.txt` that is really a program",
        b"\x7fELF\x02\x01\x01\0\0\0",
        "book.txt: looks like a program; remove it from the corpus, or set `format: text` for "
        "its corpus to read it as it is",
    ),
    text(
        "another binary file",
        "`book.txt` with bytes that aren't text",
        b"\x01\x02\xff\0\0\0",
        "book.txt: a binary file: it has zero bytes or fits no known encoding; if it is text, "
        "set the corpus's `encoding:` (needed for UTF-16 without a byte order mark), or set "
        "`errors: replace` to accept zero bytes",
    ),
    text(
        "a text shorter than its splits",
        "`train_bytes: 1000` of `book.txt` with 300 bytes",
        b"x" * 300,
        "book.txt: 300 bytes in total, too few for the dataset's `train_bytes` and `val_bytes`; "
        "lower them or add text",
        dataset={"train_bytes": 1000},
    ),
    text(
        "a last-file split of a single file",
        "`split: last_file` of `book.txt`",
        TEXT,
        "book.txt: `split: last_file` validates on this file and trains on those before it, but "
        "one of the two has no text; add text, or change the dataset's `split:`",
        dataset={"split": "last_file"},
    ),
    text(
        "filters that leave out every document",
        "`min_characters: 1000` of `book.txt` with 300 characters",
        b"x" * 300,
        "book.txt: the dataset's settings leave out every document (1 by `min_characters`); change "
        "the settings or add text",
        dataset={"min_characters": 1000},
    ),
    Mistake(
        "filters that leave out the validation file",
        "`split: last_file` and `max_characters: 100` of `book.txt` with 300 characters",
        lambda: prepare_book(
            {"a.txt": "Some text.", "book.txt": "x" * 300},
            {"files": ["a.txt", "book.txt"]},
            split="last_file",
            max_characters=100,
        ),
        "book.txt: the dataset's settings leave out every document of the last file (1 by "
        "`max_characters`): nothing to validate on; change the settings or add text",
    ),
    Mistake(
        "duplicates that leave out all training text",
        "`split: last_file` and `deduplicate: exact` of `a.txt` and `book.txt` with the same text",
        lambda: prepare_book(
            {"a.txt": TEXT, "book.txt": TEXT},
            {"files": ["a.txt", "book.txt"]},
            split="last_file",
            deduplicate="exact",
        ),
        "a.txt: the dataset's settings leave out every document before the last file (1 by "
        "`deduplicate`): nothing to train on; change the settings or add text",
    ),
    Mistake(
        "filters that leave too few documents",
        "`split: document` and `max_characters: 100` of `a.txt`, and of `book.txt` with 300 "
        "characters",
        lambda: prepare_book(
            {"a.txt": "Some text.", "book.txt": "x" * 300},
            {"files": ["a.txt", "book.txt"]},
            split="document",
            max_characters=100,
        ),
        "a.txt: 1 document left (1 of 2 documents left out by `max_characters`): none for the "
        "train split; add documents, or set the dataset's `split: position`",
    ),
    text(
        "zero bytes in a text",
        "`book.txt` with a zero byte",
        b"a\0b" + TEXT.encode(),
        "book.txt: a binary file: it has zero bytes or fits no known encoding; if it is text, "
        "set the corpus's `encoding:` (needed for UTF-16 without a byte order mark), or set "
        "`errors: replace` to accept zero bytes",
        encoding="utf-8",
    ),
    text(
        "UTF-16 without a byte order mark",
        "`encoding: utf-16`",
        TEXT.encode("utf-16-le"),
        "book.txt: not valid utf-16 (UTF-16 stream does not start with BOM, so use `utf-16-le` "
        "or `utf-16-be`); convert the file to UTF-8, set the corpus's `encoding:` to the right "
        "one, or set `errors: replace` to replace invalid bytes",
        encoding="utf-16",
    ),
    text(
        "the wrong encoding",
        "`encoding: utf-8` for a text in Latin-1",
        ("Käse. " + TEXT).encode("latin-1"),
        "book.txt: not valid utf-8 (byte 0xe4 at offset 1: invalid continuation byte); convert "
        "the file to UTF-8, set the corpus's `encoding:` to the right one, or set `errors: "
        "replace` to replace invalid bytes",
        encoding="utf-8",
    ),
    text(
        "an invalid byte in UTF-8",
        "`book.txt` that ends with a byte 0xff",
        ("Käse. " * 20).encode() + b"\xff",
        "book.txt: not valid utf-8 (byte 0xff at offset 140: invalid start byte); convert the "
        "file to UTF-8, set the corpus's `encoding:` to the right one, or set `errors: replace` "
        "to replace invalid bytes",
    ),
    text(
        "the wrong sha256 of a text",
        "`sha256:` of another file",
        TEXT,
        "book.txt: wrong sha256: expected "
        "0000000000000000000000000000000000000000000000000000000000000000, found "
        "30a2bfe5d42666cd3dbc89b25f95b842997f9fe33d3d9f5af861e9241f6647f7; correct `sha256:` in "
        "config.yaml, or delete a downloaded file to get a new copy",
        sha256=64 * "0",
    ),
    text(
        "a truncated .gz",
        "`book.txt.gz` cut in half",
        gzip.compress(TEXT.encode())[:40],
        "book.txt.gz: truncated or damaged: Compressed file ended before the end-of-stream "
        "marker was reached; get a new copy",
        name="book.txt.gz",
    ),
    text(
        "a .gz that isn't one",
        "`book.txt.gz` that is really a text",
        TEXT,
        "book.txt.gz: not compressed, despite its name; rename it without `.gz`",
        name="book.txt.gz",
    ),
    text(
        "a line that is not JSON",
        code('{"text": }'),
        '{"text": }',
        "book.jsonl: line 1: not JSON: Expecting value (character 10); fix or remove the line",
        name="book.jsonl",
    ),
    text(
        "a line that isn't a JSON object",
        code('["text"]'),
        '["text"]',
        'book.jsonl: line 1: not a JSON object such as {"text": "a document"}; fix or remove '
        "the line",
        name="book.jsonl",
    ),
    text(
        "a missing column",
        code('{"body": "a"}'),
        '{"body": "a"}',
        "book.jsonl: line 1: no column `text` (found `body`); set the corpus's `text_column:` "
        "to the one with the text, or set `missing: skip`",
        name="book.jsonl",
    ),
    text(
        "a number instead of a text",
        code('{"text": 5}'),
        '{"text": 5}',
        "book.jsonl: line 1: `text` should be text (found `5`); fix the row, or set the "
        "corpus's `text_column:` to the column with the text",
        name="book.jsonl",
    ),
    text(
        "a lone surrogate in JSON",
        code('{"text": "\\ud800"}'),
        '{"text": "\\ud800"}',
        "book.jsonl: line 1: a lone surrogate, U+D800, which isn't a character; fix the text, "
        "or set `errors: replace` for its corpus",
        name="book.jsonl",
    ),
    text(
        "a table without text",
        code('{"text": ""}'),
        '{"text": ""}',
        "book.jsonl: no text in it; add text or use another file",
        name="book.jsonl",
    ),
    text(
        "a CSV without the column",
        code("a,b"),
        "a,b\n1,2\n",
        "book.csv: no column `text` (found `a`, `b`); set the corpus's `text_column:` to the "
        "one with the text",
        name="book.csv",
    ),
    text(
        "a row with too many fields",
        "`text,year`, then `one, two,1984`",
        "text,year\none, two,1984\n",
        "book.csv: line 2: 3 fields, but the header has 2; fix the row (a field that contains "
        "',' needs double quotes)",
        name="book.csv",
    ),
    text(
        "an unclosed quote",
        code("text") + ", then " + code('"one'),
        'text\n"one\n',
        "book.csv: line 2: not valid CSV: unexpected end of data; check the row's double "
        "quotes: one may be missing, or need doubling",
        name="book.csv",
    ),
    text(
        "a parquet file that isn't one",
        "`book.parquet` that is really a text",
        TEXT,
        "book.parquet: can't be read as parquet: Parquet magic bytes not found in footer. "
        "Either the file is corrupted or this is not a parquet file; get a new copy",
        name="book.parquet",
    ),
    text(
        "a parquet file without the column",
        "`book.parquet` with `body`",
        parquet_bytes({"body": ["a"]}),
        "book.parquet: no column `text` (found `body`); set the corpus's `text_column:` to the "
        "one with the text",
        name="book.parquet",
    ),
    text(
        "a parquet column of numbers",
        "`book.parquet` with numbers",
        parquet_bytes({"text": [5]}),
        "book.parquet: row 1: `text` should be text (found `5`); fix the row, or set the "
        "corpus's `text_column:` to the column with the text",
        name="book.parquet",
    ),
    text(
        "byte pairs for a long text without spaces",
        "`tokenizer: bpe` for 4.8 million letters without a space",
        b"x" * 4_800_000,
        "book.txt: too long for byte pairs without a space: 4,320,000 characters from "
        "'xxxxxxxxxxxxxxxxxxxx' on; add line breaks, or use `tokenizer: char` or `tokenizer: "
        "byte`",
        dataset={"tokenizer": "bpe"},
    ),
    Mistake(
        "a text that changes while it's prepared",
        "`book.txt` edited during the preparation",
        edit_while_prepared,
        "book.txt: this file or a later one of the corpus changed while the dataset was prepared; "
        "run the same command again",
    ),
]
