"""The application: its endpoints, its files, and what guards them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from nanogpt import __version__
from nanogpt.web import (
    actions,
    completions,
    operations,
    playground,
    reference,
    reports,
    runs,
    runs_api,
)
from nanogpt.web.errors import add_error_handlers
from nanogpt.web.guard import Guard
from nanogpt.web.index import Index
from nanogpt.web.jobs import Jobs
from nanogpt.web.meters import Meters
from nanogpt.web.models import Models
from nanogpt.web.site import Site

STATIC = Path(__file__).parent / "static"

# Each area of the site has a module with a router. The page /docs keeps their order.
ROUTERS = (
    completions.router,
    runs.router,
    runs_api.router,
    reports.router,
    playground.router,
    reference.router,
    operations.router,
)


class Application(FastAPI):
    """An application behind a guard, which sees every request and response."""

    def __init__(self, site: Site) -> None:
        super().__init__(
            title="nanogpt",
            version=__version__,
            docs_url=None,
            redoc_url=None,
            lifespan=_close_at_the_end,
        )
        self.guard = Guard(site)
        self.state.site = site
        jobs = Jobs(site) if site.allow_actions else None
        self.state.jobs = jobs
        self.state.index = Index(site, jobs)
        self.state.meters = Meters()
        self.state.models = Models(site, self.state.meters)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the guard around everything, even the handler of bugs."""
        return self.guard.around(super().build_middleware_stack())


@asynccontextmanager
async def _close_at_the_end(app: FastAPI) -> AsyncIterator[None]:
    yield
    await asyncio.to_thread(app.state.models.close)
    await asyncio.to_thread(app.state.index.close)
    if app.state.jobs:
        app.state.jobs.close()


def create_app(site: Site) -> Application:
    """Return the ASGI application of a site."""
    app = Application(site)
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    if site.allow_actions:
        app.include_router(actions.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app
