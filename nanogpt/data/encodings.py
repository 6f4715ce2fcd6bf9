"""Detect a file's encoding, and decode the file in pieces of bounded size."""

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

PIECE = 1 << 18  # bytes decoded at a time

SAMPLES = 16  # places in a file that are sampled to detect its encoding
SAMPLE = 16384  # bytes per sample
SCANNED = 1 << 24  # bytes at the start of a compressed file that are sampled

# No multi-byte encoding has bytes below 0x30 inside a character, so cutting there is safe.
INSIDE_CHARACTERS = bytes(range(0x30, 0x100))
ASCII = bytes(range(0x80))

# Byte sequences with the form of UTF-8, surrogates included.
UTF8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)

# The non-ASCII characters of Western European languages. Polish or Czech in cp1250 has others.
WESTERN = set(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŒßàáâãäåæçèéêëìíîïñòóôõöøùúûüœÿ¡¿«»‘’‚“”„–—…·•§©®™°ªº½²€£¢\xa0"  # noqa: RUF001
)

# Called with the number of bytes read since the last call.
OnBytesRead = Callable[[int], object]


def decide_encoding(path: Path, corpus: Corpus) -> str:
    """Return Python's name for a file's encoding: the one its corpus sets, or the likeliest.

    `auto` trusts a byte order mark. Otherwise it samples a few places spread over the file. If
    they look like UTF-8, even in part, it's UTF-8, and decoding fails at the first invalid byte.
    If not, it guesses and logs the guess. 7-bit encodings (UTF-7, ISO-2022, HZ) pass for ASCII.
    A configured encoding is used literally: `utf-8-sig` drops a byte order mark, `utf-8` keeps it
    as U+FEFF. Parquet is always UTF-8.

    Errors: UserError for a file that can't be read or isn't text.
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
    """Bytes from places spread over a file and, if they're all ASCII, from places that aren't."""
    with open_unpacked(path, member) as (raw, file, _):
        size = os.fstat(raw.fileno()).st_size
        if file is not raw:  # a compressed file can't be read out of order
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
    """The offset of the first non-ASCII byte in each piece of a file that has one."""
    offset = 0
    while True:
        file.seek(offset)  # the caller moves the file's position between yields
        data = file.read(PIECE)
        if not data:
            return
        if not data.isascii():
            yield offset + len(data) - len(data.lstrip(ASCII))
        offset += len(data)


def _part(file: BinaryIO, place: int, size: int) -> bytes:
    """SAMPLE bytes of a file, without possibly incomplete characters at either end."""
    file.seek(place)
    part = file.read(SAMPLE)
    whole = part if place == 0 else part.lstrip(INSIDE_CHARACTERS)
    whole = whole if place + SAMPLE >= size else whole.rstrip(INSIDE_CHARACTERS)
    return whole or part


def _likeliest(sample: bytes, path: Path) -> str:
    # Non-ASCII bytes in lines that look like UTF-8, that don't, and that certainly are UTF-8.
    in_form = out_of_form = certain = 0
    for line in sample.split(b"\n"):
        n_bytes = len(line.translate(None, ASCII))
        sequences = UTF8_SEQUENCE.findall(line)
        n_formed = sum(map(len, sequences))
        # A UTF-8 text with a few invalid bytes is still UTF-8: a guess would garble all the valid
        # ones. In other encodings, at most about half of a line looks like UTF-8 by accident
        # (measured on Japanese in EUC-JP).
        if n_formed > 0.75 * n_bytes:
            in_form += n_bytes
        else:
            out_of_form += n_bytes
        if n_formed == n_bytes and len(sequences) > 3:
            certain += n_bytes
    # One or two letters can look like UTF-8 by accident (one letter in seven for Chinese in GBK).
    is_utf8 = in_form >= 0.2 * out_of_form or certain > 0.02 * out_of_form
    return "utf-8" if is_utf8 else _guess(sample, path)


def _guess(sample: bytes, path: Path) -> str:
    codec = "cp1252" if _is_western(sample) else _resembling(sample, path)
    logger.warning(
        "%s: not UTF-8; guessed %s; if characters look wrong, set the corpus's `encoding:`",
        path,
        codec,
    )
    return codec


def _is_western(sample: bytes) -> bool:
    """Whether a text is English or another Western language in cp1252.

    cp1252 is by far the most common legacy encoding, and too few of its letters are non-ASCII for
    the statistics of `_resembling`, which mistake French for Baltic.
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
    # Ties are sorted by name, cp1250 before cp1252.
    tied = [m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
    western = any("cp1252" in match.could_be_from_charset for match in tied)
    return codecs.lookup("cp1252" if western else best.encoding).name


def decode(
    path: Path, corpus: Corpus, encoding: str, progress: OnBytesRead | None
) -> Iterator[str]:
    """Yield the text of a file in non-empty pieces."""
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
                # error.object is the decoder's buffer, which ends where the data read so far does.
                start = offset - len(error.object) + error.start
                byte = f"byte 0x{error.object[error.start]:02x} at offset {start}"
                raise _misfit(path, encoding, f"{byte}: {error.reason}") from None
            except UnicodeError as error:  # the byte order mark is missing
                flaw = f"{error}, so use `{encoding}-le` or `{encoding}-be`"
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
        f"{path}: not valid {encoding} ({flaw}); convert the file to UTF-8, set the corpus's "
        "`encoding:` to the right one, or set `errors: replace` to replace invalid bytes"
    )


def _binary(path: Path) -> UserError:
    return UserError(
        f"{path}: a binary file: it has zero bytes or fits no known encoding; if it is text, set "
        "the corpus's `encoding:` (needed for UTF-16 without a byte order mark), or set "
        "`errors: replace` to accept zero bytes"
    )


def without_surrogates(text: str, errors: str, where: str) -> str:
    """Check or repair text from JSON, UTF-7 and other formats that allow lone surrogates.

    errors: `replace` replaces them by U+FFFD. where: a file and line for the error message.

    Errors: UserError for a lone surrogate, unless it's replaced.
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if errors == "replace":
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        raise UserError(
            f"{where}: a lone surrogate, U+{ord(text[error.start]):04X}, which isn't a character; "
            "fix the text, or set `errors: replace` for its corpus"
        ) from None
    return text
