"""What surrounds the one call that a stage of the workflow makes.

Log, errors, threads, the cache, a training's state, and the manifest. What the call computes is the
business of the module that the adapter calls.
"""

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import JsonValue

from nanogpt.artifacts import cache, manifests, states
from nanogpt.artifacts.records.base import JsonObject, read_record, write_record
from nanogpt.artifacts.records.manifests import Layout, Manifest, Request, TrainingRequest
from nanogpt.artifacts.signals import exiting
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.parameters import AnySettings, complete
from nanogpt.errors import (
    ClaimedError,
    DivergedError,
    LostRankError,
    ToldElsewhereError,
    UserError,
    user_message,
)
from nanogpt.files import locks
from nanogpt.files.atomic import fit_name, remove_temporaries
from nanogpt.files.clocks import wait_until_past
from nanogpt.project import HERE, Project

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a stage is asked to make.

    parameters: groups of settings, with devices and dtypes resolved. training: the state of the
    training, which this process owns; none for other stages.
    """

    parameters: JsonObject
    version: str
    training: TrainingState | None = None

    def settings(
        self, group: str, model: type[AnySettings], *, partial: bool = False
    ) -> AnySettings:
        """A group of settings; see `config.parameters.complete`."""
        given = self.parameters[group]
        assert isinstance(given, dict), group
        return complete(model, given, partial=partial)

    def text(self, name: str) -> str:
        """A parameter that is no group, such as the name of a run."""
        value = self.parameters[name]
        assert isinstance(value, str), name
        return value


@dataclass(frozen=True)
class Made:
    """What a stage says of its outputs: a line for the terminal and where it was computed."""

    summary: str
    layouts: Sequence[Layout] = ()


class WorkflowJob(Protocol):
    """The part of Snakemake's `snakemake` object that a stage needs."""

    input: Sequence[str]
    output: Sequence[str]
    params: Any
    log: Sequence[str]
    threads: int
    processes: int
    sharded: bool


def shell_job() -> WorkflowJob:
    """The job that a `shell:` rule's command line describes, as Snakemake gives it to a script."""
    parser = argparse.ArgumentParser()
    for name in ("input", "output", "log"):
        parser.add_argument(f"--{name}", nargs="+")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sharded", type=lambda text: text.lower() in ("1", "true"), default=False)
    params: dict[str, Callable[[str], Any]] = {
        "run": str,
        "settings": json.loads,
        "untracked": json.loads,
        "code": str,
    }
    for name, kind in params.items():
        parser.add_argument(f"--{name}", type=kind)
    job = parser.parse_args()
    job.params = argparse.Namespace(**{name: getattr(job, name) for name in params})
    return cast(WorkflowJob, job)


@contextmanager
def logged(job: WorkflowJob, stage: str, project: Project = HERE) -> Iterator[None]:
    """Run a stage whose outputs are temporary: with a log, and without a manifest.

    A user's mistake ends the process with one line and exit code 1, a signal with 128 + n; anything
    else leaves its traceback in the log as well.
    """
    with _ending(stage):
        log = project.root / job.log[0]
        _log_to(log)
        wait_until_past((project.root / path for path in job.input), log.parent)
        yield


@contextmanager
def _ending(stage: str, told_by_others: tuple[type[UserError], ...] = ()) -> Iterator[None]:
    """Let errors and signals end the process as `logged` says.

    told_by_others: errors that another process says on the terminal.
    """
    try:
        with exiting():
            yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            logger.exception("stage %s failed", stage)
            raise
        logger.error(message)
        told = (*told_by_others, ToldElsewhereError)
        sys.exit(1 if isinstance(error, told) else f"error: {message}")


