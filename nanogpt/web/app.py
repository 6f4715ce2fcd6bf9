"""The application: its endpoints, its files, and what guards them."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from nanogpt import __version__
from nanogpt.web import operations, reports, runs, runs_api
from nanogpt.web.index import Index
from nanogpt.web.site import Site

STATIC = Path(__file__).parent / "static"

# Each area of the site has a module with a router.
ROUTERS = (operations.router, runs.router, runs_api.router, reports.router)


def create_app(site: Site) -> FastAPI:
    """Return the ASGI application of a site."""
    app = FastAPI(title="nanogpt", version=__version__, docs_url=None, redoc_url=None)
    app.state.site = site
    app.state.index = Index(site)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app
