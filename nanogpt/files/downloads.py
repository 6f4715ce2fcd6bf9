"""Downloads: a file by its URL, from a mirror if one has it, held to its checksum.

When something is fetched and where it lies is the workflow's business. What has come of a file lies
in <destination>.part until it is whole, and <destination>.part.json tells where it is from: a later
try, and a later process, goes on where an earlier one ended.
"""

import hashlib
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

import httpx
from pydantic import BaseModel, ConfigDict, NonNegativeInt
from tqdm import tqdm

from nanogpt.errors import UserError
from nanogpt.files.atomic import fsync_directory, write_json
from nanogpt.files.locks import Lock, hold
from nanogpt.files.signatures import HEAD, WEB_PAGE, find_flaw
from nanogpt.project import mirror

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte
# A server that gives fewer bytes per second than this, over this many seconds, is stalled as well.
LOW_SPEED = 1000
LOW_SPEED_SECONDS = 60.0
# So many tries in a row may fail without getting PROGRESS bytes further than any before them. As a
# file ends, so do the tries, even where a server breaks off or starts anew each time.
TRIES = 4
PROGRESS = 1 << 20
BACKOFF = 1.0  # seconds before the second try; doubles with each further one
RETRY_AFTER_LIMIT = 120.0  # seconds that a server may ask to wait
REDIRECTS = 20

# `bytes 5-9/10`: the last five of ten bytes; `bytes */10`: none, but there are ten.
CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19})")


class _SourceError(Exception):
    """A source does not give the file; says why in plain words."""


class _PassingError(Exception):
    """A try failed, and a further one may not. wait: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Origin(BaseModel):
    """Where the bytes of a part are from, as <destination>.part.json tells."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    validator: str | None = None  # what changes when the file does: its ETag or Last-Modified
    total: NonNegativeInt | None = None  # bytes of the whole file


@dataclass
class _Part:
    """The first bytes of a file under way, in <destination>.part."""

    path: Path
    file: BinaryIO
    lock: Lock
    origin: _Origin
    size: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    continued: bool = False  # whether more than one answer went into it
    is_page: bool = False  # whether the server says that it's HTML


def mirrors(configured: Sequence[str]) -> list[str]:
    """The mirrors to try, in order: the environment's NANOGPT_MIRROR, then those configured."""
    own = mirror()
    return [*([own] if own else []), *configured]


def fetch(
    url: str, destination: Path, *, sha256: str | None = None, mirrors: Sequence[str] = ()
) -> str:
    """Download `url` to `destination`, from a mirror if one has it, and return its sha256.

    A mirror is a directory, a file:// URL or an http(s) URL prefix under which the file lies at
    <host>/<path>, as `wget -x` lays files out. One that does not give the file is passed over.

    The part that an earlier call left is continued if it is from the same source, and if the server
    says that the file is the same (by its ETag or Last-Modified) or `sha256` will tell. The file is
    what the server sends, packed or not, up to the length that the server gives it; whether that
    length was true only `sha256` tells.

    An https URL that redirects to http is followed only with a `sha256`. Without one, whoever sits
    on the way could put in another file, and its digest would be recorded as the right one.

    Another process that downloads to the same destination is waited for.

    Errors: UserError if no source gives the file, if its digest is not `sha256` (the file is then
    kept as <destination>.corrupt and no further source tried), or if it cannot be written.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError(f"{url}: not a URL: {error}; correct `url:` in config.yaml") from None
    relative = (parsed.netloc + parsed.raw_path).decode()
    sources = [*(place for mirror in mirrors for place in _in_mirror(mirror, relative)), url]
    locks = Path(f"{destination}.part.lock")
    try:
        with hold(locks, f"downloading {destination}") as lock:
            try:
                return _fetch(sources, destination, sha256, lock)
            finally:
                shutil.rmtree(locks, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{destination}: cannot be written: {error.strerror or error}; "
            "make room or give write permission, and try again"
        ) from None
    except _SourceError as error:
        raise UserError(
            f"{url}: {error}; set NANOGPT_MIRROR to a mirror (a directory or URL), put the file at "
            f"{destination} by hand, or try `make demo`, which needs no download"
        ) from None


def _fetch(sources: Sequence[Path | str], destination: Path, sha256: str | None, lock: Lock) -> str:
    """Fetch from the first source that gives the file; _SourceError is the last one's."""
    for source in sources:
        try:
            with _open_part(destination, str(source), lock) as part:
                if isinstance(source, Path):
                    _copy(source, part)
                else:
                    _download(source, part, sha256)
                digest = _publish(part, destination, sha256)
        except _SourceError as error:
            logger.info("%s: %s", source, error)
            failure = error
            continue
        logger.info("%s: %d bytes from %s", destination, part.size, source)
        flaw = _flaw(destination, part)
        if flaw and sha256 is None:
            logger.warning("%s: looks like %s; is %s the right URL?", destination, flaw, source)
        elif sha256 is None:
            logger.info(
                "%s: no sha256 was known; this one is now recorded: put `sha256: %s` "
                "into config.yaml to hold later downloads to it",
                destination,
                digest,
            )
        return digest
    raise failure


