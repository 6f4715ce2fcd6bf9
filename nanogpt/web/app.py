"""The application: its endpoints, its files, and what guards them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from nanogpt import __version__
from nanogpt.web import completions, operations
from nanogpt.web.meters import Meters
from nanogpt.web.models import Models
from nanogpt.web.site import Site

STATIC = Path(__file__).parent / "static"

# Each area of the site has a module with a router.
ROUTERS = (operations.router, completions.router)


def create_app(site: Site) -> FastAPI:
    """Return the ASGI application of a site."""
    meters = Meters()
    models = Models(site, meters)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        models.close()

    app = FastAPI(
        title="nanogpt", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.site, app.state.meters, app.state.models = site, meters, models
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app
