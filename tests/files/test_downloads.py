"""Downloads from servers and mirrors that misbehave."""

import gzip
import hashlib
import json
import logging
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nanogpt.errors import UserError
from nanogpt.files import downloads as download
from nanogpt.files import locks as lock

ROOT = Path(__file__).resolve().parents[2]
BODY = random.Random(1).randbytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
WRONG = "0" * 64
OTHER = BODY[::-1]  # another version of the file, of the same length
UNFINISHED = ["input.txt.part", "input.txt.part.json"]

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(download, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    monkeypatch.setattr(lock, "POLL", 0.01)
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    caplog.set_level(logging.INFO, logger=download.__name__)


class Server:
    """An HTTP server on loopback that sends a path's n-th response to its n-th request."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[str] = []
        self.ranges: list[tuple[str | None, str | None]] = []  # Range and If-Range of each request
        self.times: list[float] = []
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                server.ranges.append((self.headers["Range"], self.headers["If-Range"]))
                server.times.append(time.monotonic())
                answers = server.answers.get(self.path, [status(404)])
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_port}"

    def url(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return f"http://{self.host}{path}"

    def stall(self, handler: BaseHTTPRequestHandler) -> None:
        """Start the body, and send nothing more until the test is over."""
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


def versioned(body: bytes, etag: str | None = '"1"', upto: int | None = None) -> Answer:
    """The body, or the part requested by Range and If-Range, cut off after `upto` bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers["Range"]
        first = 0
        if wanted and handler.headers["If-Range"] in (None, etag):
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(body):
            status(416, Content_Range=f"bytes */{len(body)}")(handler)
            return
        handler.send_response(206 if first else 200)
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if etag:
            handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(body) - first))
        handler.end_headers()
        handler.wfile.write(body[first:][:upto])

    return answer


def raw(answer: bytes) -> Answer:
    """Send exactly these bytes."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        with suppress(ConnectionError):  # by a client that gives up
            handler.wfile.write(answer)

    return send


def truncated(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, len(BODY), BODY[:100_000])


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
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
    """A host and port that nobody listens on, reserved so that nobody starts to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


# Downloading


