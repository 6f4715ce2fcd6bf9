"""The index of all runs. Their files are the truth: what changed is read again."""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from nanogpt.files.locks import STALE
from nanogpt.report.run import natural_order
from nanogpt.web.entries import Entry, RunValues, read_entry
from nanogpt.web.index_file import PATIENCE, IndexFile, Row
from nanogpt.web.jobs import Jobs, State, TrainingJob
from nanogpt.web.run_files import RunFiles, find_all, find_awaited
from nanogpt.web.site import Site

LOOK = 0.5  # seconds between looks at the files, however many clients there are
BUDGET = 1.0  # seconds of a look; the next one continues
AWAITED: Sequence[State] = ("queued", "running")  # jobs whose training begins or may have begun
SHARE = 0.05  # the largest share of the time for reading one growing run again and again


@dataclass(frozen=True)
class Listing:
    """Runs, in order. n_runs: of all. n_unread: of those not read yet. revision: of the listing."""

    entries: list[Entry]
    n_runs: int
    n_unread: int
    revision: int


@dataclass
class _Pulse:
    """When a training gave its last new sign of life, as far as this process has seen."""

    moved: int
    seen: float = -math.inf


class Index:
    """An index of a site's runs. Any thread may use it.

    jobs: trainings that were started from the page. They have entries before they have files.
    """

    def __init__(self, site: Site, jobs: Jobs | None = None) -> None:
        self._site = site
        self._jobs = jobs
        # Other results than the project's own aren't worth a file.
        self._file = IndexFile(site.project.run_index if site.shows_own_results else None)
        self._looking = threading.Lock()  # of the only thread that looks at the files
        self._lock = threading.Lock()  # of what's shown; never held for long
        self._rows: dict[str, Row] | None = None
        self._not_runs: dict[str, str] = {}  # stamps of directories that aren't runs
        self._shown: dict[str, Entry] = {}
        self._changed: dict[str, int] = {}  # the revision of each run's last change
        self._order: list[str] = []
        self._revision = int(time.time() * 1000)  # so that no restart goes back
        self._read: dict[str, tuple[float, float]] = {}  # when, and how long it took
        self._pulses: dict[str, _Pulse] = {}
        self._looked = -LOOK
        self._has_looked = False
        self._n_unread = 0

    def listing(self, since: int = 0) -> Listing:
        """Return all runs, or those that changed since a revision.

        While another thread looks at the files, which may take long, it's what the last look found.
        """
        # There's nothing to return before the first look.
        if self._looking.acquire(blocking=not self._has_looked):
            try:
                if time.monotonic() - self._looked >= LOOK:
                    self._look()
                    self._has_looked = True
            finally:
                self._looking.release()
        with self._lock:
            entries = [self._shown[name] for name in self._order if self._changed[name] > since]
            return Listing(entries, len(self._order), self._n_unread, self._revision)

    def names(self) -> list[str]:
        """Return the names of all runs as of the last look."""
        with self._lock:
            return list(self._order)

    def entry(self, name: str) -> Entry | None:
        """Return a run's entry; None if there's no such run."""
        self.listing()
        with self._lock:
            found = self._shown.get(name)
        # A training may have been started since the last look.
        job = self._started().get(name)
        return found or (entry_of(job) if job else None)

    def settings(self, name: str) -> RunValues:
        """Return a run's settings as of the last look."""
        with self._lock:
            row = (self._rows or {}).get(name)
            return dict(row.settings) if row else {}

    def close(self) -> None:
        """Close the index's file, unless a look goes on."""
        if self._looking.acquire(timeout=PATIENCE):
            try:
                self._file.close()
            finally:
                self._looking.release()

    def _look(self) -> None:
        if self._rows is None:
            self._rows = self._file.load()
        found = find_all(self._site)
        n_unread = self._update(self._rows, found)
        awaited, started = find_awaited(self._site.project)
        begun = dict.fromkeys(awaited, started)
        jobs = self._started()
        # No error is later than the start of what hasn't been started yet.
        begun |= {name: math.inf for name, job in jobs.items() if job.state in AWAITED}
        shown = {
            name: self._live(row.entry, found[name], begun.get(name))
            for name, row in self._rows.items()
        }
        unread = found.keys() - shown.keys() - self._not_runs.keys()
        for name in (begun.keys() | jobs.keys()) - shown.keys() - unread:
            entry = Entry(name=name, status="waiting") if name in begun else entry_of(jobs[name])
            if entry:
                shown[name] = entry
        with self._lock:
            self._n_unread = n_unread
            self._show(shown)
        # A look that has left something over goes on at once.
        self._looked = -LOOK if n_unread else time.monotonic()

    def _update(self, rows: dict[str, Row], found: dict[str, RunFiles]) -> int:
        """Read again what changed. Returns how many runs are left for the next look."""
        begun, n_unread = time.monotonic(), 0
        changed = []
        for name, files in found.items():
            stamp = rows[name].stamp if name in rows else self._not_runs.get(name)
            if stamp == files.stamp or self._is_too_soon(files):
                continue
            if time.monotonic() - begun > BUDGET:
                n_unread += 1
                continue
            start = time.monotonic()
            read = read_entry(files)
            self._read[name] = (time.monotonic(), time.monotonic() - start)
            if read is None:
                self._not_runs[name] = files.stamp
                continue
            self._not_runs.pop(name, None)
            entry, settings = read
            rows[name] = Row(stamp=files.stamp, entry=entry, settings=settings)
            changed.append(rows[name])
        removed = [name for name in rows if name not in found or name in self._not_runs]
        for name in removed:
            del rows[name]
        if changed or removed:
            self._file.save(changed, removed)
        return n_unread

    def _is_too_soon(self, files: RunFiles) -> bool:
        """Whether a training has grown, but reading it again and again would take long."""
        if files.owner is None or files.name not in self._read:
            return False
        when, took = self._read[files.name]
        return time.monotonic() - when < took / SHARE

    def _started(self) -> dict[str, TrainingJob]:
        """Return the trainings that were started from the page, by run."""
        return {job.run: job for job in self._jobs.all()} if self._jobs else {}

    def _live(self, entry: Entry, files: RunFiles, started: float | None) -> Entry:
        """Add what changes without a change of the files that an entry is made from.

        started: when something was started that will train the run; None if nothing will.
        """
        if entry.status == "training" and files.owner:
            changes: dict[str, object] = {"heartbeat": files.moved / 1e9, "updated": files.updated}
            if self._is_silent(files):
                changes |= {"status": "stalled", "seconds_left": None}
            return entry.model_copy(update=changes)
        # A run that failed or was stopped since then won't be tried again.
        is_over = entry.status in ("stopped", "failed")
        if started is not None and is_over and entry.updated < started:
            return entry.model_copy(update={"status": "waiting", "note": ""})
        return entry

    def _is_silent(self, files: RunFiles) -> bool:
        """Whether a training has given no sign of life for long.

        Another machine's clock may differ, so a sign that's new counts, whatever its time.
        """
        pulse = self._pulses.setdefault(files.name, _Pulse(files.moved))
        if pulse.moved != files.moved:
            pulse.moved, pulse.seen = files.moved, time.monotonic()
        return time.time() - files.moved / 1e9 > STALE and time.monotonic() - pulse.seen > STALE

    def _show(self, shown: dict[str, Entry]) -> None:
        news = [name for name, entry in shown.items() if self._shown.get(name) != entry]
        if shown.keys() != self._shown.keys():
            self._order = sorted(shown, key=natural_order)
        if news or len(shown) != len(self._shown):
            self._revision = max(self._revision + 1, int(time.time() * 1000))
        self._changed = {name: self._changed.get(name, 0) for name in shown}
        self._changed |= dict.fromkeys(news, self._revision)
        self._shown = shown


def entry_of(job: TrainingJob) -> Entry | None:
    """Return the entry of a training that has no files; None if it's done."""
    if job.state in AWAITED:
        return Entry(name=job.run, status="waiting")
    if job.state == "failed":
        return Entry(name=job.run, status="failed", note=job.message)
    return None if job.state == "done" else Entry(name=job.run, status="stopped")


def index_of(request: Request) -> Index:
    """Return the index of the site that a request is for; a dependency of endpoints."""
    index: Index = request.app.state.index
    return index


# A parameter of an endpoint.
IndexOf = Annotated[Index, Depends(index_of)]
