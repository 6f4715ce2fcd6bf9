"""Trainings that the page starts: one at a time, each a process of `nanogpt train`.

A training outlives the server: it's a process in a session of its own, and a record of it is kept
in .nanogpt/serve/, where the next server finds it. Snakemake decides what a training has to do, and
`nanogpt train` waits if another process has Snakemake's lock.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from starlette.exceptions import HTTPException

from nanogpt.artifacts.states import METRICS, find_trainings
from nanogpt.config.adding import remove_unused
from nanogpt.config.loading import read
from nanogpt.config.messages import look_up
from nanogpt.config.resolving import check_trains, resolve_run, run_names
from nanogpt.errors import UserError
from nanogpt.files import locks
from nanogpt.files.atomic import write_text
from nanogpt.project import Project
from nanogpt.web.site import Site

logger = logging.getLogger(__name__)

State = Literal["queued", "running", "stopping", "done", "stopped", "failed"]
ENDED: tuple[State, ...] = ("done", "stopped", "failed")
# Exit codes after SIGTERM or SIGINT, with and without a handler.
STOPPED = (-signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT)
POLL = 1.0  # seconds
LOG_TAIL = 65_536  # bytes
KEPT = 50  # ended jobs
RETRY_SECONDS = 60  # for a place in the queue


@dataclass
class TrainingJob:
    """A training that was started from the page. process: None until it runs.

    child: the same process, if this server started it. fragments: those that were written for this
    job, to define its run.
    """

    run: str
    log: Path
    state: State = "queued"
    process: locks.Owner | None = None
    child: subprocess.Popen[bytes] | None = None
    fragments: Sequence[Path] = ()

    def tail(self) -> str:
        """Return the end of what it printed."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    @property
    def message(self) -> str:
        """The last line that it printed: its progress, what it waits for, or its mistake."""
        lines = [line for line in self.tail().splitlines() if line.strip()]
        if not lines and self.state == "running":
            return "Snakemake is starting"
        return lines[-1] if lines else ""


