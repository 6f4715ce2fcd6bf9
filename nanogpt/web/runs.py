"""The pages of runs: the list, a run, and several compared."""

import math
import time
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from starlette.exceptions import HTTPException

from nanogpt.report.run import natural_order
from nanogpt.web import entries, run_tables
from nanogpt.web.entries import ACTIVE, Entry
from nanogpt.web.found_runs import FoundRun, find_run, find_runs
from nanogpt.web.index import Index, IndexOf
from nanogpt.web.jobs import Jobs
from nanogpt.web.pages import page, templates
from nanogpt.web.reports import report_pages
from nanogpt.web.site import Site, SiteOf
from nanogpt.web.wording import ago

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

Column = Literal["run", "status", "progress", "loss", "bits", "parameters", "dataset", "updated"]

MOST_COMPARED = 12  # as many as there are looks of curves
STATUSES = get_args(entries.Status)

# What each column of the list sorts by; an infinite value comes last.
ORDERS: dict[str, Callable[[Entry], object]] = {
    "run": lambda entry: natural_order(entry.name),
    "status": lambda entry: (entry.status, natural_order(entry.name)),
    "progress": lambda entry: _known(share_done(entry)),
    "loss": lambda entry: _known(entry.best_val_loss),
    "bits": lambda entry: _known(entry.bits_per_byte),
    "parameters": lambda entry: _known(entry.n_parameters),
    "dataset": lambda entry: (natural_order(entry.dataset), natural_order(entry.name)),
    "updated": lambda entry: -entry.updated,
}


def share_done(entry: Entry) -> float | None:
    """Return the share of its steps that a run has done; None if it isn't known."""
    if entry.step is None or not entry.max_iters:
        return None
    return entry.step / entry.max_iters


@router.get("/")
def runs_page(
    request: Request,
    site: SiteOf,
    index: IndexOf,
    q: str = "",
    status: str = "",
    sort: Column = "run",
    descending: bool = False,
) -> HTMLResponse:
    """Show the list of runs. The page's script filters and sorts too, without a request."""
    listing = index.listing()
    shown = _sorted([e for e in listing.entries if _matches(e, q, status)], sort, descending)
    return page(
        request,
        "runs.html",
        rows=render_rows(shown),
        listing=listing,
        q=q,
        status=status,
        statuses=STATUSES,
        sort=sort,
        descending=descending,
        reports=report_pages(site),
        most=MOST_COMPARED,
    )


@router.get("/rows")
def changed_rows(
    request: Request, index: IndexOf, since: Annotated[int, Query(ge=0)] = 0
) -> HTMLResponse:
    """Return the rows of runs that changed since a revision, for the page's script."""
    listing = index.listing(since)
    return page(request, "rows.html", rows=render_rows(listing.entries), listing=listing)


def render_rows(runs: Sequence[Entry]) -> list[Markup]:
    """Render the rows of a table of runs. Most are as they were the last time."""
    now = time.time()
    return [_render_row(run, ago(now - run.updated)) for run in runs]


@lru_cache(maxsize=8192)
def _render_row(run: Entry, changed: str) -> Markup:
    rendered: Markup = _parts().row(run, changed)
    return rendered


@cache
def _parts() -> Any:
    return templates.env.get_template("run_parts.html").module


@router.get("/runs/{name}")
def run_page(request: Request, name: str, site: SiteOf, index: IndexOf) -> HTMLResponse:
    """Show a run."""
    found = _find_for_page(site, index, [name])
    if isinstance(found, str):
        return page(request, "missing.html", 404, message=found)
    run = found[0].read()
    _, settings = run_tables.differences_table([run])
    logs = found[0].logs()
    return page(
        request,
        "run.html",
        run=found[0].entry,
        now=time.time(),
        active=ACTIVE,
        is_evaluated=run.evaluation is not None,
        numbers=run_tables.numbers_table([run]),
        positions=run_tables.positions_table([run]),
        kinds=run_tables.kinds_table([run]),
        curve=run_tables.curve_table(run),
        settings=settings,
        samples=found[0].samples(),
        logs=logs,
        log=found[0].log(logs[0]) if logs else None,
        environment=run.environment.model_dump(exclude_none=True) if run.environment else {},
        reports=report_pages(site),
        is_started=_is_started(request, name),
    )


@router.get("/runs/{name}/state")
def run_state(request: Request, name: str, site: SiteOf, index: IndexOf) -> HTMLResponse:
    """Return the top of a run's page, for the page's script."""
    return page(
        request,
        "state.html",
        run=find_run(site, index, name).entry,
        now=time.time(),
        is_started=_is_started(request, name),
    )


@router.get("/compare")
def compare_page(
    request: Request,
    site: SiteOf,
    index: IndexOf,
    run: Annotated[list[str] | None, Query()] = None,
) -> HTMLResponse:
    """Overlay the curves of several runs, and show what differs between them."""
    names = list(dict.fromkeys(run or []))[:MOST_COMPARED]
    found = _find_for_page(site, index, names)
    if isinstance(found, str):
        return page(request, "missing.html", 404, message=found)
    runs = [one.read() for one in found]
    differences, shared = run_tables.differences_table(runs)
    return page(
        request,
        "compare.html",
        runs=[one.entry for one in found],
        all_names=[name for name in index.names() if name not in names],
        now=time.time(),
        active=ACTIVE,
        most=MOST_COMPARED,
        differences=differences,
        shared=shared,
        numbers=run_tables.numbers_table(runs),
        positions=run_tables.positions_table(runs),
        kinds=run_tables.kinds_table(runs),
    )


def _find_for_page(site: Site, index: Index, names: Sequence[str]) -> list[FoundRun] | str:
    """Find runs; a message if there's one that doesn't exist."""
    try:
        return find_runs(site, index, names)
    except HTTPException as error:
        return error.detail


def _is_started(request: Request, name: str) -> bool:
    """Whether a run's training was started from the page and hasn't ended."""
    jobs: Jobs | None = request.app.state.jobs
    return jobs is not None and jobs.is_active(name)


def _matches(entry: Entry, words: str, status: str) -> bool:
    text = f"{entry.name} {entry.dataset} {entry.status}".lower()
    return all(word in text for word in words.lower().split()) and status in ("", entry.status)


def _sorted(found: list[Entry], sort: Column, descending: bool) -> list[Entry]:
    """Sort runs; those without a value come last in both directions."""
    order = ORDERS[sort]
    unknown = [entry for entry in found if order(entry) == math.inf]
    known = [entry for entry in found if order(entry) != math.inf]
    return sorted(known, key=order, reverse=descending) + unknown  # type: ignore[arg-type]


def _known(value: float | None) -> float:
    return math.inf if value is None else value