@contextmanager
def following(
    job: WorkflowJob, stage: str, rank: int, project: Project = HERE
) -> Iterator[Callable[[str, TrainingState], Job]]:
    """Run a part of a stage that rank 0 of several processes leads: without lock and manifest.

    Yields what makes the same job that rank 0 has, of its version and the training's state. Errors
    are treated as `logged` treats them; the log, which rank 0 begins, gets them from each rank.
    """
    with _ending(stage, (DivergedError, ClaimedError, LostRankError) if rank else ()):
        path = project.root / job.log[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        _add_handler(path, logging.ERROR, f"rank {rank}: ")
        yield lambda version, state: Job(_resolve(job.params.settings, job.threads), version, state)


def run_stage(
    job: WorkflowJob,
    stage: str,
    make: Callable[[Job], Made],
    *,
    check: Callable[[Mapping[str, str]], None] | None = None,
    inputs: Sequence[str] | None = None,
    more_outputs: Sequence[str] = (),
    more_directory: Path | None = None,
    cached: bool = True,
    run: str | None = None,
    project: Project = HERE,
) -> None:
    """Run a stage: restore the job's outputs from the cache, or make them; write their manifest.

    job.params: `settings`, groups of settings as parameters, and `code`, the stage's code digest.
    stage: its name in versions and manifests, whatever its rule is called. check: gets the sha256
    of each input by its path, before a restore too, and raises a UserError for one that isn't what
    the settings want. inputs: what the manifest names, if not all inputs: those that aren't
    temporary. more_outputs: what is made beside the declared outputs, in more_directory, which is
    removed first. run: the run that is trained. Its training has a state, which one process at a
    time owns: another one waits for it, and then takes what that one made.

    Errors are treated as `logged` treats them.
    """
    start = time.monotonic()
    with logged(job, stage, project):
        parameters = _resolve(job.params.settings, job.threads)
        manifest_path = next(path for path in job.output if path.endswith(manifests.SUFFIX))
        outputs = [*(path for path in job.output if path != manifest_path), *more_outputs]
        request = _request(
            project, stage, parameters, job.input if inputs is None else inputs, job.params.code
        )
        if check:
            check(request.inputs)
        logger.info("stage %s, version %s", stage, request.version)
        with _alone(project, manifest_path, request, run, job.params.settings) as training:
            if run and _is_made(project, manifest_path, request.version):
                logger.info("made by the process that this one waited for")
                return
            for path in (*outputs, manifest_path):
                remove_temporaries(project.root / path)
            if more_directory:
                shutil.rmtree(project.root / more_directory, ignore_errors=True)
            if cached and _restore(project, request, outputs, manifest_path):
                return
            made = make(Job(parameters, request.version, training))
            if training:
                training.check_owner()
            manifest = Manifest(
                **request.content(),
                summary=made.summary,
                outputs=manifests.digests(project, outputs),
                environment=manifests.environment(job.threads, made.layouts),
                wall_seconds=round(time.monotonic() - start, 3),
            )
            write_record(project.root / manifest_path, manifest)
            if cached:
                cache.store(project, manifest, cache.names_in_entry(outputs, manifest_path))
            _summarize(stage, manifest_path, made.summary)


def _request(
    project: Project, stage: str, parameters: JsonObject, inputs: Sequence[str], code: str
) -> Request:
    hashed = without_device_index(parameters)
    digests = manifests.digests(project, inputs)
    version = manifests.version(stage, hashed, digests, code)
    _note_functions(project, stage, code)
    return Request(stage=stage, version=version, inputs=digests, parameters=hashed, code=code)


def _note_functions(project: Project, stage: str, code: str) -> None:
    """Keep the digests of the functions that run here, by which `nanogpt why` names an edit.

    At the beginning, as the code may be edited while a long training goes on.
    """
    # Not at the top: a stage whose code was noted before doesn't parse it again.
    from nanogpt.artifacts.code_functions import note_functions

    adapter = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if adapter.stem == stage and adapter.is_file():
        note_functions(project, code, adapter)


def _restore(
    project: Project, request: Request, outputs: Sequence[str], manifest_path: str
) -> bool:
    """Restore a stage's outputs and manifest from the cache, if they are there."""
    names = cache.names_in_entry(outputs, manifest_path)
    entry = cache.restore(project, request.version, names)
    if not entry:
        return False
    logger.info("restored from the cache")
    restored = {names[name]: digest for name, digest in entry.outputs.items()}
    content = {**entry.content(), **request.content(), "outputs": restored}
    write_record(project.root / manifest_path, Manifest.model_validate(content))
    _summarize(request.stage, manifest_path, entry.summary, " (from the cache)")
    return True


def _summarize(stage: str, manifest_path: str, summary: str, source: str = "") -> None:
    """Say in one line what was made, named by the directory that it is in."""
    if summary:
        say(f"{stage} {Path(manifest_path).parent.name}: {summary}{source}")


def say(line: str) -> None:
    """Print a line on the terminal and write it to the log."""
    logger.info(line)
    print(line, file=sys.stderr, flush=True)


def _alone(
    project: Project, manifest_path: str, request: Request, run: str | None, settings: JsonObject
) -> AbstractContextManager[TrainingState | None]:
    """Make sure that no other process makes the same outputs meanwhile."""
    if run is None:
        return _job_lock(project, manifest_path)
    # As config.yaml has them, so that `nanogpt cache` can tell whether they still hold.
    training = TrainingRequest(**request.content(), run=run, settings=settings)
    return states.hold(project, training)


@contextmanager
def _job_lock(project: Project, manifest_path: str) -> Iterator[None]:
    """Wait for the orphan of a Snakemake that was killed, if one still makes the same outputs.

    It may make them with other settings, and would write over the newer ones.
    """
    directory = project.jobs / fit_name(manifest_path.replace("/", "."))
    with locks.hold(directory, "a job of a Snakemake that was killed"):
        try:
            yield
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _is_made(project: Project, manifest_path: str, version: str) -> bool:
    """Whether all of a version's outputs are in their places."""
    path = project.root / manifest_path
    return (
        path.exists()
        and not manifests.verify(project, path)
        and read_record(path, Manifest).version == version
    )


def _log_to(path: Path) -> None:
    log = logging.getLogger("nanogpt")
    log.addHandler(logging.NullHandler())  # until there is a log: no message is printed twice
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    _add_handler(path, logging.INFO)
    shown = logging.StreamHandler()
    shown.addFilter(lambda record: record.levelno == logging.WARNING)
    shown.setFormatter(logging.Formatter("warning: %(message)s"))
    log.addHandler(shown)


def _add_handler(path: Path, level: int, prefix: str = "") -> None:
    """Log to this file alone, to which other processes may write, too."""
    logging.raiseExceptions = False  # a log on a full disk must not stop its stage
    log = logging.getLogger("nanogpt")
    log.setLevel(logging.INFO)
    for other in [handler for handler in log.handlers if type(handler) is logging.FileHandler]:
        log.removeHandler(other)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {prefix}%(message)s"))
    log.addHandler(handler)


def _resolve(settings: JsonObject, threads: int) -> JsonObject:
    """Parameters with the device and dtype of each group that has them."""
    if _computes(settings):
        # Not at the top: a stage that doesn't compute with torch must not wait for it.
        import torch

        torch.set_num_threads(threads)
    return resolve_devices(settings)


def _computes(settings: JsonObject) -> bool:
    return any(isinstance(group, dict) and "device" in group for group in settings.values())


def resolve_devices(settings: JsonObject) -> JsonObject:
    """Parameters with the devices and dtypes that `auto` stands for on this machine."""
    if not _computes(settings):
        return settings
    # Not at the top, for the same reason.
    from nanogpt.devices import resolve_both

    def resolve(group: JsonValue) -> JsonValue:
        if not isinstance(group, dict) or "device" not in group:
            return group
        reproducible = str(group.get("reproducible", "machine"))
        device, dtype = resolve_both(str(group["device"]), str(group["dtype"]), reproducible)
        return {**group, "device": device, "dtype": dtype}

    return {name: resolve(group) for name, group in settings.items()}


def without_device_index(parameters: JsonObject) -> JsonObject:
    """Parameters as they are hashed: which of several equal GPUs was taken isn't requested."""
    return {
        name: {**group, "device": str(group["device"]).partition(":")[0]}
        if isinstance(group, dict) and "device" in group
        else group
        for name, group in parameters.items()
    }
