"""Download a file by its URL, from a mirror if one has it, and check its sha256.

The workflow decides when to fetch a file and where to put it. An incomplete file is stored as
<destination>.part, with its origin in <destination>.part.json, so that later attempts and later
processes can resume it.
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
from nanogpt.files.buckets import SCHEME, BucketError, explain, link_of, read_refusal
from nanogpt.files.locks import Lock, hold
from nanogpt.files.signatures import HEAD, WEB_PAGE, find_flaw
from nanogpt.project import mirror

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte
# A connection that's slower than this, in bytes per second, for this many seconds has stalled too.
LOW_SPEED = 1000
LOW_SPEED_SECONDS = 60.0
# Attempts in a row that may fail without getting PROGRESS bytes further than all before them. Files
# are finite, so the attempts end even if a server always breaks off or starts over.
TRIES = 4
PROGRESS = 1 << 20
BACKOFF = 1.0  # seconds before the second attempt; doubles with each further one
RETRY_AFTER_LIMIT = 120.0  # longest wait in seconds that a server can ask for
REDIRECTS = 20
ERROR_SIZE = 1 << 14  # how many characters of S3's explanation of an error are read

# `bytes 5-9/10`: the last five of ten bytes; `bytes */10`: none, but there are ten.
CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19})")


class _SourceError(Exception):
    """A source can't provide the file, with the reason in plain words, and what to do."""

    def __init__(self, reason: str, remedy: str = "check the URL and your network") -> None:
        super().__init__(reason)
        self.remedy = remedy


class _PassingError(Exception):
    """An attempt failed, but another might succeed. wait: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Origin(BaseModel):
    """The origin of a partial file, stored in <destination>.part.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    validator: str | None = None  # the file's ETag or Last-Modified
    total: NonNegativeInt | None = None  # size of the whole file in bytes


@dataclass
class _Part:
    """The first bytes of an unfinished download, in <destination>.part."""

    path: Path
    file: BinaryIO
    lock: Lock
    origin: _Origin
    size: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    continued: bool = False  # whether it's from more than one response
    is_page: bool = False  # whether the server declared it as HTML


def mirrors(configured: Sequence[str]) -> list[str]:
    """The mirrors to try, in order: NANOGPT_MIRROR from the environment, then those configured."""
    own = mirror()
    return [*([own] if own else []), *configured]


def fetch(
    url: str, destination: Path, *, sha256: str | None = None, mirrors: Sequence[str] = ()
) -> str:
    """Download `url` to `destination`, from a mirror if one has it, and return its sha256.

    A mirror is a directory, a file:// URL or an http(s) URL prefix that has the file at
    <host>/<path>, the layout of `wget -x`. A mirror without the file is skipped.

    A partial file from an earlier call is resumed if it's from the same source, and if either the
    server confirms that the file is unchanged (by ETag or Last-Modified) or `sha256` is given. The
    file is stored as the server sends it, compressed or not, up to the announced length. Only
    `sha256` can tell whether that length was right.

    A redirect from https to http is followed only with a `sha256`. Otherwise anyone on the network
    path could replace the file, and its digest would be recorded as the right one.

    If another process is downloading to the same destination, this one waits.

    Errors: UserError if no source provides the file, if its digest isn't `sha256` (the file is
    then kept as <destination>.corrupt, and no other source is tried), or if it can't be written.
    """
    names = _names_in_mirror(url)
    sources = [*(place for mirror in mirrors for place in _in_mirror(mirror, names)), url]
    locks = Path(f"{destination}.part.lock")
    try:
        with hold(locks, f"downloading {destination}") as lock:
            try:
                return _fetch(sources, destination, sha256, lock)
            finally:
                shutil.rmtree(locks, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{destination}: can't be written: {error.strerror or error}; "
            "check free space and permissions, and try again"
        ) from None
    except _SourceError as error:
        raise UserError(
            f"{url}: {error}; {error.remedy}, save the file as {destination} yourself, or set the "
            "environment variable NANOGPT_MIRROR to a directory or URL with it"
        ) from None


def _names_in_mirror(url: str) -> list[str]:
    """Return the paths that a file may have in a mirror. Errors: UserError for an invalid URL."""
    if url.startswith(SCHEME):
        return [url.removeprefix(SCHEME)]  # a `%` in a key is just that
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError(f"{url}: invalid URL: {error}; correct `url:` in config.yaml") from None
    relative = (parsed.netloc + parsed.raw_path).decode()
    # `wget -x` decodes %20 in names but not %2F.
    return list(dict.fromkeys((unquote(relative), relative)))


def _fetch(sources: Sequence[Path | str], destination: Path, sha256: str | None, lock: Lock) -> str:
    """Fetch from the first source that has the file; raise the last one's _SourceError."""
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
                "%s: not checked, because config.yaml has no sha256 for it; add `sha256: %s` "
                "there to check later downloads",
                destination,
                digest,
            )
        return digest
    raise failure


def _flaw(path: Path, part: _Part) -> str | None:
    """What kind of non-text file a download is, by its first bytes or the server's declaration."""
    with open(path, "rb") as file:
        flaw = find_flaw(path.name, file.read(HEAD))
    if flaw:
        return flaw.what
    return WEB_PAGE.what if part.is_page else None


def _in_mirror(mirror: str, names: Sequence[str]) -> list[Path | str]:
    """The places where a mirror may have a file with one of these names."""
    if mirror.startswith(("http://", "https://")):
        return [f"{mirror.rstrip('/')}/{quote(name)}" for name in names]
    if mirror.startswith("file://"):
        mirror = url2pathname(urlsplit(mirror).path)
    return [Path(f"{mirror}/{name}") for name in names]


