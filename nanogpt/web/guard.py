"""What a request must pass before the application sees it: Host, origin, token and limits.

It also adds the headers that tell a browser what pages may do. It's plain ASGI, so that a streamed
piece of text costs one more function call.
"""

import asyncio
import contextlib
import hashlib
import hmac
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanogpt.errors import shorten
from nanogpt.web.actions_log import log_action
from nanogpt.web.errors import error_text
from nanogpt.web.site import Site

POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
PAGE_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
# Browsers may keep our files, but ask whether they changed, so that a new version shows at once.
STATIC = "/static/"
STATIC_HEADERS = {**PAGE_HEADERS, b"cache-control": b"no-cache"}

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Requests that compute without changing anything: they work without a token on this machine.
COMPUTING = ("/v1/",)
COMPUTING_PATHS = ("/api/tokens",)
OPEN_PATHS = ("/healthz",)
UPLOADS = ("/api/texts",)

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]+)?")

TOKEN_HINT = "open the address that `nanogpt serve` printed, or send `Authorization: Bearer TOKEN`"
STOPPING = "the server is stopping; try again later"
RETRY_SECONDS = 5  # after a 503
LAST_WORDS = 1.0  # seconds for telling a client that the server stops

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Refusal:
    """A request that's answered without the application."""

    status: int
    message: str

    def body(self, path: str) -> bytes:
        """Return it as JSON."""
        return error_text(path, self.status, self.message).encode()


