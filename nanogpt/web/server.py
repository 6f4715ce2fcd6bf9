"""Run the server until a signal ends it."""

import uvicorn

from nanogpt.web.app import create_app
from nanogpt.web.site import Site

DRAIN_SECONDS = 30  # for requests in progress, after SIGTERM or SIGINT


def serve(site: Site, host: str, port: int) -> None:
    """Serve a site until SIGTERM or SIGINT, then let requests in progress end."""
    uvicorn.run(
        create_app(site),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
