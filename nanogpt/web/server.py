"""Run the server until a signal ends it: its socket, its connections, and how it stops."""

import asyncio
import errno
import socket
from collections.abc import Callable

import uvicorn

from nanogpt.artifacts.signals import exiting
from nanogpt.errors import UserError
from nanogpt.web.app import create_app
from nanogpt.web.connections import connection_with
from nanogpt.web.guard import Guard
from nanogpt.web.site import Site

BACKLOG = 2048  # connections that the system keeps until we accept them
CUT_SECONDS = 5.0  # for requests that were cut to end their work


def serve(site: Site, host: str, port: int, ready: Callable[[int], None] = lambda _: None) -> None:
    """Serve a site until SIGTERM or SIGINT, then let requests in progress end.

    ready: called with the port when the server accepts connections.

    Errors: UserError if the address can't be used.
    """
    with exiting(), listen(host, port) as listener:
        app = create_app(site)
        config = uvicorn.Config(
            app,
            loop="auto",  # uvloop where there is one
            http=connection_with(site.limits),
            ws="none",
            log_level="error",  # clients could fill the log with invalid requests
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(site.limits.drain_seconds + CUT_SECONDS),
        )
        ready(listener.getsockname()[1])
        _Server(config, app.guard, site.limits.drain_seconds).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Errors: UserError if the address isn't one of this machine, or the port is in use.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UserError(
            f"--host: no address `{host}`; use 127.0.0.1, 0.0.0.0 or an address of this machine"
        ) from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _explain(error, host, port) from None
    return listener


def _explain(error: OSError, host: str, port: int) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f"--port: {port} is in use; stop the other program or use another port, such as "
            f"--port={port + 1}, or --port=0 for any free one"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return UserError(f"--port: no permission for port {port}; use one above 1023")
    return UserError(
        f"--host: can't listen on `{host}` ({error.strerror}); use 127.0.0.1, 0.0.0.0 or an "
        "address of this machine"
    )


class _Server(uvicorn.Server):
    """uvicorn's server, which also tells late requests that it stops."""

    def __init__(self, config: uvicorn.Config, guard: Guard, drain_seconds: float) -> None:
        super().__init__(config)
        self.guard = guard
        self.drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting requests, and wait for those in progress."""
        cutting = asyncio.create_task(self._cut_late())
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()

    async def _cut_late(self) -> None:
        await asyncio.sleep(self.drain_seconds)
        await self.guard.cut()
