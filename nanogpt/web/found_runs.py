"""One run for a page or an answer: its entry, its files and what they contain."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fastapi import HTTPException

from nanogpt.artifacts.states import METRICS
from nanogpt.report.run import Run
from nanogpt.web.entries import Entry, read_files
from nanogpt.web.index import Index
from nanogpt.web.run_files import RunFiles, find_one, is_run_name, read_end, read_start
from nanogpt.web.site import Site

SAMPLE_BYTES = 40_000  # of samples.txt, from its start
LOG_BYTES = 64_000  # of a log, from its end
Stage = Literal["train", "eval", "sample", "bench"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class FoundRun:
    """A run. files: None if it has none yet."""

    site: Site
    entry: Entry
    files: RunFiles | None

    @property
    def metrics(self) -> Path:
        """Its metrics, which may not exist yet."""
        return self.files.metrics if self.files else self.site.results / self.entry.name / METRICS

    def read(self) -> Run:
        """Read everything about it."""
        run = read_files(self.files) if self.files else None
        return run or Run(self.entry.name, status="failed")

    def samples(self) -> str | None:
        """Return the start of its samples; None if it has none."""
        if self.files is None or self.files.link:
            return None
        return read_start(self.files.directory / "samples.txt", self.site.results, SAMPLE_BYTES)

    def log(self, stage: Stage) -> str | None:
        """Return the end of a stage's log; None if there's none."""
        if self.files is None or self.files.link:
            return None
        return read_end(self.files.directory / f"{stage}.log", self.site.results, LOG_BYTES)

    def logs(self) -> list[Stage]:
        """Return the stages that have a log."""
        return [stage for stage in STAGES if self.log(stage) is not None]


def find_run(site: Site, index: Index, name: str) -> FoundRun:
    """Find a run.

    Errors: HTTPException 404 if there's no such run.
    """
    # An answer must not repeat what isn't a name.
    if not is_run_name(name):
        raise HTTPException(404, "no such run")
    entry = index.entry(name)
    files = find_one(site, name)
    if entry is None and files is None:
        raise HTTPException(404, f"no run named `{name}`")
    # A run may not have been read yet, or may not be one.
    if entry is None:
        run = read_files(files) if files else None
        if run is None:
            raise HTTPException(404, f"no run named `{name}`")
        entry = Entry(name=name, status=run.status, note=run.note, dataset=run.dataset)
    return FoundRun(site, entry, files)


def find_runs(site: Site, index: Index, names: Sequence[str]) -> list[FoundRun]:
    """Find several runs, each once.

    Errors: HTTPException 404 if there's no such run.
    """
    return [find_run(site, index, name) for name in dict.fromkeys(names)]
