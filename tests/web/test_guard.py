"""The guard: Host, origin, token, limits and headers of requests."""

import asyncio
import json
import logging
from dataclasses import replace
from urllib.parse import quote

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse

from nanogpt.web.app import create_app
from nanogpt.web.guard import Guard, cookie_name
from nanogpt.web.site import Limits

OWN = "http://127.0.0.1:8000"
TOKEN = "the-right-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def open_site(site, base_url=OWN, **changes):
    """Return a client of a site, whose application also has a few endpoints for these tests."""
    site = replace(site, **changes)
    app = create_app(site)

    @app.post("/api/act")
    async def act(request: Request) -> dict[str, int]:
        return {"n_bytes": len(await request.body())}

    @app.post("/v1/compute")
    async def compute(request: Request) -> dict[str, int]:
        return {"n_bytes": len(await request.body())}

    @app.get("/api/bug")
    def bug() -> None:
        raise RuntimeError("secret words")

    return TestClient(app, base_url=base_url, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def acting(site):
    return open_site(site, allow_actions=True, token=TOKEN)


@pytest.fixture
def public(site):
    return open_site(site, token=TOKEN, is_public=True, hosts=frozenset())


# --- Headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/healthz", "/absent", "/api/bug", "/static/app.css"])
def test_every_response_has_the_headers(site, path):
    headers = open_site(site).get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self'; ")
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    expected = "no-cache" if path.startswith("/static/") else "no-store"
    assert headers["cache-control"] == expected


def test_refusals_have_the_headers_too(client):
    answer = client.get("/", headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert "content-security-policy" in answer.headers


def test_a_bug_is_reported_without_details(site):
    answer = open_site(site).get("/api/bug")
    assert answer.status_code == 500
    error = "a bug in nanogpt; please report it with the traceback that the server printed"
    assert answer.json() == {"error": error}


# --- DNS rebinding ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "localhost:8000"]
)
def test_own_names_are_accepted(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example@127.0.0.1.example",
        "localhost.",
        "",
        "[::1",
        "127.0.0.1/evil",
        "evil@127.0.0.1",
        "<script>",
    ],
)
def test_other_names_are_refused(client, host):
    for path in ("/", "/healthz", "/static/app.css"):
        assert client.get(path, headers={"Host": host}).status_code == 421
    assert client.post("/v1/completions", headers={"Host": host}).status_code == 421


def test_two_hosts_are_refused(client):
    hosts = [("Host", "127.0.0.1:8000"), ("Host", "127.0.0.1:8000")]
    assert client.get("/healthz", headers=hosts).status_code == 421


def test_the_message_names_the_hosts(client):
    message = client.get("/", headers={"Host": "evil.example"}).json()["error"]
    assert message == (
        "Host `evil.example`: not a name of this server; use one of: 127.0.0.1, ::1, localhost"
    )


# --- Requests from other sites ---------------------------------------------------------------

OTHERS = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:3000"},  # another server on this machine
    {"Origin": "http://127.0.0.1:8000.evil.example"},
    {"Origin": "chrome-extension://127.0.0.1:8000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": OWN},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", OTHERS, ids=str)
@pytest.mark.parametrize("path", ["/v1/compute", "/api/act", "/api/tokens"])
def test_posts_from_other_sites_are_refused(acting, path, headers):
    answer = acting.post(path, json={}, headers={**headers, **BEARER})
    assert answer.status_code == 403
    assert "another site" in json.dumps(answer.json())


def test_posts_from_own_pages_and_from_programs_are_accepted(acting):
    for headers in (
        {"Origin": OWN},
        {"Origin": OWN, "Sec-Fetch-Site": "same-origin"},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},  # a form, with our Referrer-Policy
        {},
    ):
        assert acting.post("/v1/compute", json={}, headers=headers).status_code == 200


