"""Downloads: a file by its URL, from a mirror if one has it, held to its checksum.

When something is fetched and where it lies is the workflow's business. A retry starts the download
again: nothing is resumed.
"""

import hashlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

import httpx
from tqdm import tqdm

from nanogpt.config import UserError
from nanogpt.files import atomic_write

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte
TRIES = 4
BACKOFF = 1.0  # seconds before the second try; doubles with each further one


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
    relative = (parsed.netloc + parsed.raw_path).decode()
    reason = ""
    for source in (*(place for m in mirrors for place in _in_mirror(m, relative)), url):
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


def _in_mirror(mirror: str, relative: str) -> list[Path | str]:
    """Where a mirror may have the file. relative: <host>/<path>, as its URL has it."""
    # `wget -x` writes %20 out, and leaves %2F as it is.
    names = dict.fromkeys((unquote(relative), relative))
    if mirror.startswith(("http://", "https://")):
        return [f"{mirror.rstrip('/')}/{quote(name)}" for name in names]
    if mirror.startswith("file://"):
        mirror = url2pathname(urlsplit(mirror).path)
    return [Path(f"{mirror}/{name}") for name in names]


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
