"""Detect the format of a corpus's file from its settings, first bytes and name."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nanogpt.config.corpora import Corpus
from nanogpt.data.opening import content_suffix, open_unpacked
from nanogpt.errors import UserError
from nanogpt.files.signatures import (
    HEAD,
    JSON_NAMES,
    JSON_VALUE,
    NotText,
    as_text,
    find_flaw,
    is_json_object,
)

BY_NAME = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
PARQUET = b"PAR1"
LONGEST_LINE = 1 << 26  # bytes of a line that may be JSON


def format_of(path: Path, corpus: Corpus) -> str:
    """Return `text`, `jsonl`, `csv`, `tsv` or `parquet`.

    Errors: UserError for a file that can't be read or isn't text, such as a PDF or a web page.
    The corpus's `format: text` accepts any file.
    """
    if corpus.format != "auto":
        return corpus.format
    with open_unpacked(path, corpus.member) as (raw, content, name):
        head = content.read(HEAD)
        kind = content_suffix(name)
        if head.startswith(PARQUET):
            if content is not raw:
                raise UserError(f"{path}: a compressed parquet file; decompress it")
            return "parquet"
        flaw = find_flaw(Path(name).with_suffix(kind).name, head)
        if flaw:
            raise _not_text(path, flaw)
        if kind == ".parquet":
            return "parquet"  # it's damaged, and the parquet reader will report that
        if kind in BY_NAME:
            return BY_NAME[kind]
        if not as_text(head).lstrip().startswith("{"):
            if kind in JSON_NAMES and head.strip():
                raise _not_text(path, JSON_VALUE)
            return "text"
        objects = [is_json_object(line) for line in _first_lines(head, content)]
        if all(objects) and (len(objects) == 2 or kind in JSON_NAMES):
            return "jsonl"
        if kind in JSON_NAMES:
            raise _not_text(path, JSON_VALUE)
        return "text"


def _first_lines(head: bytes, content: BinaryIO) -> Iterator[bytes]:
    """The first two non-empty lines. head: the bytes already read from `content`."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head, content = as_text(head + content.read(LONGEST_LINE)).encode(), io.BytesIO()
    read = io.BytesIO(head.removeprefix(codecs.BOM_UTF8))
    n_lines = 0
    while n_lines < 2:
        line = read.readline()
        if not line.endswith(b"\n"):
            line += content.readline(LONGEST_LINE)
        if not line:
            return
        if line.strip():
            n_lines += 1
            yield line


def _not_text(path: Path, flaw: NotText) -> UserError:
    return UserError(
        f"{path}: looks like {flaw.what}; {flaw.remedy}, or set `format: text` for its corpus to "
        "read it as it is"
    )
