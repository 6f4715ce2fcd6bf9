"""/api/runs: the list of runs, and the curves, settings, samples and logs of each."""

import json
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, JsonValue

from nanogpt.web.curves import Curves, no_curves, read_curves
from nanogpt.web.entries import Entry
from nanogpt.web.found_runs import Stage, find_run
from nanogpt.web.index import IndexOf
from nanogpt.web.site import SiteOf

router = APIRouter(prefix="/api/runs", tags=["runs"])


class RunList(BaseModel):
    """Runs. n_runs: how many there are. n_unread: how many haven't been read yet.

    revision: the `since` of a request for what changes after this answer.
    """

    runs: list[Entry]
    n_runs: int
    n_unread: int
    revision: int


class RunDetails(BaseModel):
    """A run. settings: `group.name`: value. evaluation: its eval.json; null if it has none."""

    run: Entry
    settings: dict[str, JsonValue]
    evaluation: dict[str, JsonValue] | None


class TextOfRun(BaseModel):
    """A part of a text file of a run."""

    text: str


@router.get("")
def list_runs(index: IndexOf, since: Annotated[int, Query(ge=0)] = 0) -> RunList:
    """List all runs, or those that changed since a revision."""
    listing = index.listing(since)
    return RunList(
        runs=listing.entries,
        n_runs=listing.n_runs,
        n_unread=listing.n_unread,
        revision=listing.revision,
    )


@router.get("/{name}")
def get_run(name: str, site: SiteOf, index: IndexOf) -> RunDetails:
    """Return a run's state, settings and evaluation."""
    found = find_run(site, index, name)
    run = found.read()
    evaluation = run.evaluation.content() if run.evaluation else None
    # Settings can't hold NaN or infinity, but a damaged manifest could.
    settings = json.loads(json.dumps(dict(run.settings)), parse_constant=lambda _: None)
    return RunDetails(run=found.entry, settings=settings, evaluation=evaluation)


@router.get("/{name}/curves")
def get_curves(name: str, site: SiteOf, index: IndexOf, since: str = "") -> Curves:
    """Return a run's losses, learning rate and speed, or only those after an earlier answer."""
    found = find_run(site, index, name)
    if found.files is None:  # it will be trained
        return no_curves()
    if found.files.link:
        raise HTTPException(404, f"`{name}` has no metrics")
    return read_curves(found.metrics, since)


@router.get("/{name}/samples")
def get_samples(name: str, site: SiteOf, index: IndexOf) -> TextOfRun:
    """Return the start of a run's samples."""
    text = find_run(site, index, name).samples()
    if text is None:
        raise HTTPException(404, f"`{name}` has no samples")
    return TextOfRun(text=text)


@router.get("/{name}/log")
def get_log(
    name: str,
    site: SiteOf,
    index: IndexOf,
    stage: Stage = "train",
) -> TextOfRun:
    """Return the end of the log of one of a run's stages; empty if there's none."""
    return TextOfRun(text=find_run(site, index, name).log(stage) or "")