def _flaw(path: Path, part: _Part) -> str | None:
    """What a download looks like that is no text, by its first bytes or by what the server says."""
    with open(path, "rb") as file:
        flaw = find_flaw(path.name, file.read(HEAD))
    if flaw:
        return flaw.what
    return WEB_PAGE.what if part.is_page else None


def _in_mirror(mirror: str, relative: str) -> list[Path | str]:
    """Where a mirror may have the file. relative: <host>/<path>, as its URL has it."""
    # `wget -x` writes %20 out, and leaves %2F as it is.
    names = dict.fromkeys((unquote(relative), relative))
    if mirror.startswith(("http://", "https://")):
        return [f"{mirror.rstrip('/')}/{quote(name)}" for name in names]
    if mirror.startswith("file://"):
        mirror = url2pathname(urlsplit(mirror).path)
    return [Path(f"{mirror}/{name}") for name in names]


@contextmanager
def _open_part(destination: Path, source: str, lock: Lock) -> Iterator[_Part]:
    """The part of a file that was begun from `source`, or one of no bytes.

    The bytes of another source stay on disk until `source` gives its first.
    """
    path = Path(f"{destination}.part")
    with open(path, "a+b") as file:
        try:
            part = _Part(path, file, lock, _Origin(source=source))
            origin = _read_origin(path)
            size = path.stat().st_size
            if size and origin and origin.source == source and size <= (origin.total or size):
                file.seek(0)
                part.origin, part.size = origin, size
                part.digest = hashlib.file_digest(file, "sha256")
            yield part
        finally:
            if path.exists() and not path.stat().st_size:
                path.unlink()
            if not path.exists():
                _origin_path(path).unlink(missing_ok=True)


def _origin_path(part: Path) -> Path:
    return Path(f"{part}.json")


