"""Recognise files that aren't text by their names and first bytes.

A text can start with anything, so this uses only signatures that no text has by chance.
"""

import codecs
import json
import re
from pathlib import PurePath
from typing import NamedTuple

# Bytes that are checked. (For JSON Lines, sniffing.py checks the first two lines.)
HEAD = 4096


class NotText(NamedTuple):
    """A kind of file that isn't text, and the advice for it."""

    what: str
    remedy: str


SAVE_AS_TEXT = "save it as plain text"
CONVERT = "convert it to plain text"

# Formats that aren't text, or that contain a program's markup.
SIGNATURES = {
    b"version https://git-lfs.github.com/spec/": NotText(
        "a git-lfs pointer instead of the file", "get the file with `git lfs pull`"
    ),
    b"%PDF-": NotText("a PDF", f"{CONVERT}, for example with pdftotext"),
    b"%!PS": NotText("PostScript", CONVERT),
    b"{\\rtf": NotText("RTF", SAVE_AS_TEXT),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": NotText("an old Word or Excel file", SAVE_AS_TEXT),
    b"\x89PNG\r\n\x1a\n": NotText("an image", "remove it from the corpus"),
    b"\xff\xd8\xff": NotText("an image", "remove it from the corpus"),
    b"GIF87a": NotText("an image", "remove it from the corpus"),
    b"GIF89a": NotText("an image", "remove it from the corpus"),
    b"\x7fELF": NotText("a program", "remove it from the corpus"),
    b"SQLite format 3\0": NotText("an SQLite database", "export its texts to .jsonl or .csv"),
    b"ARROW1": NotText("an Arrow file", "convert it to .parquet"),
    b"\x89HDF\r\n\x1a\n": NotText("an HDF5 file", "export its texts to .jsonl or .parquet"),
    b"Obj\x01": NotText("an Avro file", "export its texts to .jsonl or .parquet"),
    b"7z\xbc\xaf\x27\x1c": NotText("a 7z archive", "unpack it"),
    b"Rar!\x1a\x07": NotText("a RAR archive", "unpack it"),
}
WEB_PAGE = NotText("a web page (HTML)", "save its text, or use the URL of the plain text")
XML = NotText("XML", f"{CONVERT}, or export its texts to .jsonl")
JSON_ARRAY = NotText(
    "a JSON array", "write one object per line (JSON Lines), for example with `jq -c '.[]' FILE`"
)
JSON_VALUE = NotText(
    "JSON that isn't JSON Lines", "write one object per line, for example with `jq -c . FILE`"
)

MARKUP_NAMES = {".html": WEB_PAGE, ".htm": WEB_PAGE, ".xhtml": WEB_PAGE, ".xml": XML, ".svg": XML}
JSON_NAMES = (".json", ".geojson", ".ipynb")
# Possessive, without backtracking, because a text can start with hundreds of comments.
BEGINS_PAGE = re.compile(
    r"(?>\s|<!--.*?-->|<\?xml[^>]*>)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
BEGINS_ARRAY = re.compile(r'\s*\[\s*\{\s*"')

# UTF-32's little-endian mark starts with UTF-16's, so UTF-32 comes first.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def find_flaw(name: str, head: bytes) -> NotText | None:
    """Return the kind of a file that isn't text, or None. head: the file's first bytes."""
    for signature, flaw in SIGNATURES.items():
        if head.startswith(signature):
            return flaw
    text, suffix = as_text(head), PurePath(name.lower()).suffix
    if BEGINS_PAGE.match(text):
        return WEB_PAGE
    if suffix in MARKUP_NAMES:
        return MARKUP_NAMES[suffix]
    if text.lstrip().startswith("<?xml"):
        return XML
    if BEGINS_ARRAY.match(text) or (suffix in JSON_NAMES and text.lstrip().startswith("[")):
        return JSON_ARRAY
    return None


def as_text(head: bytes) -> str:
    """Decode a file's first bytes without a byte order mark; only ASCII is sure to be right."""
    for mark, codec in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return head.decode(codec, "ignore")
    return head.decode("utf-8", "replace")


def is_json_object(line: bytes) -> bool:
    """Whether a line of a file is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
