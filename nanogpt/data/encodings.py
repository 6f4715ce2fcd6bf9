"""Decide which encoding a file has, and decode it in pieces of bounded size."""

import codecs
import io
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from nanogpt.config.corpora import Corpus
from nanogpt.data.opening import open_unpacked
from nanogpt.data.sniffing import format_of
from nanogpt.errors import UserError
from nanogpt.files.signatures import BYTE_ORDER_MARKS

logger = logging.getLogger(__name__)

PIECE = 1 << 18  # bytes of a file that are decoded at once

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

# Called with the number of bytes that were read since the last call.
OnBytesRead = Callable[[int], object]


def decide_encoding(path: Path, corpus: Corpus) -> str:
    """Python's name of a file's encoding: the one that its corpus names, or the likeliest.

    `auto` believes a byte order mark. Else it looks at a few places spread over the file: if they
    are UTF-8, even in part, it is UTF-8, and reading ends at the first byte that does not fit;
    otherwise it guesses, and logs the guess. Encodings of 7 bits (UTF-7, ISO-2022, HZ) pass for
    ASCII. A named encoding is taken at its word: `utf-8-sig` drops a mark, `utf-8` leaves it as
    U+FEFF. Parquet is UTF-8.

    Errors: UserError for a file that cannot be read or isn't text.
    """
    if format_of(path, corpus) == "parquet":
        return "utf-8"
    if corpus.encoding != "auto":
        return codecs.lookup(corpus.encoding).name
    sample = _sample(path, corpus.member)
    for mark, codec in BYTE_ORDER_MARKS.items():
        if sample[0].startswith(mark):
            return codec
    if any(b"\0" in part for part in sample):
        raise _binary(path)
    return _likeliest(b"\n".join(sample), path)


def _sample(path: Path, member: str = "") -> list[bytes]:
    """Bytes at places spread over a file; if they are all ASCII, then where some are not."""
    with open_unpacked(path, member) as (raw, file, _):
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


def decode(
    path: Path, corpus: Corpus, encoding: str, progress: OnBytesRead | None
) -> Iterator[str]:
    """The text of a file in pieces, none empty."""
    decoder = codecs.getincrementaldecoder(encoding)(corpus.errors)
    line_feeds = io.IncrementalNewlineDecoder(None, translate=True)
    offset = reported = 0
    with open_unpacked(path, corpus.member) as (raw, file, _):
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
                yield without_surrogates(text, corpus.errors, str(path))
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


def without_surrogates(text: str, errors: str, where: str) -> str:
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
