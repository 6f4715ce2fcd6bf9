"""Small random models in the results of a site, and a real server for them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from nanogpt.model.directories import save_model
from nanogpt.web.app import create_app
from nanogpt.web.connections import connection_with
from nanogpt.web.model_files import ModelFiles
from tests.inference.models import BASE, TOKENIZER, make_model

# As `nanogpt sample` in float64 (not possible in config.yaml), so that rounding changes no draw.
DOUBLE = BASE.model_copy(update={"dtype": "float64"})


def add_model(site, name, seed=0, block_size=16, **settings):
    """Write a model to a site's results; return its directory."""
    directory = site.results / name / "model"
    model = make_model(block_size, seed=seed, **settings)
    save_model(directory, model.state_dict(), model.settings, TOKENIZER)
    return directory


def use_float64(monkeypatch):
    """Let all models compute in float64."""
    monkeypatch.setattr(ModelFiles, "settings", lambda *_: DOUBLE)


@contextmanager
def running(site) -> Iterator[str]:
    """Serve a site with uvicorn on a free port of this machine; yields its URL."""
    config = uvicorn.Config(
        create_app(site),
        host="127.0.0.1",
        port=0,
        http=connection_with(site.limits),
        log_level="warning",
        access_log=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def wait_until(condition, seconds=20.0):
    """Wait until a condition holds; fail if it doesn't in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
