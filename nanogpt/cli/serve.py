"""The command `serve`: a page to watch runs and to play with models, and an API."""

import importlib.util
import ipaddress
import secrets
import socket
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, optional
from nanogpt.cli.parameters import check_port
from nanogpt.errors import UserError
from nanogpt.project import HERE

ALL_ADDRESSES = ("0.0.0.0", "::")
PACKAGES = ("fastapi", "httptools", "prometheus_client", "uvicorn")


@app.command
@examples("serve", "nanogpt serve", "nanogpt serve --allow-actions", "nanogpt serve --port=8080")
def serve(
    results: Annotated[Positional[Path], optional("[RESULTS]")] = HERE.results,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_actions: bool = False,
) -> None:
    """Serve a page to watch runs and to play with models, and an API like OpenAI's.

    Args:
        results: the directory of the runs.
        host: the address to listen on; 0.0.0.0: all addresses of this machine.
        port: the port to listen on; 0: any free port.
        allow_actions: let the page start and stop trainings and upload texts.
    """
    if any(importlib.util.find_spec(name) is None for name in PACKAGES):
        raise UserError("serve: needs more packages; run `pip install 'nanogpt[web]'`")
    check_port(port)
    if not results.is_dir():
        raise UserError(f"{results}: no such directory; name one that contains runs")
    if allow_actions and results.resolve() != HERE.results.resolve():
        raise UserError(
            f"--allow-actions: {results} isn't this project's `{HERE.results}`; run `nanogpt serve "
            "--allow-actions` in the directory of that project"
        )
    from nanogpt.web.server import serve as run_server
    from nanogpt.web.site import LOOPBACK, Site

    host = host.strip("[]")
    is_public = not _is_loopback(host)
    token = secrets.token_urlsafe(24) if allow_actions or is_public else ""
    site = Site(
        HERE,
        results,
        token=token,
        hosts=frozenset() if is_public else LOOPBACK | {host.lower()},
        allow_actions=allow_actions,
        is_public=is_public,
    )

    def show_address(real_port: int) -> None:
        name = socket.gethostname() if host in ALL_ADDRESSES else host
        name = f"[{name}]" if ":" in name else name
        place = f"http://{name}:{real_port}/"
        print(f"{place}?token={token}" if token else place, flush=True)

    run_server(site, host, port, show_address)


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
