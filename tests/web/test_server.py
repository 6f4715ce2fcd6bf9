"""`nanogpt serve`: its address, its connections, and how it stops."""

import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from tests.web.serving import COMMAND, environment_here, events_of, running, wait_for

# A server with small limits, and a stream of a tick each 50 ms.
SLOW = """
import asyncio
from fastapi import Request
from nanogpt.project import HERE
from nanogpt.web import server
from nanogpt.web.site import Limits, Site
from starlette.responses import PlainTextResponse, StreamingResponse

create_app = server.create_app
def create_slow_app(site):
    app = create_app(site)
    @app.post("/v1/ticks")
    async def ticks(n: int):
        async def events():
            for number in range(n):
                yield f"data: {number}\\n\\n"
                await asyncio.sleep(0.05)
        return StreamingResponse(events(), media_type="text/event-stream")
    @app.post("/v1/read")
    async def read(request: Request):
        return len(await request.body())
    @app.get("/api/large")
    async def large(n: int):
        return PlainTextResponse("a" * n)
    @app.get("/api/parts")
    async def parts():
        async def texts():
            while True:
                yield "a" * 10_000
                await asyncio.sleep(0)
        return StreamingResponse(texts())
    @app.get("/api/ticks")
    async def endless():
        return await ticks(10**9)
    return app

server.create_app = create_slow_app
limits = Limits(head_seconds=0.5, body_seconds=0.5, drain_seconds=1.5, stall_seconds=1,
                connections=8, address_bytes=500, header_bytes=1500)
server.serve(Site(HERE, HERE.results, limits=limits), "127.0.0.1", 0,
             lambda port: print(f"http://127.0.0.1:{port}/", flush=True))
"""


@pytest.fixture
def slow(tmp_path):
    (tmp_path / "project").mkdir()
    with running(tmp_path / "project", command=(sys.executable, "-c", SLOW)) as server:
        yield server


def serve(tmp_path, *arguments):
    (tmp_path / "results").mkdir(exist_ok=True)
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env=environment_here(),
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- The address -----------------------------------------------------------------------------


def test_the_real_port_and_the_token_are_printed(tmp_path):
    with running(tmp_path, "--port=0", "--allow-actions") as server:
        assert server.place[1] > 0
        assert len(server.token) >= 32
        assert httpx.get(f"{server.address}/healthz").json()["status"] == "ok"
        answer = httpx.get(f"{server.address}/?token={server.token}")
        assert answer.headers["location"] == "/"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 128 + signal.SIGTERM
        assert server.errors.read_text() == ""


def test_without_actions_there_is_no_token(tmp_path):
    with running(tmp_path, "--port=0") as server:
        assert server.token == ""
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=30) == 128 + signal.SIGINT


def test_all_addresses_need_a_token(tmp_path):
    with running(tmp_path, "--port=0", "--host=0.0.0.0") as server:
        assert socket.gethostname() in server.address
        place = f"http://127.0.0.1:{server.place[1]}"
        assert httpx.get(place).status_code == 401
        assert httpx.get(f"{place}/healthz").status_code == 200
        headers = {"Authorization": f"Bearer {server.token}"}
        assert httpx.get(place, headers=headers).status_code == 200


def test_ipv6(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with running(tmp_path, "--port=0", "--host=::1") as server:
        assert server.address.startswith("http://[::1]:")
        assert httpx.get(f"{server.address}/healthz").status_code == 200


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = serve(tmp_path, f"--port={port}")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"error: --port: {port} is in use; ")
    assert ended.stderr.count("\n") == 1


# --- Connections -----------------------------------------------------------------------------


