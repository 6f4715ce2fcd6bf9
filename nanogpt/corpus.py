"""Raw text: fetched with a checksum and mirrors, and decoded from whatever encoding it is in.

Where a corpus lies and when it is fetched is the workflow's business; what becomes of the text, the
dataset's. A retry starts the download again: nothing is resumed.
"""

import codecs
import difflib
import hashlib
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Sequence
from encodings.aliases import aliases
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

import charset_normalizer
import httpx
from tqdm import tqdm

from nanogpt.config import UserError
from nanogpt.files import atomic_write

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte
TRIES = 4
BACKOFF = 1.0  # seconds before the second try; doubles with each further one

# UTF-32's little-endian mark begins with UTF-16's, so UTF-32 comes first.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Text that is not ASCII, from one byte below 0x30 to another: such a byte is inside no character of
# any multi-byte encoding, so that the cuts split none.
PIECE = re.compile(rb"[\x00-\x2f][\x30-\x7f]{0,256}[\x80-\xff].{0,16384}[\x00-\x2f]", re.DOTALL)
PIECES = 16
SAMPLE = PIECES * 16384  # bytes
# What has the form of UTF-8, surrogates included.
UTF8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


class _SourceError(Exception):
    """A source does not give the file; says why in plain words."""


def mirrors(configured: Sequence[str]) -> list[str]:
    """The mirrors to try, in order: the environment's NANOGPT_MIRROR, then those configured."""
    own = os.environ.get("NANOGPT_MIRROR")
    return [*([own] if own else []), *configured]


def fetch(
    url: str, destination: Path, *, sha256: str | None = None, mirrors: Sequence[str] = ()
) -> str:
    """Download `url` to `destination`, from a mirror if one has it, and return its sha256.

    A mirror is a directory, a file:// URL or an http(s) URL prefix under which the file lies at
    <host>/<path>, as `wget -x` lays files out. One that does not give the file is passed over.

    Errors: UserError if no source gives the file, if its digest is not `sha256` (the file is then
    kept as <destination>.corrupt and no further source tried), or if it cannot be written.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError(f"{url}: not a URL: {error}; correct `url:` in config.yaml") from None
    relative = unquote((parsed.netloc + parsed.raw_path).decode())
    reason = ""
    for source in (*(_in_mirror(mirror, relative) for mirror in mirrors), url):
        try:
            with atomic_write(destination) as file:
                if isinstance(source, Path):
                    _copy(source, file)
                else:
                    _download(source, file)
                size, digest = _check(file, f"{destination}.corrupt", str(source), sha256)
        except _SourceError as error:
            reason = str(error)
            logger.info("%s: %s", source, reason)
            continue
        except OSError as error:
            raise UserError(
                f"{destination}: cannot be written: {error.strerror or error}; "
                "make room or give write permission, and try again"
            ) from None
        logger.info("%s: %d bytes from %s", destination, size, source)
        if sha256 is None:
            logger.info(
                "%s: no sha256 was known; this one is now recorded: put `sha256: %s` "
                "into config.yaml to hold later downloads to it",
                destination,
                digest,
            )
        return digest
    raise UserError(
        f"{url}: {reason}; set NANOGPT_MIRROR to a mirror (a directory or URL), put the file at "
        f"{destination} by hand, or try `make demo`, which needs no download"
    )


def _in_mirror(mirror: str, relative: str) -> Path | str:
    if mirror.startswith(("http://", "https://")):
        return f"{mirror.rstrip('/')}/{quote(relative)}"
    if mirror.startswith("file://"):
        mirror = url2pathname(urlsplit(mirror).path)
    return Path(f"{mirror}/{relative}")


def _copy(source: Path, file: BinaryIO) -> None:
    try:
        original = source.open("rb")
    except OSError as error:
        raise _SourceError(error.strerror or str(error)) from None
    with original:
        shutil.copyfileobj(original, file)


def _download(url: str, file: BinaryIO) -> None:
    try:
        client = httpx.Client(
            # The digest is of the file as it lies on the server, so it had better not be packed.
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            follow_redirects=True,
        )
    except (ImportError, OSError, ValueError) as error:
        # A SOCKS proxy without its package, a misspelt proxy, an SSL_CERT_FILE that is absent.
        raise _SourceError(f"the environment's proxy or certificates: {error}") from None
    with client:
        for wait in (*(BACKOFF * 2**n for n in range(TRIES - 1)), None):
            try:
                with client.stream("GET", url) as response:
                    status = response.status_code
                    if status == 200:
                        _receive(response, file)
                        return
                reason, passing = f"HTTP {status}", status == 429 or status >= 500
            except httpx.TransportError as error:  # a truncated body is one, too
                reason, passing = _in_plain_words(error), True
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason, passing = " ".join(str(error).split()), False
            except UnicodeError:  # what the socket module says to a host like `example..org`
                reason, passing = "malformed host name", False
            if wait is None or not passing:
                raise _SourceError(reason)
            logger.info("%s: %s; trying again in %g s", url, reason, wait)
            time.sleep(wait)


def _receive(response: httpx.Response, file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()  # what a try before this one left
    length = response.headers.get("Content-Length")
    with tqdm(
        desc=Path(response.url.path).name,
        total=int(length) if length else None,
        unit="B",
        unit_scale=True,
        disable=None,  # which is: unless stderr is a terminal
    ) as progress:
        for chunk in response.iter_bytes():
            file.write(chunk)
            progress.update(len(chunk))


def _in_plain_words(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    cause: BaseException | None = error
    while cause and not isinstance(cause, OSError):
        cause = cause.__context__
    if isinstance(cause, socket.gaierror):
        return f"no network: could not resolve host {error.request.url.host}"
    if isinstance(cause, OSError) and cause.strerror:
        return f"no connection: {cause.strerror}"
    return " ".join(str(error).split())


def _check(file: BinaryIO, aside: str, source: str, sha256: str | None) -> tuple[int, str]:
    """Size, in bytes, and digest of what was written; kept `aside` if the digest is wrong."""
    file.flush()
    with open(file.fileno(), "rb", closefd=False) as written:
        written.seek(0)
        digest = hashlib.file_digest(written, "sha256").hexdigest()
        if sha256 in (None, digest):
            return written.tell(), digest
        written.seek(0)
        with atomic_write(aside) as kept:
            shutil.copyfileobj(written, kept)
    raise UserError(
        f"{source}: wrong sha256: expected {sha256}, found {digest}; the file is kept as {aside}: "
        "if it is the right one, correct `sha256:` in config.yaml, else try again or elsewhere"
    )


def read_text(path: Path, encoding: str = "auto") -> tuple[str, str]:
    """Read and decode a text file: (text, encoding), as `decode` does.

    Errors: UserError for a file that is absent, a directory, unreadable or not text.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put a text there or correct the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a directory; name a text file in it") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it; try `chmod a+r {path}`") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; correct the path") from None
    return decode(data, str(path), encoding)


