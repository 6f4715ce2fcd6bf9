"""Manage the states of unfinished trainings: their directories, owners and removal.

`.nanogpt/state/<version>/` contains run.json (the request), the lock, the metrics so far and the
saved states. training/saved_state.py defines the content of saved states, state_files.py their
names.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.manifests import Request, TrainingRequest
from nanogpt.errors import ClaimedError, DivergedError, UserError
from nanogpt.files import locks
from nanogpt.files.atomic import write_text
from nanogpt.project import Project

logger = logging.getLogger(__name__)

REQUEST = "run.json"
METRICS = "metrics.jsonl"
SAVED_STATES = "step-*.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """The state of a training owned by this process.

    check_lock: raises UserError if another process has taken over, before a state is saved.
    check_owner: also raises ClaimedError for another claim on the run, before results are written.
    """

    directory: Path
    version: str
    check_lock: Callable[[], None] = lambda: None
    check_owner: Callable[[], None] = lambda: None


@contextmanager
def hold(project: Project, request: TrainingRequest) -> Iterator[TrainingState]:
    """Own the state of a training, waiting until no other process does.

    The state is removed if the block ends without an error. After an error it's kept if a state
    was saved or, for the metrics, if the training diverged.
    """
    run, version = request.run, request.version
    directory = project.states / version
    # A process still training this run with other settings sees this new claim and stops.
    claim = project.claims / run
    write_text(claim, version)
    with locks.hold(directory, f"training {run}") as lock:

        def check_owner() -> None:
            lock.check()
            if claim.exists() and claim.read_bytes() != version.encode():
                raise ClaimedError(
                    f"{run}: another process has started to train this run with different settings "
                    "or code; stopping"
                )

        # Directories left by a process that was killed while removing its state.
        for leftover in project.states.glob(f".{version}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not is_saved(directory):
            _log_other_trainings(project, request)
        write_record(directory / REQUEST, request)
        finished = diverged = False
        try:
            yield TrainingState(directory, version, lock.check, check_owner)
            finished = True
        except DivergedError:
            diverged = True
            raise
        finally:
            kept = diverged or is_saved(directory)
            # If another process has taken over, the state belongs to that process.
            if lock.is_mine() and (finished or not kept):
                # Renamed first, so that it vanishes atomically for waiting processes.
                doomed = Path(tempfile.mkdtemp(dir=project.states, prefix=f".{version}."))
                directory.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)


def is_saved(directory: Path) -> bool:
    """Whether a training has saved a state in its directory."""
    return any(directory.glob(SAVED_STATES))


def find_trainings(project: Project) -> dict[str, Path]:
    """The state directory of each run's unfinished training, the latest if there are several.

    The latest is the one that has claimed the run, or else the one with the latest date.
    """
    found: dict[str, tuple[tuple[bool, float], Path]] = {}
    for path in project.states.glob(f"[!.]*/{REQUEST}"):
        # The file may be damaged, or the training may finish while it's read.
        with contextlib.suppress(UserError, FileNotFoundError):
            run = read_record(path, TrainingRequest).run
            began = (_is_claimed(project, run, path.parent.name), path.stat().st_mtime)
            if run not in found or found[run][0] < began:
                found[run] = (began, path.parent)
    return {run: directory for run, (_, directory) in sorted(found.items())}


def _is_claimed(project: Project, run: str, version: str) -> bool:
    """Whether this version of a run's training was started last."""
    try:
        return (project.claims / run).read_bytes() == version.encode()
    except OSError:
        return False


def find_metrics(project: Project, results: Path) -> dict[str, Path]:
    """The metrics.jsonl of each run by name, including those of unfinished trainings.

    results: the directory of finished runs.
    """
    growing = {run: state / METRICS for run, state in find_trainings(project).items()}
    # A training removes its run's metrics from results/ when it starts.
    return growing | {path.parent.name: path for path in results.glob(f"*/{METRICS}")}


def _log_other_trainings(project: Project, request: TrainingRequest) -> None:
    """Warn about saved trainings of the same run that a user may have expected to resume."""
    for directory in sorted(project.states.glob("[!.]*")):
        if directory.name == request.version or not is_saved(directory):
            continue
        with contextlib.suppress(UserError):
            other = read_record(directory / REQUEST, TrainingRequest)
            if other.run == request.run:
                logger.warning(
                    "%s: found an unfinished training of %s with different %s; starting from "
                    "scratch (the old state is kept)",
                    directory,
                    request.run,
                    ", ".join(_differences(other, request)),
                )


def _differences(other: Request, request: Request) -> list[str]:
    """The settings in which two requests differ; otherwise `code` or `inputs`."""
    before, now = (
        {
            f"{group}.{name}": value
            for group, settings in one.parameters.items()
            if isinstance(settings, dict)
            for name, value in settings.items()
        }
        for one in (other, request)
    )
    names = [name for name in now | before if before.get(name) != now.get(name)]
    same_inputs = list(other.inputs.values()) == list(request.inputs.values())
    return names or (["code"] if same_inputs else ["inputs"])