def read_all(connection):
    """Read what a server sends until it closes the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts).decode()


def trickle(connection, pieces):
    """Send pieces slowly, in a thread, until the connection is closed."""

    def send():
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                return
            time.sleep(0.1)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()


@pytest.mark.parametrize(
    "first", [b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"], ids=len
)
def test_slow_headers_are_refused(slow, first):
    with slow.connect() as connection:
        began = time.monotonic()
        connection.sendall(first)
        trickle(connection, [b"X", b"-", *[b"a"] * 100] if first else [])
        assert " 408 " in read_all(connection)
        assert time.monotonic() - began < 5


def test_slow_headers_of_a_later_request_are_refused(slow):
    with slow.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /h")
        assert " 408 " in read_all(connection)


def test_slow_bodies_are_refused(slow):
    with slow.connect() as connection:
        head = "POST /v1/read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
        connection.sendall(f"{head}\r\nContent-Length: 1000\r\n\r\n".encode())
        trickle(connection, [b"a"] * 1000)
        answer = read_all(connection)
    assert " 408 " in answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 10_000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000,
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 2000,
    ],
    ids=["address", "one header", "many headers"],
)
def test_endless_heads_are_refused(slow, data):
    with slow.connect() as connection:
        connection.sendall(data)
        assert " 431 " in read_all(connection)


def test_endless_heads_behind_a_stream_close_it(slow):
    with slow.connect() as connection:
        connection.sendall(b"GET /api/ticks HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000)
        assert " 431 " not in read_all(connection)


def test_too_many_connections_are_refused_and_later_ones_are_served(slow):
    idle = [slow.connect() for _ in range(8)]
    with slow.connect() as one_more:
        answer = read_all(one_more)
    assert " 503 " in answer
    assert "\r\nRetry-After: 5\r\n" in answer
    for connection in idle:
        connection.close()
    wait_for(lambda: httpx.get(f"{slow.address}/healthz").status_code == 200, "a connection")


LARGE = 16_000_000  # bytes, more than what the system keeps of a connection


@pytest.mark.parametrize(
    "path", [f"/api/large?n={LARGE}", "/api/parts"], ids=["one part", "many parts"]
)
def test_clients_that_never_read_make_room_for_others(slow, path):
    stalled = [slow.connect() for _ in range(8)]
    for connection in stalled:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    time.sleep(0.2)
    wait_for(lambda: httpx.get(f"{slow.address}/healthz").status_code == 200, "a connection", 10)
    for connection in stalled:
        connection.close()
    assert slow.errors.read_text() == ""


def test_clients_that_read_slowly_get_everything(slow):
    n_bytes = 0
    with slow.connect() as connection:
        request = f"GET /api/large?n={LARGE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        connection.sendall(request.encode())
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            n_bytes += len(connection.recv(100_000))
            time.sleep(0.05)
        while n_bytes < LARGE:
            part = connection.recv(1 << 20)
            assert part
            n_bytes += len(part)


# --- Stopping --------------------------------------------------------------------------------


def stream_while_stopping(server, method, path):
    """Read a stream, during which the server gets SIGTERM. Returns its text."""
    text = ""
    with httpx.stream(method, f"{server.address}{path}", timeout=30) as answer:
        for piece in answer.iter_text():
            if not text:
                server.process.send_signal(signal.SIGTERM)
            text += piece
    return text


def test_sigterm_lets_a_stream_end(slow):
    text = stream_while_stopping(slow, "POST", "/v1/ticks?n=15")
    assert events_of(text) == list(range(15))
    assert slow.process.wait(timeout=30) == 128 + signal.SIGTERM
    assert slow.errors.read_text() == ""


def test_streams_that_take_too_long_end_with_an_error_event(slow):
    began = time.monotonic()
    text = stream_while_stopping(slow, "POST", "/v1/ticks?n=100000")
    *ticks, last = events_of(text)
    assert ticks == list(range(len(ticks)))
    assert len(ticks) > 5
    assert last["error"]["message"].startswith("the server is stopping")
    assert slow.process.wait(timeout=30) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 20
    assert "Traceback" not in slow.errors.read_text()


def test_new_requests_are_refused_while_stopping(slow):
    with httpx.stream("POST", f"{slow.address}/v1/ticks?n=1000", timeout=30) as answer:
        next(answer.iter_text())
        slow.process.send_signal(signal.SIGTERM)

        def is_closed():
            try:
                httpx.get(f"{slow.address}/healthz", timeout=5)
            except httpx.TransportError:
                return True
            return False

        wait_for(is_closed, "the end of listening", 5)


def test_invalid_requests_are_refused_and_not_logged(slow):
    with slow.connect() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 nonsense\r\n\r\n")
        assert " 400 " in read_all(connection)
    assert slow.errors.read_text() == ""