def _read_origin(part: Path) -> _Origin | None:
    try:
        return _Origin.model_validate_json(_origin_path(part).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _restart(part: _Part, validator: str | None = None, total: int | None = None) -> None:
    # In this order: at no moment does the origin tell of bytes that are another's.
    part.file.truncate(0)
    part.origin = _Origin(source=part.origin.source, validator=validator, total=total)
    write_json(_origin_path(part.path), part.origin.model_dump())
    part.size, part.digest, part.continued = 0, hashlib.sha256(), False


def _append(part: _Part, block: bytes) -> None:
    part.file.write(block)
    part.file.flush()  # what has come is to outlive this process, however that ends
    part.digest.update(block)
    part.size += len(block)


def _publish(part: _Part, destination: Path, sha256: str | None) -> str:
    """Move a file that is whole to its destination, or aside if its digest is wrong."""
    digest = part.digest.hexdigest()
    os.fsync(part.file.fileno())
    part.lock.check()
    if sha256 not in (None, digest):
        aside = f"{destination}.corrupt"
        os.replace(part.path, aside)
        raise UserError(
            f"{part.origin.source}: wrong sha256: expected {sha256}, found {digest}; the file is "
            f"kept as {aside}: if it is the right one, correct `sha256:` in config.yaml, else try "
            "again or elsewhere"
        )
    os.replace(part.path, destination)
    fsync_directory(destination.parent)
    return digest


def _copy(source: Path, part: _Part) -> None:
    try:
        original = source.open("rb")
    except OSError as error:
        raise _SourceError(error.strerror or str(error)) from None
    with original:
        _restart(part)
        while True:
            try:
                block = original.read(1 << 20)
            except OSError as error:
                raise _SourceError(error.strerror or str(error)) from None
            if not block:
                return
            _append(part, block)


def _download(url: str, part: _Part, sha256: str | None) -> None:
    if part.size and part.digest.hexdigest() == sha256:
        return
    try:
        client = httpx.Client(
            # The digest is of the file as it lies on the server, so it had better not be packed.
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            # What a server sends beyond the end of an answer is not to be taken for the next one.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
    except (ImportError, OSError, ValueError) as error:
        # A SOCKS proxy without its package, a misspelt proxy, an SSL_CERT_FILE that is absent.
        raise _SourceError(f"the environment's proxy or certificates: {error}") from None
    with client:
        _complete(client, url, part, sha256)
        if part.continued and sha256 not in (None, part.digest.hexdigest()):
            logger.info("%s: wrong sha256 of a download that was continued; starting anew", url)
            _restart(part)
            _complete(client, url, part, sha256)


def _complete(client: httpx.Client, url: str, part: _Part, sha256: str | None) -> None:
    """Try until the part is the whole file, or until tries are of no use."""
    failed, furthest = 0, part.size
    resume = True
    while True:
        part.lock.check()
        wait = 0.0
        try:
            if _attempt(client, url, part, sha256, resume=resume):
                return
            logger.info("%s: the server has no continuation of the part; starting anew", url)
            resume = False
            continue
        except _PassingError as error:
            reason, wait = str(error), error.wait
        except httpx.UnsupportedProtocol as error:
            raise _SourceError(str(error)) from None
        except httpx.TransportError as error:  # a truncated body is one, too
            reason = _in_plain_words(error)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _SourceError(" ".join(str(error).split())) from None
        except UnicodeError:  # what the socket module says to a host like `example..org`
            raise _SourceError("malformed host name") from None
        resume = True
        failed += 1
        if part.size >= furthest + PROGRESS:
            failed, furthest = 0, part.size
        if failed == TRIES:
            raise _SourceError(reason)
        wait = max(wait, BACKOFF * 2 ** max(failed - 1, 0))
        logger.info("%s: %s; trying again in %g s", url, reason, wait)
        time.sleep(wait)


def _attempt(
    client: httpx.Client, url: str, part: _Part, sha256: str | None, *, resume: bool
) -> bool:
    """Make the part whole with one answer; False if the answer is no continuation of it."""
    headers = {}
    # A server that names no validator may have another file by now: then only a digest tells.
    if resume and part.size and (part.origin.validator or sha256):
        headers["Range"] = f"bytes={part.size}-"
        if part.origin.validator:
            headers["If-Range"] = part.origin.validator
    with _get(client, url, headers, downgrade=sha256 is not None) as response:
        status = response.status_code
        if status in (200, 206):
            part.is_page = response.headers.get("Content-Type", "").startswith("text/html")
        if status == 200:
            length = response.headers.get("Content-Length")
            _restart(part, _validator(response), int(length) if length else None)
            _receive(response, part, part.origin.total, part.origin.total)
            return True
        if headers and status in (206, 416):
            found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not found:
                return False
            first, last, total = (int(number) if number else None for number in found.groups())
            if part.origin.total not in (None, total):
                return False
            if status == 416:
                part.continued = True
                return total == part.size
            if _validator(response) not in (None, part.origin.validator):
                return False
            if total is None or last is None or first != part.size or not first <= last < total:
                return False
            logger.info("%s: continued at byte %d of %d", url, part.size, total)
            part.continued = True
            _receive(response, part, last + 1, total)
            return True
        if status == 429 or status >= 500:
            raise _PassingError(f"HTTP {status}", _retry_after(response))
        raise _SourceError(f"HTTP {status}")


@contextmanager
def _get(
    client: httpx.Client, url: str, headers: dict[str, str], *, downgrade: bool
) -> Iterator[httpx.Response]:
    """The answer at the end of redirects, whose bodies are not read.

    downgrade: whether an https URL may lead to http.
    """
    request = client.build_request("GET", url, headers=headers)
    secure = request.url.scheme == "https"
    for _ in range(REDIRECTS + 1):
        response = client.send(request, stream=True)
        try:
            if response.next_request is None:
                yield response
                return
        finally:
            response.close()
        request = response.next_request
        if secure and request.url.scheme == "http" and not downgrade:
            raise _SourceError(
                f"redirects from https to {request.url}, where anyone on the way could change the "
                "file; give its `sha256:` in config.yaml"
            )
    raise _SourceError(f"more than {REDIRECTS} redirects")


def _validator(response: httpx.Response) -> str | None:
    etag: str = response.headers.get("ETag", "")
    # A weak one, W/"...", allows for other bytes of the same meaning.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after(response: httpx.Response) -> float:
    """Seconds that a server asks to be left alone, as a number or until a date; at most a limit."""
    asked = response.headers.get("Retry-After", "")
    try:
        if asked.isdecimal():
            seconds = float(asked)
        else:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT)


def _receive(response: httpx.Response, part: _Part, end: int | None, total: int | None) -> None:
    """Append a body, which is to make the part `end` bytes of the `total` that the file has."""
    with tqdm(
        desc=Path(response.url.path).name,
        total=total,
        initial=part.size,
        unit="B",
        unit_scale=True,
        disable=None,  # which is: unless stderr is a terminal
    ) as progress:
        since, size_then = time.monotonic(), part.size
        for block in response.iter_raw():
            if end is not None and part.size + len(block) > end:
                _restart(part)
                raise _PassingError(f"more bytes than the {end} that were announced")
            _append(part, block)
            progress.update(len(block))
            seconds = time.monotonic() - since
            if seconds >= LOW_SPEED_SECONDS:
                if part.size - size_then < LOW_SPEED * seconds:
                    raise _PassingError(f"stalled: less than {LOW_SPEED} bytes a second")
                since, size_then = time.monotonic(), part.size
    if total is not None and part.size < total:
        raise _PassingError(f"ended after {part.size} of {total} bytes")


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
