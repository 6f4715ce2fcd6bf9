"""Recognise, by a file's name and first bytes, what isn't text.

A text may begin with anything, so only signs that no text has by chance count.
"""

import codecs
import json
import re
from pathlib import PurePath
from typing import NamedTuple

# Bytes that are looked at, but for the first two lines of what may be JSON Lines.
HEAD = 4096


class NotText(NamedTuple):
    """What a file looks like, and what to do about it."""

    what: str
    remedy: str


SAVE_AS_TEXT = "save it as plain text"
CONVERT = "convert it to plain text"

# Of formats that aren't text, or whose text is markup of a program's.
SIGNATURES = {
    b"version https://git-lfs.github.com/spec/": NotText(
        "a pointer of git-lfs in place of the file", "get the file with `git lfs pull`"
    ),
    b"%PDF-": NotText("a PDF", f"{CONVERT}, for example with pdftotext"),
    b"%!PS": NotText("PostScript", CONVERT),
    b"{\\rtf": NotText("RTF", SAVE_AS_TEXT),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": NotText("an old Word or Excel file", SAVE_AS_TEXT),
    b"\x89PNG\r\n\x1a\n": NotText("a picture", "take it out of the corpus"),
    b"\xff\xd8\xff": NotText("a picture", "take it out of the corpus"),
    b"GIF87a": NotText("a picture", "take it out of the corpus"),
    b"GIF89a": NotText("a picture", "take it out of the corpus"),
    b"\x7fELF": NotText("a program", "take it out of the corpus"),
    b"SQLite format 3\0": NotText("an SQLite database", "write its texts to a .jsonl or .csv file"),
    b"ARROW1": NotText("an Arrow file", "write it as .parquet"),
    b"\x89HDF\r\n\x1a\n": NotText("an HDF5 file", "write its texts to a .jsonl or .parquet file"),
    b"Obj\x01": NotText("an Avro file", "write its texts to a .jsonl or .parquet file"),
    b"7z\xbc\xaf\x27\x1c": NotText("a 7z archive", "unpack it"),
    b"Rar!\x1a\x07": NotText("a RAR archive", "unpack it"),
}
WEB_PAGE = NotText("a web page (HTML)", "save its text, or give the URL of the plain text")
XML = NotText("XML", f"{CONVERT}, or write its texts to a .jsonl file")
JSON_ARRAY = NotText(
    "a JSON array", "write an object a line (JSON Lines), for example with `jq -c '.[]' FILE`"
)
JSON_VALUE = NotText(
    "JSON that isn't JSON Lines", "write an object a line, for example with `jq -c . FILE`"
)

MARKUP_NAMES = {".html": WEB_PAGE, ".htm": WEB_PAGE, ".xhtml": WEB_PAGE, ".xml": XML, ".svg": XML}
JSON_NAMES = (".json", ".geojson", ".ipynb")
# Possessive: a text may begin with hundreds of comments, which must be tried in one way only.
BEGINS_PAGE = re.compile(
    r"(?>\s|<!--.*?-->|<\?xml[^>]*>)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
BEGINS_ARRAY = re.compile(r'\s*\[\s*\{\s*"')

# UTF-32's little-endian mark begins with UTF-16's, so UTF-32 comes first.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def find_flaw(name: str, head: bytes) -> NotText | None:
    """What a file is that isn't text. head: its first bytes; name: for what only a name tells."""
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
    """The first characters of a file without its byte order mark, of which ASCII is right."""
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
