"""The command `serve`: a page to watch runs and to play with models, and an API."""

import importlib.util
import secrets
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, optional
from nanogpt.cli.parameters import check_port
from nanogpt.errors import UserError
from nanogpt.project import HERE

LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
        port: the port to listen on.
        allow_actions: let the page start and stop trainings and upload texts.
    """
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        raise UserError("serve: needs more packages; run `pip install 'nanogpt[web]'`")
    check_port(port)
    if not results.is_dir():
        raise UserError(f"{results}: no such directory; name one that contains runs")
    from nanogpt.web.server import serve as run_server
    from nanogpt.web.site import Site

    is_public = host not in LOOPBACK
    token = secrets.token_urlsafe(24) if allow_actions or is_public else ""
    site = Site(
        HERE,
        results,
        token=token,
        hosts=frozenset() if is_public else frozenset(LOOPBACK),
        allow_actions=allow_actions,
        is_public=is_public,
    )
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    print(f"{place}?token={token}" if token else place, flush=True)
    run_server(site, host, port)
