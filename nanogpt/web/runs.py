"""The pages of runs, and /api/runs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from nanogpt.report.runs import find_runs
from nanogpt.web.pages import page
from nanogpt.web.site import Site, site_of

router = APIRouter(tags=["runs"])


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def runs_page(request: Request, site: Annotated[Site, Depends(site_of)]) -> HTMLResponse:
    """Show the list of runs."""
    return page(request, "runs.html", runs=find_runs(site.results, site.project))