class Jobs:
    """The trainings of a site: a queue, and a thread that starts them one after another."""

    def __init__(self, site: Site) -> None:
        self.project: Project = site.project
        self.most = site.limits.jobs
        self._changed = threading.Condition()
        self._jobs = {job.run: job for job in self._find_running()}
        self._thread: threading.Thread | None = None
        self._is_closed = False
        if self._jobs:
            self._run_thread()

    def all(self) -> list[TrainingJob]:
        """Return all jobs, the latest last."""
        with self._changed:
            return list(self._jobs.values())

    def find(self, run: str) -> TrainingJob:
        """Return a run's job.

        Errors: HTTPException if it has none.
        """
        with self._changed:
            if run not in self._jobs:
                raise HTTPException(404, f"{run}: not started from this page")
            return self._jobs[run]

    def is_active(self, run: str) -> bool:
        """Whether a run's training was started from the page and hasn't ended."""
        with self._changed:
            return run in self._jobs and self._jobs[run].state not in ENDED

    def start(self, run: str, fragments: Sequence[Path] = ()) -> TrainingJob:
        """Start a run's training, or continue it; if another one runs, as soon as that ends.

        fragments: those that were written for it; removed if it ends without a state or a result.

        Errors: UserError for a run that can't be trained; HTTPException if it's being trained or if
        too many are waiting.
        """
        config = read(self.project.config_file)
        look_up(run_names(config), run, "runs", "run")
        check_trains(resolve_run(config, run))
        with self._changed:
            job = self._jobs.get(run)
            if job and job.state not in ENDED:
                raise HTTPException(
                    409, f"{run}: already {job.state}; stop it, or wait until it ends"
                )
            owner = self._find_owner(run)
            if owner:
                raise HTTPException(
                    409, f"{run}: already being trained by {owner}; stop it, or wait until it ends"
                )
            if sum(job.state not in ENDED for job in self._jobs.values()) >= self.most:
                raise HTTPException(
                    429,
                    f"{self.most} trainings run or wait already; wait until one ends",
                    {"Retry-After": str(RETRY_SECONDS)},
                )
            self._jobs.pop(run, None)  # so that it becomes the latest
            self._forget_old()
            log = self.project.served / f"{run}.log"
            job = self._jobs[run] = TrainingJob(run, log, fragments=fragments)
            job.log.unlink(missing_ok=True)
            self._run_thread()
            self._changed.notify_all()
            return job

    def stop(self, run: str) -> str:
        """Stop a run's training, which saves its state. Returns what was stopped.

        It also stops a training that was started in a terminal of this machine.

        Errors: HTTPException if there's none, or if it's on another machine.
        """
        with self._changed:
            job = self._jobs.get(run)
            if job and job.state == "queued":
                self._remove_unused(job)
                job.state = "stopped"
                return f"{run}: taken out of the queue"
            if job and job.state not in ENDED and job.process:
                job.state = "stopping"
                return self._terminate(run, job.process)
        owner = self._find_owner(run)
        if owner is None:
            raise HTTPException(409, f"{run}: not being trained; reload the page to see its status")
        return self._terminate(run, owner)

    def close(self) -> None:
        """Start no more trainings. The one that runs continues."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            runs: dict[str, list[str]] = {state: [] for state in get_args(State)}
            for job in self._jobs.values():
                runs[job.state].append(job.run)
        if runs["queued"]:
            logger.warning("not started: %s", ", ".join(runs["queued"]))
        if runs["running"]:
            logger.warning("still training, without the server: %s", ", ".join(runs["running"]))

    def _run_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
            self._thread.start()

    def _terminate(self, run: str, owner: locks.Owner) -> str:
        if not owner.is_here() or owner.pid is None:
            raise HTTPException(409, f"{run}: trained by {owner}; stop it on that machine")
        try:
            os.kill(owner.pid, signal.SIGTERM)
        except ProcessLookupError:
            raise HTTPException(
                409, f"{run}: not being trained; reload the page to see its status"
            ) from None
        except PermissionError:
            raise HTTPException(
                409, f"{run}: trained by {owner}, which belongs to another user"
            ) from None
        return f"{run}: stopping {owner}"

    def _find_owner(self, run: str) -> locks.Owner | None:
        """Return the process that trains a run now, wherever it was started."""
        directory = find_trainings(self.project).get(run)
        return locks.owner(directory) if directory else None

    def _work(self) -> None:
        """Run the jobs in their order, one at a time."""
        while True:
            with self._changed:
                job = self._next()
                while job is None and not self._is_closed:
                    self._changed.wait(POLL)
                    job = self._next()
                if self._is_closed or job is None:
                    return
                if job.process is None:
                    self._begin(job)
            self._wait(job)

    def _next(self) -> TrainingJob | None:
        """Return the job to wait for: one that runs, or else the first of the queue."""
        waiting = [job for job in self._jobs.values() if job.state not in ENDED]
        return next((job for job in waiting if job.process), waiting[0] if waiting else None)

    def _begin(self, job: TrainingJob) -> None:
        """Start a job's process. If that isn't possible, its log has the reason."""
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("wb") as log:
                job.child = subprocess.Popen(
                    [sys.executable, "-m", "nanogpt", "train", job.run, "--complete"],
                    cwd=self.project.root,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C and the server's end don't reach it
                )
            job.process = locks.identify(job.child.pid, f"training {job.run}")
            job.state = "running"
            names = [path.name for path in job.fragments]
            record = {"process": asdict(job.process), "fragments": names}
            write_text(self._record_of(job.run), json.dumps(record))
        except OSError as error:
            if job.child is None:
                self._remove_unused(job)
                job.state = "failed"
            with contextlib.suppress(OSError):
                job.log.write_text(f"error: {error}\n")

    def _wait(self, job: TrainingJob) -> None:
        """Wait for the end of a job."""
        while not self._is_closed and job.state not in ENDED:
            if job.child:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._end(job, job.child.wait(POLL))
            elif job.process is None or job.process.is_gone():
                # Another server started it, so its exit code isn't known.
                self._end(job, 0 if self._has_new_samples(job.run) else 1)
            else:
                time.sleep(POLL)

    def _has_new_samples(self, run: str) -> bool:
        """Whether a training has made its last result since it was started."""
        samples = self.project.results / run / "samples.txt"
        try:
            return samples.stat().st_mtime >= self._record_of(run).stat().st_mtime
        except OSError:
            return False

    def _end(self, job: TrainingJob, code: int) -> None:
        if code:
            self._remove_unused(job)
        with self._changed:
            # A signal that came after the last step stopped nothing.
            is_stopped = code != 0 and (job.state == "stopping" or code in STOPPED)
            job.state = "stopped" if is_stopped else "failed" if code else "done"
            self._record_of(job.run).unlink(missing_ok=True)

    def _remove_unused(self, job: TrainingJob) -> None:
        """Remove the definition of a run without a state or a result, so it can be corrected."""
        directory = self.project.results / job.run
        is_trained = any((directory / name).exists() for name in (METRICS, "model"))
        if job.fragments and not is_trained and job.run not in find_trainings(self.project):
            with contextlib.suppress(OSError, UserError):
                remove_unused(job.fragments, self.project)

    def _record_of(self, run: str) -> Path:
        return self.project.served / f"{run}.json"

    def _find_running(self) -> list[TrainingJob]:
        """Return the trainings that an earlier server started and that still run."""
        found = []
        for path in sorted(self.project.served.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                record = json.loads(path.read_text("utf-8"))
                owner = locks.Owner(**record["process"])
                fragments = [self.project.fragments / Path(one).name for one in record["fragments"]]
                log = path.with_suffix(".log")
                job = TrainingJob(path.stem, log, "running", owner, fragments=fragments)
                if owner.is_here():
                    found.append(job)
                elif owner.is_gone():
                    self._remove_unused(job)
                    path.unlink()
        return found

    def _forget_old(self) -> None:
        ended = [run for run, job in self._jobs.items() if job.state in ENDED]
        for run in ended[:-KEPT]:
            del self._jobs[run]
