"""What the list of runs shows about trainings that were started from the page.

A run has no files before Snakemake begins its training, or if it fails before. The page shows it
nevertheless, with the last line that its process printed.
"""

from collections.abc import Iterable, Mapping

from nanogpt.web.entries import Entry
from nanogpt.web.jobs import ENDED, Job

# The training of a run with such a status may still be to come.
UNTRAINED = ("stopped", "failed")


def add_jobs(entries: Mapping[str, Entry], jobs: Iterable[Job]) -> dict[str, Entry]:
    """Return the entries of all runs: of their files, with what their jobs add."""
    found, first = dict(entries), ""
    for job in jobs:
        entry = found.get(job.run)
        if entry is None:
            entry = _without_files(job)
        elif job.state not in ENDED and entry.status in UNTRAINED:
            # Those are the states of the training before, if its files are older than the job.
            if entry.updated < job.since:
                entry = entry.model_copy(update={"status": "waiting", "note": job.message})
        elif job.state not in ENDED and entry.status == "not evaluated":
            entry = entry.model_copy(update={"note": "being evaluated"})
        elif job.state == "failed" and entry.status in UNTRAINED and not entry.note:
            entry = entry.model_copy(update={"note": job.message})
        if entry and entry.status == "waiting" and job.state == "queued" and first:
            note = f"starts when the training of `{first}` ends"
            entry = entry.model_copy(update={"note": note})
        if entry:
            found[job.run] = entry
        if job.state not in ENDED:
            first = first or job.run
    return found


def _without_files(job: Job) -> Entry | None:
    if job.state == "done":  # its results were removed
        return None
    if job.state in ("stopped", "failed"):
        note = job.message if job.state == "failed" else ""
        return Entry(name=job.run, status=job.state, note=note, updated=job.since)
    return Entry(name=job.run, status="waiting", note=job.message, updated=job.since)