def test_a_download_has_the_servers_bytes_and_returns_their_digest(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", whole(BODY))
    assert download.fetch(url, destination, sha256=DIGEST) == DIGEST
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def test_the_log_has_source_size_and_an_unknown_digest(
    server: Server, destination: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/input.txt", whole(BODY))
    download.fetch(url, destination, sha256=DIGEST)
    assert f"{len(BODY)} bytes from {url}" in caplog.text
    assert DIGEST not in caplog.text
    download.fetch(url, destination)
    assert f"`sha256: {DIGEST}`" in caplog.text


@pytest.mark.parametrize("location", ["/new.txt", "new.txt", "http://localhost:{port}/new.txt"])
def test_a_redirect_is_followed(server: Server, destination: Path, location: str) -> None:
    server.url("/new.txt", whole(BODY))
    location = location.format(port=server.http.server_port)
    url = server.url("/old.txt", status(302, Location=location))
    assert download.fetch(url, destination) == DIGEST
    assert server.requests == ["/old.txt", "/new.txt"]


def test_a_redirected_download_is_resumed(server: Server, destination: Path) -> None:
    server.url("/new.txt", versioned(BODY, upto=100_000), versioned(BODY))
    url = server.url("/old.txt", status(302, Location="/new.txt"))
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges[-1] == ("bytes=100000-", '"1"')


def test_circular_redirects_are_an_error_without_retries(server: Server, destination: Path) -> None:
    url = server.url("/a.txt", status(302, Location="/a.txt"))
    with pytest.raises(UserError, match="redirects"):
        download.fetch(url, destination)
    assert len(server.requests) < 30
    assert names(destination.parent) == []


def test_too_many_redirects_are_an_error(server: Server, destination: Path) -> None:
    for n in range(100):
        server.url(f"/{n}.txt", status(301, Location=f"/{n + 1}.txt"))
    with pytest.raises(UserError, match="more than 20 redirects"):
        download.fetch(f"http://{server.host}/0.txt", destination)
    assert len(server.requests) == download.REDIRECTS + 1


@pytest.mark.parametrize("passing", [status(500), status(503), status(429), truncated])
def test_transient_errors_are_retried(server: Server, destination: Path, passing: Answer) -> None:
    url = server.url("/input.txt", passing, passing, whole(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert destination.read_bytes() == BODY
    assert len(server.requests) == 3


def test_a_retry_without_resuming_keeps_no_bytes(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", truncated, whole(b"short"))
    assert download.fetch(url, destination) == hashlib.sha256(b"short").hexdigest()
    assert destination.read_bytes() == b"short"


def test_a_body_of_unknown_length_is_taken_whole(server: Server, destination: Path) -> None:
    def unsized(handler: BaseHTTPRequestHandler) -> None:
        status(200)(handler)
        handler.wfile.write(BODY)

    assert download.fetch(server.url("/input.txt", unsized), destination) == DIGEST


def test_a_stalled_connection_is_closed_and_retried(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", server.stall, whole(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert destination.read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "tries", "reason"),
    [
        (status(204), 1, "HTTP 204"),
        (status(206), 1, "HTTP 206"),
        (status(416), 1, "HTTP 416"),
        (status(302, Location="ftp://127.0.0.1/input.txt"), 1, "unsupported protocol 'ftp://'"),
        (status(404), 1, "HTTP 404"),
        (status(403), 1, "HTTP 403"),
        (status(410), 1, "HTTP 410"),
        (status(500), download.TRIES, "HTTP 500"),
        (status(429), download.TRIES, "HTTP 429"),
        (truncated, download.TRIES, "without sending complete message body"),
        (None, download.TRIES, "timed out"),
    ],
)
def test_a_failure_is_one_line_with_the_reason_and_three_remedies(
    server: Server, destination: Path, answer: Answer | None, tries: int, reason: str
) -> None:
    url = server.url("/input.txt", answer or server.stall)
    with pytest.raises(UserError) as error:
        download.fetch(url, destination)
    message = str(error.value)
    assert message.startswith(f"{url}: ")
    assert "\n" not in message
    for part in (reason, "NANOGPT_MIRROR", str(destination), "check the URL"):
        assert part in message
    assert len(server.requests) == tries
    assert names(destination.parent) == (UNFINISHED if answer in (None, truncated) else [])


def test_a_refused_connection_is_reported(refusing: str, destination: Path) -> None:
    with pytest.raises(UserError, match=r"no connection \(Connection refused\); check the URL"):
        download.fetch(f"http://{refusing}/input.txt", destination)
    assert names(destination.parent) == []


def test_an_unresolvable_host_is_reported_as_no_network(destination: Path) -> None:
    host = ".".join(["a" * 60] * 5)  # longer than a valid name, so no DNS server is queried
    with pytest.raises(UserError, match=f"no network: could not resolve host {host};"):
        download.fetch(f"http://{host}/input.txt", destination)
    assert names(destination.parent) == []


@pytest.mark.parametrize(
    ("host", "reason"), [("example..org", "malformed host name"), ("example.org:x", "invalid URL")]
)
def test_a_malformed_url_is_reported(host: str, reason: str, destination: Path) -> None:
    with pytest.raises(UserError, match=f"^http://{host}/input.txt: {reason}"):
        download.fetch(f"http://{host}/input.txt", destination)
    assert names(destination.parent) == []


@pytest.fixture
def https(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server with a certificate for some days and a name, trusted or not."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    days, name, trusted = request.param
    (tmp_path / "extensions").write_text(f"subjectAltName={name}")
    for command in (
        "openssl req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
        "-subj /CN=localhost -keyout key.pem -out request.pem",
        f"openssl x509 -req -in request.pem -signkey key.pem -days {days} -extfile extensions "
        "-out cert.pem",
    ):
        subprocess.run(command.split(), check=True, capture_output=True, cwd=tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Server()
    server.http.socket = context.wrap_socket(
        server.http.socket, server_side=True, do_handshake_on_connect=False
    )
    server.http.handle_error = lambda *_: None  # type: ignore[method-assign]
    with serving(server.http):
        yield server


GOOD = (2, "IP:127.0.0.1", True)


@pytest.mark.parametrize(
    ("https", "reason"),
    [
        ((2, "IP:127.0.0.1", False), "self.signed certificate"),
        ((-1, "IP:127.0.0.1", True), "certificate has expired"),
        ((2, "DNS:other.example", True), "IP address mismatch"),
    ],
    indirect=["https"],
)
def test_an_invalid_certificate_is_rejected(https: Server, destination: Path, reason: str) -> None:
    https.url("/input.txt", whole(BODY))
    with pytest.raises(UserError, match=f"CERTIFICATE_VERIFY_FAILED.*{reason}"):
        download.fetch(f"https://{https.host}/input.txt", destination)
    assert https.requests == []
    assert names(destination.parent) == []


@pytest.mark.parametrize("https", [GOOD], indirect=True)
def test_a_trusted_certificate_is_accepted(https: Server, destination: Path) -> None:
    https.url("/input.txt", whole(BODY))
    assert download.fetch(f"https://{https.host}/input.txt", destination) == DIGEST


@pytest.mark.parametrize("https", [GOOD], indirect=True)
def test_https_can_redirect_to_http_only_with_a_digest(
    https: Server, server: Server, destination: Path
) -> None:
    plain = server.url("/input.txt", whole(BODY))
    https.url("/input.txt", status(302, Location=plain))
    url = f"https://{https.host}/input.txt"
    with pytest.raises(UserError, match=f"redirects from https to {plain}.*`sha256:`"):
        download.fetch(url, destination)
    assert server.requests == []
    assert names(destination.parent) == []
    assert download.fetch(url, destination, sha256=DIGEST) == DIGEST


@pytest.mark.parametrize(
    ("variable", "value"), [("ALL_PROXY", "gopher://127.0.0.1"), ("SSL_CERT_FILE", "/absent.pem")]
)
def test_bad_settings_in_the_environment_are_reported_as_such(
    server: Server,
    destination: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match="bad proxy or certificate settings: "):
        download.fetch(server.url("/input.txt", whole(BODY)), destination)
    assert names(destination.parent) == []


def test_a_wrong_digest_is_reported_with_both_and_the_file_is_kept_aside(
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


def test_a_failure_keeps_an_earlier_download(server: Server, destination: Path) -> None:
    destination.write_text("of old")
    with pytest.raises(UserError):
        download.fetch(server.url("/input.txt", truncated), destination)
    with pytest.raises(UserError):
        download.fetch(server.url("/input.txt", whole(BODY)), destination, sha256=WRONG)
    assert destination.read_text() == "of old"
    assert names(destination.parent) == ["input.txt", "input.txt.corrupt"]
    assert Path(f"{destination}.corrupt").read_bytes() == BODY


def test_a_destination_that_cannot_be_created_is_reported(
    server: Server, destination: Path
) -> None:
    destination.write_text("a file, no directory")
    with pytest.raises(UserError, match=r"x\.txt: can't be written: .*check free space"):
        download.fetch(server.url("/x.txt", whole(BODY)), destination / "x.txt")


def test_a_full_disk_is_reported_and_the_download_can_be_resumed(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", versioned(BODY))
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(BODY) // 2, hard))
    try:
        with pytest.raises(UserError, match=r"input\.txt: can't be written: .*check free space"):
            download.fetch(url, destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(destination.parent) == UNFINISHED
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges[-1] == (f"bytes={len(BODY) // 2}-", '"1"')
    assert destination.read_bytes() == BODY


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_download_has_the_permissions_of_any_new_file(server: Server, destination: Path) -> None:
    mask = os.umask(0o027)
    try:
        download.fetch(server.url("/input.txt", whole(BODY)), destination)
    finally:
        os.umask(mask)
    assert destination.stat().st_mode & 0o777 == 0o640


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


# Resuming


def fetch_elsewhere(url: str, destination: Path) -> "subprocess.Popen[str]":
    """Start another process that fetches a file and prints its digest."""
    code = (
        "import sys; from pathlib import Path; from nanogpt.files import downloads as download; "
        "print(download.fetch(sys.argv[1], Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, url, str(destination)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def leave_part(destination: Path, body: bytes, **origin: object) -> None:
    """The files left by a killed process."""
    Path(f"{destination}.part").write_bytes(body)
    Path(f"{destination}.part.json").write_text(json.dumps(origin))


def test_a_retry_resumes_the_download(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", versioned(BODY, upto=100_000), versioned(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges == [(None, None), ("bytes=100000-", '"1"')]
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def test_a_later_call_resumes_the_download(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", versioned(BODY, upto=100_000), status(404))
    with pytest.raises(UserError, match="HTTP 404"):
        download.fetch(url, destination)
    assert names(destination.parent) == UNFINISHED
    server.url("/input.txt", versioned(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges[-1] == ("bytes=100000-", '"1"')
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_killed_download_is_resumed(server: Server, destination: Path) -> None:
    def stalled(handler: BaseHTTPRequestHandler) -> None:
        versioned(BODY, upto=200_000)(handler)
        server.closing.wait(5)

    url = server.url("/input.txt", stalled, versioned(BODY))
    process = fetch_elsewhere(url, destination)
    part = Path(f"{destination}.part")
    until(lambda: part.exists() and part.stat().st_size == 200_000)
    process.kill()
    process.communicate()
    assert {*UNFINISHED} < {*names(destination.parent)}
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges == [(None, None), ("bytes=200000-", '"1"')]
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_second_process_waits_for_the_same_download(
    server: Server, destination: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        begin(handler, len(BODY), BODY[:1000])
        until(lambda: "waiting for process" in caplog.text)
        handler.wfile.write(BODY[1000:])

    caplog.set_level(logging.INFO, logger=lock.__name__)
    url = server.url("/input.txt", slow, whole(OTHER))
    with fetch_elsewhere(url, destination) as process:
        until(lambda: len(server.requests) == 1)
        download.fetch(url, destination)
        assert process.communicate()[0].strip() == DIGEST
    assert destination.read_bytes() == OTHER
    assert names(destination.parent) == ["input.txt"]


def continuation(content_range: str | None, etag: str = '"1"', code: int = 206) -> Answer:
    """A response to a request from byte 100,000 on, which may be invalid."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert handler.headers["Range"] == "bytes=100000-"
        handler.send_response(code)
        if content_range:
            handler.send_header("Content-Range", content_range)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", "200000")
        handler.end_headers()
        handler.wfile.write(OTHER[100_000:])

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        continuation(None),
        continuation("bytes 0-199999/300000"),
        continuation("bytes 99999-299999/300000"),
        continuation("bytes 100000-299999/300001"),
        continuation("bytes 100000-300000/300000"),
        continuation("bytes 100000-99999/300000"),
        continuation("bytes 100000-299999/*"),
        continuation("bytes */300000"),
        continuation("bytes -1-299999/300000"),
        continuation("100000-299999"),
        continuation("bytes 100000-299999/300000", etag='"2"'),
        continuation(None, code=416),
        continuation("bytes */300000", code=416),
        continuation("bytes */100000", code=416),
    ],
)
def test_a_response_that_does_not_continue_the_part_is_not_appended(
    server: Server, destination: Path, answer: Answer
) -> None:
    url = server.url("/input.txt", versioned(BODY, upto=100_000), answer, versioned(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges == [(None, None), ("bytes=100000-", '"1"'), (None, None)]
    assert destination.read_bytes() == BODY


def test_without_range_support_the_whole_file_is_downloaded(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", versioned(BODY, upto=100_000), whole(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert len(server.requests) == 2


def test_a_changed_file_is_downloaded_from_scratch(server: Server, destination: Path) -> None:
    answers = versioned(BODY, '"1"', upto=100_000), versioned(OTHER, '"2"')
    download.fetch(server.url("/input.txt", *answers), destination)
    assert destination.read_bytes() == OTHER
    assert len(server.requests) == 2


def test_a_date_detects_a_changed_file_without_a_strong_etag(
    server: Server, destination: Path
) -> None:
    def dated(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", 'W/"1"')
        handler.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:100_000])

    url = server.url("/input.txt", dated, versioned(OTHER))
    download.fetch(url, destination)
    assert server.ranges[1] == ("bytes=100000-", "Thu, 01 Jan 2026 00:00:00 GMT")
    assert destination.read_bytes() == OTHER


def test_a_part_without_a_validator_is_resumed_only_with_a_digest(
    server: Server, destination: Path
) -> None:
    answers = versioned(BODY, None, upto=100_000), versioned(BODY, None)
    download.fetch(server.url("/input.txt", *answers), destination)
    assert server.ranges == [(None, None), (None, None)]
    download.fetch(server.url("/input.txt", *answers), destination, sha256=DIGEST)
    assert server.ranges[2:] == [(None, None), ("bytes=100000-", None)]
    assert destination.read_bytes() == BODY


def test_a_resumed_download_with_a_wrong_digest_is_restarted_once(
    server: Server, destination: Path
) -> None:
    answers = versioned(OTHER, None, upto=100_000), versioned(BODY, None)
    url = server.url("/input.txt", *answers)
    assert download.fetch(url, destination, sha256=DIGEST) == DIGEST
    assert server.ranges == [(None, None), ("bytes=100000-", None), (None, None)]
    assert destination.read_bytes() == BODY
    url = server.url("/input.txt", *answers)
    with pytest.raises(UserError, match=f"wrong sha256: expected {WRONG}, found {DIGEST}"):
        download.fetch(url, destination, sha256=WRONG)
    assert len(server.requests) == 6


def test_a_complete_part_is_not_downloaded_again(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", versioned(BODY))
    leave_part(destination, BODY, source=url, validator='"1"', total=len(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges == [("bytes=300000-", '"1"')]  # the server responds with 416
    leave_part(destination, BODY, source=url, validator='"1"', total=len(BODY))
    assert download.fetch(url, destination, sha256=DIGEST) == DIGEST
    assert len(server.requests) == 1
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def test_a_part_from_another_source_is_kept_for_that_source(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", versioned(BODY))
    leave_part(destination, OTHER[:1000], source="http://127.0.0.1/a", validator='"1"', total=None)
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges == [(None, None)]
    leave_part(destination, BODY[:1000], source=url, validator='"1"', total=len(BODY))
    mirrors = [server.url("/mirror", status(404)), "/absent"]
    assert download.fetch(url, destination, mirrors=mirrors) == DIGEST
    assert server.ranges[-1] == ("bytes=1000-", '"1"')


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "\xff\0",
        "[]",
        '{"validator": "\\"1\\""}',
        '{"source": "URL", "validator": 1}',
        '{"source": "URL", "validator": "\\"1\\"", "total": 999}',
        '{"source": "URL", "validator": "\\"1\\"", "total": -5}',
    ],
)
def test_a_part_of_unknown_origin_is_not_resumed(
    server: Server, destination: Path, origin: str
) -> None:
    url = server.url("/input.txt", versioned(BODY))
    leave_part(destination, OTHER[:1000])
    Path(f"{destination}.part.json").write_bytes(origin.replace("URL", url).encode("latin-1"))
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges == [(None, None)]
    Path(f"{destination}.part").write_bytes(OTHER[:1000])
    assert download.fetch(url, destination) == DIGEST
    assert server.ranges == [(None, None)] * 2


# Retries, timeouts and lengths


def test_a_connection_that_breaks_often_still_gets_the_file(
    server: Server, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PROGRESS", 50_000)
    steps = 300_000 // 50_000
    assert steps > download.TRIES
    url = server.url("/input.txt", versioned(BODY, upto=50_000))
    assert download.fetch(url, destination) == DIGEST
    assert len(server.requests) == steps
    assert destination.read_bytes() == BODY


def test_a_server_that_sends_a_few_bytes_each_time_is_given_up_on(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", versioned(BODY, upto=100))
    with pytest.raises(UserError, match="without sending complete message body"):
        download.fetch(url, destination)
    assert len(server.requests) == download.TRIES
    assert Path(f"{destination}.part").stat().st_size == 400


def test_a_server_that_always_restarts_and_breaks_off_is_given_up_on(
    server: Server, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PROGRESS", 50_000)
    url = server.url("/input.txt", truncated)
    with pytest.raises(UserError, match="without sending complete message body"):
        download.fetch(url, destination)
    # The first one got further than any before it.
    assert len(server.requests) == download.TRIES + 1


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    "asked", ["3600", formatdate(time.time() + 3600, usegmt=True)], ids=["seconds", "date"]
)
def test_retry_after_is_respected_up_to_a_limit(
    server: Server, destination: Path, monkeypatch: pytest.MonkeyPatch, code: int, asked: str
) -> None:
    monkeypatch.setattr(download, "RETRY_AFTER_LIMIT", 0.2)
    url = server.url("/input.txt", status(code, Retry_After=asked), whole(BODY))
    assert download.fetch(url, destination) == DIGEST
    first, second = server.times
    assert 0.2 <= second - first < 60


@pytest.mark.parametrize("asked", ["soon", "-1", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT", ""])
def test_an_invalid_retry_after_is_ignored(server: Server, destination: Path, asked: str) -> None:
    url = server.url("/input.txt", status(503, Retry_After=asked), whole(BODY))
    assert download.fetch(url, destination) == DIGEST
    assert server.times[1] - server.times[0] < download.RETRY_AFTER_LIMIT / 2


def test_a_very_slow_server_counts_as_stalled(
    server: Server, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        begin(handler, len(BODY), b"")
        with suppress(ConnectionError):
            while not server.closing.wait(0.02):
                handler.wfile.write(b"drop")

    monkeypatch.setattr(download, "LOW_SPEED_SECONDS", 0.1)
    url = server.url("/input.txt", drip)
    with pytest.raises(UserError, match="stalled: less than 1000 bytes per second"):
        download.fetch(url, destination)
    assert len(server.requests) == download.TRIES


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
CONTINUED = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/10\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 10\r\n\r\nfive.",
        OK + b"Content-Length: -5\r\n\r\nfive.",
        OK + b"Content-Length: five\r\n\r\nfive.",
        OK + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nfive.",
        OK + b"Content-Length: 5, 4\r\n\r\nfive.",
        OK + b"Content-Length: 99999999999999999999\r\n\r\nfive.",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nfive.\r\n0\r\n\r\n",
        CHUNKED + b"\r\n6\r\nfive.",
        CHUNKED + b"\r\n5\r\nfive.\r\n",
        CHUNKED + b"\r\n5\r\nfive.\r\n0\r\n",
        CHUNKED + b"\r\n4\r\nfive.\r\n0\r\n\r\n",
        CHUNKED + b"\r\n-5\r\nfive.\r\n0\r\n\r\n",
        CHUNKED + b"\r\nfive\r\nfive.\r\n0\r\n\r\n",
        CHUNKED + b"\r\n5" + 20 * b"0" + b"\r\nfive.\r\n0\r\n\r\n",
        CHUNKED + b"Content-Length: 4\r\n\r\n5\r\nfive.\r\n0\r\n\r\n",
        CHUNKED + b"Content-Length: 6\r\n\r\n5\r\nfive.\r\n0\r\n\r\n",
        b"five.",
        b"",
        OK,
        OK + b"Broken",
    ],
)
def test_a_contradictory_response_is_an_error(
    server: Server, destination: Path, answer: bytes
) -> None:
    url = server.url("/input.txt", raw(answer))
    with pytest.raises(UserError) as error:
        download.fetch(url, destination)
    assert "\n" not in str(error.value)
    assert len(server.requests) == download.TRIES
    assert not destination.exists()


@pytest.mark.parametrize(
    "answer",
    [
        CONTINUED + b"Content-Length: 6\r\n\r\n67890X",
        CONTINUED + b"Transfer-Encoding: chunked\r\n\r\n6\r\n67890X\r\n0\r\n\r\n",
        CONTINUED + b"\r\n67890X",
    ],
)
def test_a_continuation_longer_than_announced_is_rejected(
    server: Server, destination: Path, answer: bytes
) -> None:
    url = server.url("/input.txt", raw(answer), versioned(b"1234567890"))
    leave_part(destination, b"12345", source=url, validator='"1"', total=10)
    download.fetch(url, destination)
    assert server.ranges == [("bytes=5-", '"1"'), (None, None)]
    assert destination.read_bytes() == b"1234567890"


@pytest.mark.parametrize(
    "answer",
    [
        CONTINUED + b"Content-Length: 4\r\n\r\n6789",
        CONTINUED + b"Transfer-Encoding: chunked\r\n\r\n4\r\n6789\r\n0\r\n\r\n",
        CONTINUED + b"\r\n6789",
        CONTINUED.replace(b"5-9", b"5-8") + b"Content-Length: 4\r\n\r\n6789, and what is no answer",
    ],
)
def test_a_continuation_shorter_than_requested_is_resumed(
    server: Server, destination: Path, answer: bytes
) -> None:
    def send(handler: BaseHTTPRequestHandler) -> None:
        raw(answer)(handler)
        handler.close_connection = b"Content-Length" not in answer

    url = server.url("/input.txt", send, versioned(b"1234567890"))
    leave_part(destination, b"12345", source=url, validator='"1"', total=10)
    download.fetch(url, destination)
    assert server.ranges == [("bytes=5-", '"1"'), ("bytes=9-", '"1"')]
    assert destination.read_bytes() == b"1234567890"


def test_a_file_ends_at_the_announced_length(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", raw(OK + b"Content-Length: 5\r\n\r\nfive." + BODY))
    download.fetch(url, destination)
    assert destination.read_bytes() == b"five."
    digest = hashlib.sha256(b"five." + BODY).hexdigest()
    with pytest.raises(UserError, match="wrong sha256"):
        download.fetch(url, destination, sha256=digest)
    assert Path(f"{destination}.corrupt").read_bytes() == b"five."


def test_a_compressed_file_is_stored_as_sent(server: Server, destination: Path) -> None:
    packed = gzip.compress(BODY)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    download.fetch(server.url("/input.txt", raw(head + packed)), destination)
    assert destination.read_bytes() == packed


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
    """The ways to write a mirror."""
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


def test_a_mirror_without_the_file_is_skipped(
    address: str, server: Server, destination: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/input.txt", whole(BODY))
    assert download.fetch(url, destination, mirrors=[address]) == DIGEST
    assert any(reason in caplog.text for reason in ("No such file", "HTTP 404"))
    assert names(destination.parent) == ["input.txt"]


def test_a_mirror_can_have_any_object_of_a_bucket(
    address: str, mirror: Path, destination: Path
) -> None:
    path = mirror / "bucket/a b#1?%20é.txt"
    path.parent.mkdir()
    path.write_bytes(BODY)
    assert download.fetch("s3://bucket/a b#1?%20é.txt", destination, mirrors=[address]) == DIGEST


def test_a_mirror_is_asked_for_the_key_of_an_object_and_not_for_a_decoded_one(
    mirror: Path, destination: Path
) -> None:
    (mirror / "bucket").mkdir()
    (mirror / "bucket/a b.txt").write_bytes(b"another object")
    (mirror / "bucket/a%20b.txt").write_bytes(BODY)
    assert download.fetch("s3://bucket/a%20b.txt", destination, mirrors=[str(mirror)]) == DIGEST


def test_a_mirror_that_fails_is_skipped(
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


def test_a_mirror_that_vanishes_during_the_download_is_skipped(
    mirror: Path, server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", versioned(BODY))
    server.url(f"/mirror/{server.host}/input.txt", versioned(OTHER, upto=100_000))
    mirrors = [f"http://{server.host}/mirror"]
    if Path("/proc/self/mem").exists():  # it can be opened but not read at its start
        (mirror / server.host).mkdir()
        (mirror / server.host / "input.txt").symlink_to("/proc/self/mem")
        mirrors.append(str(mirror))
    assert download.fetch(url, destination, mirrors=mirrors) == DIGEST
    assert server.ranges[-1] == (None, None)
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def test_the_reported_reason_is_the_last_sources(
    mirror: Path, server: Server, destination: Path
) -> None:
    url = server.url("/gone.txt", status(410))
    with pytest.raises(UserError, match="HTTP 410"):
        download.fetch(url, destination, mirrors=[str(mirror)])
    assert names(destination.parent) == []


def test_the_environments_mirror_comes_before_configured_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NANOGPT_MIRROR", "/mine")
    assert download.mirrors(["/theirs"]) == ["/mine", "/theirs"]
    monkeypatch.setenv("NANOGPT_MIRROR", "")
    assert download.mirrors(["/theirs"]) == ["/theirs"]
    monkeypatch.delenv("NANOGPT_MIRROR")
    assert download.mirrors([]) == []


def typed(body: bytes, kind: str) -> Answer:
    """A body with a Content-Type."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "text/plain"),
        (b"Sign in to go on", "text/html; charset=utf-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "text/plain"),
        (b"%PDF-1.4", "application/pdf"),
    ],
)
def test_a_download_that_is_not_text_is_a_warning_without_a_proposed_digest(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, body: bytes, kind: str
) -> None:
    url = server.url("/input.txt", typed(body, kind))
    download.fetch(url, tmp_path / "input.txt")
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "looks like " in warning
    assert f"is {url} the right URL?" in warning
    assert "add `sha256:" not in caplog.text


def test_a_known_digest_needs_no_warning(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = b"<!DOCTYPE html><html></html>"
    url = server.url("/input.txt", typed(body, "text/html"))
    download.fetch(url, tmp_path / "input.txt", sha256=hashlib.sha256(body).hexdigest())
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]