def decode(data: bytes, name: str, encoding: str = "auto") -> tuple[str, str]:
    """Decode a whole text strictly: (text, Python's name of the encoding). Newlines stay.

    `auto` believes a byte order mark, then tries UTF-8, then guesses and logs the guess; UTF-8 with
    a few bad bytes is an error, no reason to guess. Encodings of 7 bits (UTF-7, ISO-2022, HZ) pass
    for ASCII. A named encoding is taken at its word: `utf-8-sig` drops a mark, `utf-8` leaves it as
    U+FEFF. NUL makes any text binary. `name` is the file's, for messages.

    Errors: UserError for an unknown encoding, a byte that does not fit, binary data, and no text.
    """
    codec = _detect(data, name) if encoding == "auto" else _text_codec(encoding)
    if codec is None:
        near = difflib.get_close_matches(encoding, {*aliases, *aliases.values()})
        known = next(filter(None, map(_text_codec, near)), None)
        hint = f"did you mean `{known}`?" if known else "there are utf-8, cp1252 and many more"
        raise UserError(f"{name}: no encoding `{encoding}` of text; {hint}")
    try:
        text = data.decode(codec)
        text.encode("utf-8")  # UTF-7 and unicode_escape let lone surrogates pass
    except UnicodeError as error:
        flaw = str(error)
        if isinstance(error, UnicodeDecodeError):
            # utf-8-sig counts from behind the mark.
            offset = len(data) - len(error.object) + error.start
            byte = error.object[error.start]
            flaw = f"byte 0x{byte:02x} at offset {offset} does not fit ({error.reason})"
        raise UserError(
            f"{name}: not {codec}: {flaw}; convert the file to UTF-8, "
            "or name the right encoding as its corpus's `encoding:`"
        ) from None
    if "\0" in text:
        raise _binary(name)
    if not text:
        raise UserError(f"{name}: empty; put a text there")
    return text, codec


def _text_codec(name: str) -> str | None:
    """Python's name of an encoding of text, or None."""
    try:
        codec = codecs.lookup(name)
        "".encode(name)  # refuses rot13 and other codecs that are not of text
    except (LookupError, ValueError):
        return None
    return codec.name


def _binary(name: str) -> UserError:
    return UserError(
        f"{name}: binary, not text; if it is text, convert it to UTF-8, or name its encoding "
        "as its corpus's `encoding:` (as UTF-16 and UTF-32 without a byte order mark need)"
    )


def _detect(data: bytes, name: str) -> str:
    for mark, codec in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return codec
    if b"\0" in data:
        raise _binary(name)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return _guess(_sample(data), name)
    return "utf-8"


def _sample(data: bytes) -> bytes:
    """At most SAMPLE bytes from all over the data, where it is not ASCII."""
    if len(data) <= SAMPLE:
        return data
    part = len(data) // PIECES + 1
    found = (PIECE.search(data, start, start + part) for start in range(0, len(data), part))
    return b"".join(piece.group() for piece in found if piece) or data[:SAMPLE]


def _guess(sample: bytes, name: str) -> str:
    # Bad bytes in UTF-8, where a guess would spoil all the good ones. Other encodings have the form
    # of UTF-8 by accident, at most about half of their bytes (measured: Japanese in EUC-JP).
    in_form = sum(map(len, UTF8_SEQUENCE.findall(sample)))
    if in_form > 0.75 * len(sample.translate(None, bytes(range(0x80)))):
        return "utf-8"
    matches = charset_normalizer.from_bytes(sample)
    best = matches.best()
    if best is None:
        raise _binary(name)
    # charset-normalizer lists ties by name, cp1250 before cp1252, which is by far the commoner.
    tied = [m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
    western = any("cp1252" in match.could_be_from_charset for match in tied)
    codec = codecs.lookup("cp1252" if western else best.encoding).name
    logger.warning(
        "%s: not UTF-8; taken for %s, a guess: if letters are wrong, name its `encoding:`",
        name,
        codec,
    )
    return codec
