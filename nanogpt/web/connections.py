"""Connections with limits that uvicorn doesn't have: their number, time to read, size of a head.

A client that opens many connections, sends a request's first lines slowly or without end, or never
reads a response, would otherwise keep others out.
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nanogpt.web.guard import RETRY_SECONDS, Refusal
from nanogpt.web.site import Limits

STALL_CHECKS = 4  # looks in a row at data that a client doesn't read, before it's given up


class Connection(HttpToolsProtocol):
    """One connection. A head is a request's first line and headers."""

    limits: ClassVar[Limits] = Limits()

    _timer: asyncio.TimerHandle | None = None  # runs while a head is expected
    _stall_timer: asyncio.TimerHandle | None = None  # runs while a client may have stalled
    _n_unsent = 0  # bytes at the last look
    _n_checks = 0  # since the client has read something
    _n_bytes = 0  # received since the last complete head or part of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(Refusal(503, "too many connections; try again later"))
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self.transport.is_closing():
            return
        if self._timer is None and self._is_idle():
            self._expect_head()  # the next request of this connection
        self._n_bytes += len(data)
        super().data_received(data)
        if self._n_bytes > self.limits.address_bytes + self.limits.header_bytes:
            self._refuse(Refusal(431, "the request's headers are too long"))

    def on_headers_complete(self) -> None:
        """Start answering a request."""
        self._stop_timer()
        self._n_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body."""
        self._n_bytes = 0
        super().on_body(body)

    def pause_writing(self) -> None:
        """Wait until the client has read most of what was written; nothing more is written then."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Continue writing."""
        super().resume_writing()
        self._stop_watching()
        self._watch_rest()

    def on_response_complete(self) -> None:
        """End a response, the rest of which the client may still have to read."""
        super().on_response_complete()
        self._watch_rest()

    def _watch_rest(self) -> None:
        if self._stall_timer is None and self._is_idle():
            self._watch()

    def _watch(self) -> None:
        """Look whether the client reads, as long as there's unsent data."""
        self._stop_watching()
        self._n_unsent, self._n_checks = self.transport.get_write_buffer_size(), 0
        if self._n_unsent:
            self._look_later()

    def _look_later(self) -> None:
        seconds = self.limits.stall_seconds / STALL_CHECKS
        self._stall_timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._stall_timer = None
        n_unsent = self.transport.get_write_buffer_size()
        self._n_checks = self._n_checks + 1 if n_unsent >= self._n_unsent else 0
        self._n_unsent = n_unsent
        if self._n_checks == STALL_CHECKS:
            self.transport.abort()
        elif n_unsent:
            self._look_later()

    def _stop_watching(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self.limits.head_seconds, self._end_wait)

    def _end_wait(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            seconds = self.limits.head_seconds
            self._refuse(Refusal(408, f"the request's headers took longer than {seconds:g} s"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, refusal: Refusal) -> None:
        self._stop_timer()
        if self._is_idle():  # no response is under way
            body = refusal.body("/")
            retry = f"Retry-After: {RETRY_SECONDS}\r\n" if refusal.status == 503 else ""
            head = (
                f"HTTP/1.1 {refusal.status} Refused\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n{retry}\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
        if self._stall_timer is None:
            self._watch()


def connection_with(limits: Limits) -> type[Connection]:
    """Return the class of connections with these limits, as uvicorn needs it."""
    return type("LimitedConnection", (Connection,), {"limits": limits})
