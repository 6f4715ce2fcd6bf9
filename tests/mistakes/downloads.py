"""Downloads that fail."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nanogpt.files import downloads
from nanogpt.files.downloads import fetch
from tests.mistakes.base import TEXT, Mistake, write_files


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def server() -> Iterator[str]:
    """An HTTP server of the current directory on loopback; its host and port."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def fetch_book(host: str, **options: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "BACKOFF", 0.001)
        for name in ("http", "https", "all"):
            patch.delenv(f"{name}_proxy", raising=False)
            patch.delenv(f"{name}_proxy".upper(), raising=False)
        fetch(f"http://{host}/book.txt", Path("resources/corpora/book/book.txt"), **options)


def fetch_from_server(**options: object) -> None:
    with server() as host:
        fetch_book(host, **options)


def refused() -> None:
    with server() as host:
        pass  # gone before it is asked
    fetch_book(host)


def wrong_digest() -> None:
    write_files({"mirror/example.org/book.txt": TEXT})
    fetch_book("example.org", sha256=64 * "0", mirrors=["mirror"])


def directory_in_the_way() -> None:
    write_files({"mirror/example.org/book.txt": TEXT, "resources/corpora/book/book.txt/a": TEXT})
    fetch_book("example.org", mirrors=["mirror"])


DOWNLOADS = [
    Mistake(
        "a server that refuses connections",
        "`url: http://HOST/book.txt`",
        refused,
        "http://HOST/book.txt: no connection (Connection refused); check the URL and your "
        "network, save the file as resources/corpora/book/book.txt yourself, or set the "
        "environment variable NANOGPT_MIRROR to a directory or URL with it",
    ),
    Mistake(
        "the URL of a deleted file",
        "`url: http://HOST/book.txt`",
        fetch_from_server,
        "http://HOST/book.txt: HTTP 404; check the URL and your network, save the file as "
        "resources/corpora/book/book.txt yourself, or set the environment variable NANOGPT_MIRROR "
        "to a directory or URL with it",
    ),
    Mistake(
        "a file that neither the mirror nor the URL has",
        "`mirrors: [mirror]` without the file",
        lambda: fetch_from_server(mirrors=["mirror"]),
        "http://HOST/book.txt: HTTP 404; check the URL and your network, save the file as "
        "resources/corpora/book/book.txt yourself, or set the environment variable NANOGPT_MIRROR "
        "to a directory or URL with it",
    ),
    Mistake(
        "a download with the wrong sha256",
        "`sha256:` of another version of the file",
        wrong_digest,
        "mirror/example.org/book.txt: wrong sha256: expected "
        "0000000000000000000000000000000000000000000000000000000000000000, found "
        "30a2bfe5d42666cd3dbc89b25f95b842997f9fe33d3d9f5af861e9241f6647f7; correct `sha256:` in "
        "config.yaml if the file (kept as resources/corpora/book/book.txt.corrupt) is the right "
        "one, otherwise try again or use another source",
    ),
    Mistake(
        "a directory at a download's path",
        "`resources/corpora/book/book.txt/`",
        directory_in_the_way,
        "resources/corpora/book/book.txt: can't be written: Is a directory; check free space "
        "and permissions, and try again",
    ),
]