def test_other_sites_may_only_link_to_pages(client):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/", headers={**link, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/healthz", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_errors_of_the_api_have_openais_form(client):
    answer = client.post("/v1/completions", headers={"Origin": "https://evil.example"})
    error = answer.json()["error"]
    assert error["type"] == "permission_error"
    assert error.keys() == {"message", "type", "param", "code"}


# --- Tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_actions_are_off_by_default(client, method):
    answer = client.request(method, "/api/runs", headers={"Origin": OWN, **BEARER})
    assert answer.status_code == 403
    error = "actions are off; start the server with `nanogpt serve --allow-actions`"
    assert answer.json() == {"error": error}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": "nanogpt-00000000=the-right-token"},
        {"Cookie": "a=b; ;;=; nonsense"},
    ],
    ids=str,
)
def test_actions_need_the_right_token(acting, headers):
    answer = acting.post("/api/act", headers={"Origin": OWN, **headers})
    assert answer.status_code == 401
    assert "token" in answer.json()["error"]
    assert TOKEN not in answer.text


def test_actions_work_with_a_bearer_token(acting):
    assert acting.post("/api/act", headers=BEARER).status_code == 200


def test_a_token_in_an_actions_address_isnt_enough(acting):
    answer = acting.post(f"/api/act?token={TOKEN}", headers={"Origin": OWN})
    assert answer.status_code == 401


def test_a_page_keeps_the_token_in_a_cookie(acting):
    answer = acting.get(f"/new/form?a=1&token={TOKEN}&b=%26")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/new/form?a=1&b=%26"
    cookie = answer.headers["set-cookie"]
    assert cookie.split("; ")[1:] == ["HttpOnly", "SameSite=Lax", "Path=/"]
    assert acting.post("/api/act", headers={"Origin": OWN}).status_code == 200
    # A browser always says where an action comes from.
    assert acting.post("/api/act").status_code == 403


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "///evil.example/x", "/%0d%0aX:y"]
)
def test_the_redirect_stays_on_this_server(acting, path):
    answer = acting.get(f"{OWN}{path}?token={TOKEN}")
    place = answer.headers["location"]
    assert place.startswith("/")
    assert not place.startswith(("//", "/\\"))
    assert "\n" not in place


def test_a_wrong_token_sets_no_cookie(acting, public):
    answer = acting.get("/healthz?token=wrong")
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    answer = public.get("/?token=wrong")
    assert answer.status_code == 401
    assert answer.json()["error"].startswith("wrong token; ")
    assert "set-cookie" not in answer.headers


def test_an_empty_token_is_never_right(site):
    client = open_site(site, allow_actions=True, token="")
    headers = {"Origin": OWN, "Cookie": f"{cookie_name(site)}="}
    assert client.post("/api/act", headers=headers).status_code == 401
    assert client.post("/api/act", headers={"Authorization": "Bearer "}).status_code == 401


def test_a_public_server_needs_the_token_for_everything(public):
    for path in ("/", "/v1/models", "/metrics", "/static/app.css", "/openapi.json", "/absent"):
        assert public.get(path).status_code == 401
        assert public.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert public.get(path, headers=BEARER).status_code != 401
    assert public.post("/v1/compute", json={}).status_code == 401
    assert public.post("/v1/compute", json={}, headers=BEARER).status_code == 200
    assert public.get("/healthz").json() == {"status": "ok"}
    assert public.get("/").headers["www-authenticate"] == "Bearer"


def test_a_public_server_has_no_actions_unless_allowed(public):
    assert public.post("/api/act", headers=BEARER).status_code == 403


def test_refused_actions_are_logged_without_the_token(acting, caplog):
    with caplog.at_level(logging.WARNING):
        acting.post(f"/api/act{quote(chr(27))}?token={TOKEN}", headers={"Origin": OWN})
        acting.get("/healthz")
    (record,) = caplog.records
    line = record.getMessage()
    assert "refused POST /api/act\\x1b: wrong token" in line
    assert TOKEN not in line
    assert line.isprintable()


# --- Sizes and times -------------------------------------------------------------------------