@contextmanager
def _open_part(destination: Path, source: str, lock: Lock) -> Iterator[_Part]:
    """Open the partial file if it's from `source`, otherwise an empty part.

    Bytes from another source stay on disk until `source` sends its first byte.
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
    # In this order, so that the recorded origin never describes another source's bytes.
    part.file.truncate(0)
    part.origin = _Origin(source=part.origin.source, validator=validator, total=total)
    write_json(_origin_path(part.path), part.origin.model_dump())
    part.size, part.digest, part.continued = 0, hashlib.sha256(), False


def _append(part: _Part, block: bytes) -> None:
    part.file.write(block)
    part.file.flush()  # so that these bytes survive if this process is killed
    part.digest.update(block)
    part.size += len(block)


def _publish(part: _Part, destination: Path, sha256: str | None) -> str:
    """Move a complete file to its destination, or aside if its digest is wrong."""
    digest = part.digest.hexdigest()
    os.fsync(part.file.fileno())
    part.lock.check()
    if sha256 not in (None, digest):
        aside = f"{destination}.corrupt"
        os.replace(part.path, aside)
        raise UserError(
            f"{part.origin.source}: wrong sha256: expected {sha256}, found {digest}; correct "
            f"`sha256:` in config.yaml if the file (kept as {aside}) is the right one, otherwise "
            "try again or use another source"
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
            # The digest is of the file as stored on the server, so it shouldn't be compressed.
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            # Bytes sent after the end of a response mustn't be read as the start of the next one.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
    except (ImportError, OSError, ValueError) as error:
        # A SOCKS proxy without its package, a misspelt proxy, or a missing SSL_CERT_FILE.
        raise _SourceError(f"bad proxy or certificate settings: {error}") from None
    with client:
        _complete(client, url, part, sha256)
        if part.continued and sha256 not in (None, part.digest.hexdigest()):
            logger.info("%s: wrong sha256 after resuming; starting over", url)
            _restart(part)
            _complete(client, url, part, sha256)


def _complete(client: httpx.Client, url: str, part: _Part, sha256: str | None) -> None:
    """Try until the file is complete; _SourceError when further attempts are useless."""
    failed, furthest = 0, part.size
    resume = True
    while True:
        part.lock.check()
        wait = 0.0
        try:
            if _attempt(client, url, part, sha256, resume=resume):
                return
            logger.info("%s: the server can't resume this download; starting over", url)
            resume = False
            continue
        except _PassingError as error:
            reason, wait = str(error), error.wait
        except httpx.UnsupportedProtocol as error:
            raise _SourceError(str(error)) from None
        except httpx.TransportError as error:  # also for a truncated body
            reason = _in_plain_words(error)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _SourceError(" ".join(str(error).split())) from None
        except UnicodeError:  # raised by the socket module for a host like `example..org`
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
    """Complete the file with one response; False if the response doesn't continue it."""
    headers = {}
    # Without a validator the server's file may have changed since, and only a digest can tell.
    if resume and part.size and (part.origin.validator or sha256):
        headers["Range"] = f"bytes={part.size}-"
        if part.origin.validator:
            headers["If-Range"] = part.origin.validator
    try:
        link = link_of(url)
    except BucketError as error:
        raise _SourceError(error.reason, error.remedy) from None
    with _get(client, link, headers, downgrade=sha256 is not None) as response:
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
            logger.info("%s: resumed at byte %d of %d", url, part.size, total)
            part.continued = True
            _receive(response, part, last + 1, total)
            return True
        if status == 429 or status >= 500:
            raise _PassingError(f"HTTP {status}", _retry_after(response))
        if url.startswith(SCHEME):
            body = next(response.iter_text(ERROR_SIZE), "")
            of_bucket = explain(url, read_refusal(status, response.headers, body))
            raise _SourceError(of_bucket.reason, of_bucket.remedy)
        raise _SourceError(f"HTTP {status}")


@contextmanager
def _get(
    client: httpx.Client, url: str, headers: dict[str, str], *, downgrade: bool
) -> Iterator[httpx.Response]:
    """Follow redirects, without reading their bodies, and yield the last response.

    downgrade: whether an https URL may redirect to http.
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
                f"redirects from https to {request.url}, where anyone on the network path could "
                "change the file; set its `sha256:` in config.yaml to allow that"
            )
    raise _SourceError(f"more than {REDIRECTS} redirects")


def _validator(response: httpx.Response) -> str | None:
    etag: str = response.headers.get("ETag", "")
    # A weak ETag, W/"...", may stay the same when the bytes change.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after(response: httpx.Response) -> float:
    """The wait in seconds that a server asks for, as a number or a date, up to a limit."""
    delay = response.headers.get("Retry-After", "")
    try:
        if delay.isdecimal():
            seconds = float(delay)
        else:
            seconds = parsedate_to_datetime(delay).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT)


def _receive(response: httpx.Response, part: _Part, end: int | None, total: int | None) -> None:
    """Append a response body. end: expected size of the part afterwards. total: of the file."""
    with tqdm(
        desc=Path(response.url.path).name,
        total=total,
        initial=part.size,
        unit="B",
        unit_scale=True,
        disable=None,  # show it only if stderr is a terminal
    ) as progress:
        since, size_then = time.monotonic(), part.size
        for block in response.iter_raw():
            if end is not None and part.size + len(block) > end:
                _restart(part)
                raise _PassingError(f"more than the announced {end} bytes")
            _append(part, block)
            progress.update(len(block))
            seconds = time.monotonic() - since
            if seconds >= LOW_SPEED_SECONDS:
                if part.size - size_then < LOW_SPEED * seconds:
                    raise _PassingError(f"stalled: less than {LOW_SPEED} bytes per second")
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
        return f"no connection ({cause.strerror})"
    return " ".join(str(error).split())
