"""Actions, which exist with --allow-actions only: define, start and stop trainings, upload texts.

The guard lets a request through to them only with the token and from a page of this server. Each is
logged in one line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from nanogpt.config.adding import remove_unused
from nanogpt.config.loading import read
from nanogpt.config.resolving import run_names
from nanogpt.errors import UserError
from nanogpt.web.actions_log import log_action
from nanogpt.web.forms import Name, NewRun, define_run, make_form, values_of
from nanogpt.web.jobs import Jobs, State, TrainingJob
from nanogpt.web.pages import page
from nanogpt.web.site import SiteOf
from nanogpt.web.texts import receive_text

router = APIRouter(tags=["actions"])


def jobs_of(request: Request) -> Jobs:
    """Return the jobs of the site that a request is for."""
    jobs: Jobs = request.app.state.jobs
    return jobs


OurJobs = Annotated[Jobs, Depends(jobs_of)]


class JobStatus(BaseModel):
    """A training that was started from the page. message: the last line that it printed."""

    run: str
    state: State
    message: str

    @classmethod
    def of(cls, job: TrainingJob) -> "JobStatus":
        """Return a job's status."""
        return cls(run=job.run, state=job.state, message=job.message)


class Stopped(BaseModel):
    """What was stopped."""

    run: str
    message: str


class NewText(BaseModel):
    """A text that was uploaded, and the dataset that it is."""

    file: str
    dataset: str
    n_bytes: int


@router.get("/new", response_class=HTMLResponse, include_in_schema=False)
def new_page(request: Request, site: SiteOf) -> HTMLResponse:
    """Show the form of a new run."""
    config = read(site.project.config_file)
    main, others = make_form(config)
    return page(
        request,
        "new.html",
        main=main,
        others=others,
        datasets=sorted(config.datasets),
        runs=run_names(config),
        upload_bytes=site.limits.upload_bytes,
    )


@router.get("/api/settings")
def show_settings(site: SiteOf, run: Name = "", preset: Name = "") -> dict[str, str]:
    """Return the settings of a run, of a dataset's own run, or of a new text.

    They are by name as in the form of a new run. preset: another model preset.
    """
    return values_of(read(site.project.config_file), run, preset)


@router.post("/api/runs", status_code=202)
def create_run(request: Request, site: SiteOf, jobs: OurJobs, form: NewRun) -> JobStatus:
    """Define a run and train it, then evaluate it and draw samples.

    The settings are checked as those of `nanogpt train --name=... --<setting>=...`, and written to
    the same file in resources/config/. If the training can't start, or ends before its first step,
    that file is removed, so that the settings can be corrected.
    """
    run, fragments = define_run(site.project, form)
    try:
        return _start(request, jobs, run, fragments)
    except (HTTPException, UserError):
        remove_unused(fragments, site.project)
        raise


@router.post("/api/runs/{run}/resume", status_code=202)
def resume_run(request: Request, jobs: OurJobs, run: str) -> JobStatus:
    """Train a run, or continue its training, then evaluate it and draw samples."""
    return _start(request, jobs, run)


@router.post("/api/runs/{run}/stop")
def stop_run(request: Request, jobs: OurJobs, run: str) -> Stopped:
    """Stop a run's training, which saves its state first."""
    message = jobs.stop(run)
    log_action(request.scope, f"stop {message}")
    return Stopped(run=run, message=message)


@router.get("/api/jobs")
def list_jobs(jobs: OurJobs) -> list[JobStatus]:
    """List the trainings that were started from the page."""
    return [JobStatus.of(job) for job in jobs.all()]


@router.get("/api/jobs/{run}")
def show_job(jobs: OurJobs, run: str) -> JobStatus:
    """Return the state of a training that was started from the page."""
    return JobStatus.of(jobs.find(run))


@router.get("/api/jobs/{run}/log", response_class=PlainTextResponse)
def show_job_log(jobs: OurJobs, run: str) -> PlainTextResponse:
    """Return the end of what a training printed."""
    return PlainTextResponse(jobs.find(run).tail())


@router.post(
    "/api/texts",
    status_code=201,
    openapi_extra={"requestBody": {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def upload_text(
    request: Request,
    site: SiteOf,
    name: Annotated[str, Query(max_length=255, description="name of the text, as of a file")],
) -> NewText:
    """Upload a text in any encoding to resources/texts/, where it's a dataset and a run."""
    try:
        place = await receive_text(site.project, name, site.limits.upload_bytes, request.stream())
    except ClientDisconnect:
        raise HTTPException(400, "the upload is incomplete") from None
    n_bytes = place.stat().st_size
    log_action(request.scope, f"upload {place} ({n_bytes:,} bytes)")
    return NewText(file=place.name, dataset=place.stem, n_bytes=n_bytes)


def _start(request: Request, jobs: Jobs, run: str, fragments: Sequence[Path] = ()) -> JobStatus:
    job = jobs.start(run, fragments)
    log_action(request.scope, f"start {run}")
    return JobStatus.of(job)