@pytest.fixture
def small(site):
    limits = Limits(body_bytes=100, upload_bytes=1000, address_bytes=200, header_bytes=1000)
    return open_site(site, allow_actions=True, token=TOKEN, limits=limits)


def pieces(n_bytes):
    for _ in range(n_bytes // 10):
        yield b"0123456789"


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
def test_large_bodies_are_refused(small, chunked):
    def post(path, n_bytes):
        content = pieces(n_bytes) if chunked else b"".join(pieces(n_bytes))
        return small.post(path, content=content, headers=BEARER)

    for path, most in (("/v1/compute", 100), ("/api/act", 100), ("/api/texts?name=a", 1000)):
        assert post(path, most).status_code != 413
        answer = post(path, most + 10)
        assert answer.status_code == 413
        assert f"send {most:,} bytes or fewer" in answer.text


@pytest.mark.parametrize("length", ["-1", "1e3", "٣", "9" * 5000, "", "0x10"])
def test_odd_lengths_are_refused(site, length):
    client = open_site(site)
    answer = client.post("/v1/compute", content=b"x", headers={"Content-Length": length.encode()})
    assert answer.status_code in (400, 413)


def test_long_addresses_and_headers_are_refused(small):
    assert small.get("/" + "a" * 200).status_code == 414
    assert small.get("/healthz?" + "a" * 200).status_code == 414
    assert small.get("/healthz", headers={"X-Long": "a" * 1000}).status_code == 431


def http_scope(method="POST", path="/v1/compute", **headers):
    headers = {"host": "127.0.0.1:8000", **headers}
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1234),
    }


def test_slow_bodies_are_refused(site):
    site = replace(site, limits=Limits(body_seconds=0.2))
    sent = []

    async def trickle():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def keep(message):
        sent.append(message)

    async def read_all(_scope, receive, _send):
        while (await receive())["more_body"]:
            pass

    asyncio.run(Guard(site).around(read_all)(http_scope(), trickle, keep))
    assert [message.get("status") for message in sent] == [408, None]
    assert b"longer than 0.2 seconds" in sent[1]["body"]


def test_waiting_for_the_client_to_leave_isnt_limited(site):
    site = replace(site, limits=Limits(body_seconds=0.05))
    messages = [{"type": "http.request", "body": b"x", "more_body": False}]
    received = []

    async def receive():
        if messages:
            return messages.pop()
        await asyncio.sleep(0.2)
        return {"type": "http.disconnect"}

    async def app(_scope, receive, _send):
        received.extend([await receive(), await receive()])

    asyncio.run(Guard(site).around(app)(http_scope(), receive, receive))
    assert [message["type"] for message in received] == ["http.request", "http.disconnect"]


def test_websockets_are_refused(site):
    sent = []

    async def keep(message):
        sent.append(message)

    asyncio.run(Guard(site).around(None)({"type": "websocket", "path": "/"}, None, keep))
    assert sent == [{"type": "websocket.close", "code": 1008}]


# --- The end of the server -------------------------------------------------------------------


def run_cut(site):
    """Start a stream without an end, cut it, and return what was sent."""
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def keep(message):
        sent.append(message)

    async def stream(scope, receive, send):
        async def events():
            while True:
                yield b"data: 1\n\n"
                await asyncio.sleep(0.01)

        await StreamingResponse(events(), media_type="text/event-stream")(scope, receive, send)

    async def main():
        guard = Guard(site)
        task = asyncio.create_task(guard.around(stream)(http_scope(), receive, keep))
        await asyncio.sleep(0.1)
        await guard.cut()
        done, _ = await asyncio.wait([task], timeout=0.3)
        is_done = bool(done)
        task.cancel()
        return is_done

    return asyncio.run(main()), sent


def test_cut_streams_end_with_an_error_event(site):
    is_done, sent = run_cut(site)
    assert is_done
    event, last = sent[-2:]
    error = json.loads(event["body"].removeprefix(b"data: "))["error"]
    assert error["message"].startswith("the server is stopping")
    assert last["more_body"] is False
