"""Connections with limits that uvicorn doesn't have: their number, and a head's size and time.

A client that opens many connections, or sends a request's first lines slowly or without end, would
otherwise keep others out.
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nanogpt.web.guard import Refusal
from nanogpt.web.site import Limits


class Connection(HttpToolsProtocol):
    """One connection. A head is a request's first line and headers."""

    limits: ClassVar[Limits] = Limits()

    _timer: asyncio.TimerHandle | None = None  # runs while a head is expected
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
            head = (
                f"HTTP/1.1 {refusal.status} Refused\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def connection_with(limits: Limits) -> type[Connection]:
    """Return the class of connections with these limits, as uvicorn needs it."""
    return type("LimitedConnection", (Connection,), {"limits": limits})
