"""Fetching from servers and mirrors that misbehave."""

import hashlib
import logging
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nanogpt import download
from nanogpt.config import UserError

BODY = random.Random(1).randbytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
WRONG = "0" * 64

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(download, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    caplog.set_level(logging.INFO, logger=download.__name__)


class Server:
    """An HTTP server on loopback that answers a path's n-th request with the path's n-th answer."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[str] = []
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                answers = server.answers.get(self.path, [status(404)])
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_port}"

    def url(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return f"http://{self.host}{path}"

    def stall(self, handler: BaseHTTPRequestHandler) -> None:
        """Begin the body and leave the rest out until the test is over."""
        begin(handler, len(BODY), BODY[:1000])
        self.closing.wait(5)


@contextmanager
def serving(http: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with serving(server.http):
        yield server
        server.closing.set()


def begin(handler: BaseHTTPRequestHandler, length: int, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


def whole(body: bytes) -> Answer:
    return lambda handler: begin(handler, len(body), body)


def truncated(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, len(BODY), BODY[:100_000])


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    directory = tmp_path / "corpora"
    directory.mkdir()
    return directory / "input.txt"


@pytest.fixture
def refusing() -> Iterator[str]:
    """A host and port that nobody listens on, held so that nobody begins to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


# Fetching


def test_a_download_is_the_server_s_bytes_and_its_digest_is_returned(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", whole(BODY))
    assert download.fetch(url, destination, sha256=DIGEST) == DIGEST
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def test_the_log_tells_source_and_size_and_a_digest_that_was_not_known(
    server: Server, destination: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/input.txt", whole(BODY))
    download.fetch(url, destination, sha256=DIGEST)
    assert f"{len(BODY)} bytes from {url}" in caplog.text
    assert DIGEST not in caplog.text
    download.fetch(url, destination)
    assert f"`sha256: {DIGEST}`" in caplog.text


def test_a_redirect_is_followed(server: Server, destination: Path) -> None:
    server.url("/new.txt", whole(BODY))
    url = server.url("/old.txt", status(302, Location="/new.txt"))
    assert download.fetch(url, destination) == DIGEST


def test_redirects_in_a_circle_are_told_and_not_tried_again(
    server: Server, destination: Path
) -> None:
    url = server.url("/a.txt", status(302, Location="/a.txt"))
    with pytest.raises(UserError, match="redirects"):
        download.fetch(url, destination)
    assert len(server.requests) < 30
    assert names(destination.parent) == []


@pytest.mark.parametrize("passing", [status(500), status(503), status(429), truncated])
def test_what_may_pass_is_tried_again_until_it_has_passed(
    server: Server, destination: Path, passing: Answer
) -> None:
    url = server.url("/input.txt", passing, passing, whole(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert destination.read_bytes() == BODY
    assert len(server.requests) == 3


def test_a_further_try_keeps_nothing_of_the_one_before(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", truncated, whole(b"short"))
    assert download.fetch(url, destination) == hashlib.sha256(b"short").hexdigest()
    assert destination.read_bytes() == b"short"


def test_a_body_of_unknown_length_is_taken_whole(server: Server, destination: Path) -> None:
    def unsized(handler: BaseHTTPRequestHandler) -> None:
        status(200)(handler)
        handler.wfile.write(BODY)

    assert download.fetch(server.url("/input.txt", unsized), destination) == DIGEST


def test_a_stall_is_cut_short_and_tried_again(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", server.stall, whole(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert destination.read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "tries", "reason"),
    [
        (status(404), 1, "HTTP 404"),
        (status(403), 1, "HTTP 403"),
        (status(410), 1, "HTTP 410"),
        (status(500), download.TRIES, "HTTP 500"),
        (status(429), download.TRIES, "HTTP 429"),
        (truncated, download.TRIES, "without sending complete message body"),
        (None, download.TRIES, "timed out"),
    ],
)
def test_a_failure_is_one_line_with_the_reason_and_three_ways_out(
    server: Server, destination: Path, answer: Answer | None, tries: int, reason: str
) -> None:
    url = server.url("/input.txt", answer or server.stall)
    with pytest.raises(UserError) as error:
        download.fetch(url, destination)
    message = str(error.value)
    assert message.startswith(f"{url}: ")
    assert "\n" not in message
    for part in (reason, "NANOGPT_MIRROR", str(destination), "`make demo`"):
        assert part in message
    assert len(server.requests) == tries
    assert names(destination.parent) == []


def test_a_refused_connection_is_told(refusing: str, destination: Path) -> None:
    with pytest.raises(UserError, match="no connection: Connection refused; set NANOGPT_MIRROR"):
        download.fetch(f"http://{refusing}/input.txt", destination)
    assert names(destination.parent) == []


def test_a_host_that_does_not_resolve_is_told_as_no_network(destination: Path) -> None:
    host = ".".join(["a" * 60] * 5)  # longer than a name can be, so that no DNS server is asked
    with pytest.raises(UserError, match=f"no network: could not resolve host {host};"):
        download.fetch(f"http://{host}/input.txt", destination)
    assert names(destination.parent) == []


@pytest.mark.parametrize(
    ("host", "reason"), [("example..org", "malformed host name"), ("example.org:x", "not a URL")]
)
def test_a_malformed_url_is_told(host: str, reason: str, destination: Path) -> None:
    with pytest.raises(UserError, match=f"^http://{host}/input.txt: {reason}"):
        download.fetch(f"http://{host}/input.txt", destination)
    assert names(destination.parent) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, destination: Path
) -> None:
    command = (
        "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 "
        "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), check=True, capture_output=True, cwd=tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Server()
    server.http.socket = context.wrap_socket(
        server.http.socket, server_side=True, do_handshake_on_connect=False
    )
    server.http.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.answers["/input.txt"] = [whole(BODY)]
    with serving(server.http), pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"):
        download.fetch(f"https://{server.host}/input.txt", destination)
    assert server.requests == []
    assert names(destination.parent) == []


@pytest.mark.parametrize(
    ("variable", "value"), [("ALL_PROXY", "gopher://127.0.0.1"), ("SSL_CERT_FILE", "/absent.pem")]
)
def test_a_broken_setting_of_the_environment_is_told_as_such(
    server: Server,
    destination: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match="the environment's proxy or certificates: "):
        download.fetch(server.url("/input.txt", whole(BODY)), destination)
    assert names(destination.parent) == []


def test_a_wrong_digest_is_told_with_both_digests_and_the_file_kept_aside(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", whole(BODY))
    with pytest.raises(UserError) as error:
        download.fetch(url, destination, sha256=WRONG)
    for part in (url, DIGEST, WRONG, f"{destination}.corrupt", "`sha256:`"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert names(destination.parent) == ["input.txt.corrupt"]
    assert Path(f"{destination}.corrupt").read_bytes() == BODY
    assert len(server.requests) == 1


def test_a_failure_leaves_the_file_of_an_earlier_download(
    server: Server, destination: Path
) -> None:
    destination.write_text("of old")
    with pytest.raises(UserError):
        download.fetch(server.url("/input.txt", truncated), destination)
    with pytest.raises(UserError):
        download.fetch(server.url("/input.txt", whole(BODY)), destination, sha256=WRONG)
    assert destination.read_text() == "of old"
    assert names(destination.parent) == ["input.txt", "input.txt.corrupt"]


def test_a_destination_that_cannot_be_made_is_told(server: Server, destination: Path) -> None:
    destination.write_text("a file, no directory")
    with pytest.raises(UserError, match=r"x\.txt: cannot be written: .*make room"):
        download.fetch(server.url("/x.txt", whole(BODY)), destination / "x.txt")


def test_a_disk_that_fills_up_is_told_and_nothing_left(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", whole(BODY))
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(BODY) // 2, hard))
    try:
        with pytest.raises(UserError, match=r"input\.txt: cannot be written: .*make room"):
            download.fetch(url, destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(destination.parent) == []


def test_progress_is_shown_on_a_terminal_only(
    server: Server,
    destination: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = server.url("/input.txt", whole(BODY))
    download.fetch(url, destination)
    assert capsys.readouterr().err == ""
    termios = pytest.importorskip("termios")
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    os.set_blocking(terminal, False)
    with os.fdopen(stderr, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        download.fetch(url, destination)
        file.flush()
        assert b"input.txt: 100%" in os.read(terminal, 65536)
    os.close(terminal)


# Mirrors

URL = "https://example.invalid/texts/input.txt"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    directory = tmp_path / "a mirror"
    (directory / "example.invalid/texts").mkdir(parents=True)
    (directory / "example.invalid/texts/input.txt").write_bytes(BODY)
    (directory / "example.invalid/a b.txt?raw=true").write_bytes(BODY)
    return directory


@pytest.fixture(params=["directory", "file", "http"])
def address(request: pytest.FixtureRequest, mirror: Path) -> Iterator[str]:
    """How a mirror can be written."""
    if request.param == "directory":
        yield str(mirror)
    elif request.param == "file":
        yield mirror.as_uri()
    else:

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args: object) -> None: ...

        http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(mirror.parent)))
        with serving(http):
            yield f"http://127.0.0.1:{http.server_port}/a%20mirror/"


@pytest.mark.parametrize("url", [URL, "https://example.invalid/a%20b.txt?raw=true"])
def test_a_mirror_is_a_directory_a_file_url_or_a_url_prefix(
    address: str, url: str, destination: Path
) -> None:
    assert download.fetch(url, destination, sha256=DIGEST, mirrors=[address]) == DIGEST
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def test_a_wrong_digest_from_a_mirror_is_an_error_and_no_other_source_is_tried(
    address: str, mirror: Path, server: Server, destination: Path
) -> None:
    (mirror / server.host).mkdir()
    (mirror / server.host / "input.txt").write_bytes(b"of another version")
    url = server.url("/input.txt", whole(BODY))
    with pytest.raises(UserError, match=f"wrong sha256: expected {DIGEST}"):
        download.fetch(url, destination, sha256=DIGEST, mirrors=[address])
    assert server.requests == []
    assert names(destination.parent) == ["input.txt.corrupt"]


def test_a_mirror_without_the_file_is_passed_over(
    address: str, server: Server, destination: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/input.txt", whole(BODY))
    assert download.fetch(url, destination, mirrors=[address]) == DIGEST
    assert any(reason in caplog.text for reason in ("No such file", "HTTP 404"))
    assert names(destination.parent) == ["input.txt"]


def test_a_mirror_that_does_not_work_is_passed_over(
    refusing: str, mirror: Path, server: Server, destination: Path
) -> None:
    (mirror / server.host / "input.txt").mkdir(parents=True)
    url = server.url("/input.txt", whole(BODY))
    mirrors = [f"http://{refusing}", "http://exa mple:x", str(mirror)]
    assert download.fetch(url, destination, mirrors=mirrors) == DIGEST


def test_mirrors_are_tried_in_order_and_before_the_url(
    mirror: Path, server: Server, destination: Path, tmp_path: Path
) -> None:
    url = server.url("/input.txt", whole(BODY))
    for name in ("first", "second"):
        (tmp_path / name / server.host).mkdir(parents=True)
        (tmp_path / name / server.host / "input.txt").write_text(name)
    mirrors = [str(mirror), str(tmp_path / "first"), str(tmp_path / "second")]
    download.fetch(url, destination, mirrors=mirrors)
    assert destination.read_text() == "first"
    assert server.requests == []


def test_with_mirrors_the_reason_told_is_the_last_source_s(
    mirror: Path, server: Server, destination: Path
) -> None:
    url = server.url("/gone.txt", status(410))
    with pytest.raises(UserError, match="HTTP 410"):
        download.fetch(url, destination, mirrors=[str(mirror)])
    assert names(destination.parent) == []


def test_the_environment_s_mirror_comes_before_those_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NANOGPT_MIRROR", "/mine")
    assert download.mirrors(["/theirs"]) == ["/mine", "/theirs"]
    monkeypatch.setenv("NANOGPT_MIRROR", "")
    assert download.mirrors(["/theirs"]) == ["/theirs"]
    monkeypatch.delenv("NANOGPT_MIRROR")
    assert download.mirrors([]) == []
