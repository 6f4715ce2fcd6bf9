"""The application: its endpoints, its files, and what guards them."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from nanogpt import __version__
from nanogpt.web import operations, playground, runs
from nanogpt.web.errors import add_error_handlers
from nanogpt.web.guard import Guard
from nanogpt.web.site import Site

STATIC = Path(__file__).parent / "static"

# Each area of the site has a module with a router.
ROUTERS = (operations.router, runs.router, playground.router)


class Application(FastAPI):
    """An application behind a guard, which sees every request and response."""

    def __init__(self, site: Site) -> None:
        super().__init__(title="nanogpt", version=__version__, docs_url=None, redoc_url=None)
        self.guard = Guard(site)
        self.state.site = site

    def build_middleware_stack(self) -> ASGIApp:
        """Put the guard around everything, even the handler of bugs."""
        return self.guard.around(super().build_middleware_stack())


def create_app(site: Site) -> Application:
    """Return the ASGI application of a site."""
    app = Application(site)
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app