class Guard:
    """Stands around a site's application."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.exchanges: set[_Exchange] = set()

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return an ASGI application that passes on what this guard lets through."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._handle(app, _Exchange(scope, receive, send, self.site))
            elif scope["type"] == "lifespan":
                await app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})

        return guarded

    async def cut(self) -> None:
        """End requests in progress with an error."""
        await asyncio.gather(*(exchange.cut() for exchange in self.exchanges))

    async def _handle(self, app: ASGIApp, exchange: "_Exchange") -> None:
        refusal = refuse(exchange.scope, self.site)
        if refusal:
            _log_refused(exchange.scope, refusal)
            await exchange.answer(refusal)
            return
        if _has_token_in_address(exchange.scope, self.site):
            await exchange.redirect_without_token()
            return
        self.exchanges.add(exchange)
        try:
            await app(exchange.scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.is_cut:
                raise
            await exchange.end()
        except HTTPException:  # of our own `receive`, in an application that doesn't handle it
            if exchange.refusal is None or exchange.is_started:
                raise
            await exchange.answer(exchange.refusal)
        finally:
            self.exchanges.discard(exchange)


class _Exchange:
    """One request and its response.

    refusal: replaces the application's response. is_cut: whether the server ended it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, site: Site) -> None:
        self.scope = scope
        self.is_started = self.is_stream = self.is_cut = False
        self.refusal: Refusal | None = None
        self._receive, self._send = receive, send
        self._site = site
        self._task = asyncio.current_task()
        is_upload = scope["path"] in UPLOADS
        limits = site.limits
        self._most = limits.upload_bytes if is_upload else limits.body_bytes
        self._seconds = limits.upload_seconds if is_upload else limits.body_seconds
        self._deadline = 0.0
        self._n_bytes = 0
        self._is_read = False

    async def receive(self) -> Message:
        """Receive a part of the body, within the limits of size and time."""
        if self._is_read:  # the application waits for the client to go away
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + self._seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - now))
        except TimeoutError:
            slow = f"the request's body took longer than {self._seconds:g} seconds"
            raise self._stop(Refusal(408, slow)) from None
        self._n_bytes += len(message.get("body", b""))
        self._is_read = not message.get("more_body", False)
        if self._n_bytes > self._most:
            raise self._stop(too_large(self._most))
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Send a part of the application's response, with our headers."""
        if self.refusal:
            return self._refuse_instead(self.refusal)
        if message["type"] == "http.response.start":
            message = self._start(message["status"], message.get("headers", []))
        return self._send(message)

    async def answer(self, refusal: Refusal) -> None:
        """Send a refusal."""
        body = refusal.body(self.scope["path"])
        # The connection is closed, since the rest of a body isn't read.
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        if refusal.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if refusal.status == 503:
            headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
        await self._respond(refusal.status, headers, body)

    async def redirect_without_token(self) -> None:
        """Keep the token of the address in a cookie, and take it out of the address."""
        kept = [pair for pair in _query(self.scope) if pair[0] != "token"]
        # One slash, since browsers read `//name/` as another site.
        place = "/" + quote(self.scope["path"].lstrip("/"))
        place += f"?{urlencode(kept)}" if kept else ""
        # Lax, so that a link on another site to one of our pages works.
        cookie = f"{cookie_name(self._site)}={self._site.token}; HttpOnly; SameSite=Lax; Path=/"
        headers = [(b"location", place.encode()), (b"set-cookie", cookie.encode())]
        await self._respond(303, headers, b"")

    async def cut(self) -> None:
        """Say in the response that the server stops, if that's still possible, and end its work."""
        self.is_cut = True
        refusal = Refusal(503, STOPPING)
        with contextlib.suppress(Exception):  # the client may be gone, or not read
            async with asyncio.timeout(LAST_WORDS):
                if not self.is_started:
                    await self.answer(refusal)
                elif self.is_stream:
                    event = b"data: " + refusal.body(self.scope["path"]) + b"\n\n"
                    await self._send(_part(event, more_body=True))
        if self._task:
            self._task.cancel()

    async def end(self) -> None:
        """End a stream that was cut."""
        if self.is_stream:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(LAST_WORDS):
                    await self._send(_part(b""))

    async def _refuse_instead(self, refusal: Refusal) -> None:
        if not self.is_started:
            await self.answer(refusal)

    def _stop(self, refusal: Refusal) -> HTTPException:
        """Replace the response by a refusal. Returns an error that ends the application's work."""
        self.refusal = refusal
        return HTTPException(refusal.status, refusal.message)

    async def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self._send(self._start(status, [*headers, length]))
        await self._send(_part(body))

    def _start(self, status: int, headers: Headers) -> Message:
        """Return the start of a response, with our headers where it has none of its own."""
        own = {name.lower(): value for name, value in headers}
        self.is_started = True
        self.is_stream = own.get(b"content-type", b"").startswith(b"text/event-stream")
        added = STATIC_HEADERS if self.scope["path"].startswith(STATIC) else PAGE_HEADERS
        headers = [*headers, *(pair for pair in added.items() if pair[0] not in own)]
        return {"type": "http.response.start", "status": status, "headers": headers}


def _part(body: bytes, *, more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


def refuse(scope: Scope, site: Site) -> Refusal | None:
    """Return why a request is refused, or None."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return (
        _check_size(scope, headers, site)
        or _check_host(scope, headers, site)
        or _check_site(scope, headers)
        or _check_token(scope, headers, site)
    )


def too_large(most: int) -> Refusal:
    """Return the refusal of a body with more than `most` bytes."""
    return Refusal(413, f"the request's body is too large; send {most:,} bytes or fewer")


def cookie_name(site: Site) -> str:
    """Return the name of a site's cookie; servers on one host, which share cookies, differ."""
    return f"nanogpt-{hashlib.sha256(site.token.encode()).hexdigest()[:8]}"


def _check_size(scope: Scope, headers: dict[bytes, bytes], site: Site) -> Refusal | None:
    limits = site.limits
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > limits.address_bytes:
        return Refusal(414, f"the address is longer than {limits.address_bytes:,} bytes")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > limits.header_bytes:
        return Refusal(431, f"the headers are longer than {limits.header_bytes:,} bytes")
    most = limits.upload_bytes if scope["path"] in UPLOADS else limits.body_bytes
    length = headers.get(b"content-length", b"0")
    if not length.isdigit():
        return Refusal(400, "Content-Length isn't a number")
    return too_large(most) if int(length[:20]) > most else None


def _check_host(scope: Scope, headers: dict[bytes, bytes], site: Site) -> Refusal | None:
    """Refuse a name that isn't ours: a page of another site whose name leads to this address."""
    n_hosts = sum(name == b"host" for name, _ in scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if n_hosts > 1 or (site.hosts and _name(host) not in site.hosts):
        names = ", ".join(sorted(site.hosts))
        return Refusal(
            421, f"Host `{shorten(host)}`: not a name of this server; use one of: {names}"
        )
    return None


def _name(host: str) -> str:
    """Return the name of a Host header: without the port and brackets, in lower case."""
    match = HOST.fullmatch(host.lower())
    return match[1].strip("[]") if match else ""


def _check_site(scope: Scope, headers: dict[bytes, bytes]) -> Refusal | None:
    """Refuse what another site's page sends, except opening one of our pages."""
    refusal = Refusal(403, "sent by a page of another site; only pages of this server may do that")
    sender = headers.get(b"sec-fetch-site", b"none")
    is_safe = scope["method"] in SAFE_METHODS
    if sender not in (b"none", b"same-origin"):
        is_link = scope["method"] == "GET" and headers.get(b"sec-fetch-mode") == b"navigate"
        return None if is_link else refusal
    origin = headers.get(b"origin")
    if is_safe or origin is None or (origin == b"null" and sender == b"same-origin"):
        return None
    scheme, _, place = origin.partition(b"://")
    is_ours = scheme in (b"http", b"https") and place.lower() == headers.get(b"host", b"").lower()
    return None if is_ours else refusal


def _check_token(scope: Scope, headers: dict[bytes, bytes], site: Site) -> Refusal | None:
    """Refuse an action, or any request to a public server, without the token."""
    path = scope["path"]
    computes = path.startswith(COMPUTING) or path in COMPUTING_PATHS
    is_action = scope["method"] not in SAFE_METHODS and not computes
    if is_action and not site.allow_actions:
        return Refusal(
            403, "actions are off; start the server with `nanogpt serve --allow-actions`"
        )
    if not is_action and (not site.is_public or path in OPEN_PATHS):
        return None
    bearer = _bearer(headers)
    if bearer is not None:
        if not _is_equal(bearer, site.token):
            return Refusal(401, f"wrong token; {TOKEN_HINT}")
        return None
    if is_action or not _has_token_in_address(scope, site):
        cookie = _cookie(headers, cookie_name(site))
        if cookie is None or not _is_equal(cookie, site.token):
            wrong = cookie is not None or any(name == "token" for name, _ in _query(scope))
            what = "wrong token" if wrong else "a token is needed"
            return Refusal(401, f"{what}; {TOKEN_HINT}")
    # All browsers say where an action comes from.
    if is_action and not headers.keys() & {b"origin", b"sec-fetch-site"}:
        return Refusal(403, "an action with a cookie needs an Origin header")
    return None


def _bearer(headers: dict[bytes, bytes]) -> str | None:
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _cookie(headers: dict[bytes, bytes], name: str) -> str | None:
    pairs = headers.get(b"cookie", b"").decode("latin-1").split(";")
    found = (pair.strip().partition("=") for pair in pairs)
    return next((value for own, _, value in found if own == name), None)


def _query(scope: Scope) -> list[tuple[str, str]]:
    try:
        return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    except ValueError:
        return []


def _has_token_in_address(scope: Scope, site: Site) -> bool:
    """Whether the address of a page has the right token."""
    if not site.token or scope["method"] != "GET" or b"token=" not in scope["query_string"]:
        return False
    return any(name == "token" and _is_equal(value, site.token) for name, value in _query(scope))


def _is_equal(given: str, token: str) -> bool:
    """Compare in constant time. An empty token is never right."""
    return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def _log_refused(scope: Scope, refusal: Refusal) -> None:
    if scope["method"] not in SAFE_METHODS:
        log_action(scope, f"refused {scope['method']} {scope['path']}: {refusal.message}")
