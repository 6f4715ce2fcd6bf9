"""Run a stage of the workflow: everything around the one call that computes its outputs.

That's the log, errors, threads, the cache, a training's state and the manifest. The adapter's
module computes the outputs.
"""

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import JsonValue

from nanogpt.artifacts import cache, manifests, states
from nanogpt.artifacts.records.base import JsonObject, read_record, write_record
from nanogpt.artifacts.records.manifests import Layout, Manifest, Request, TrainingRequest
from nanogpt.artifacts.signals import exiting
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.parameters import AnySettings, complete
from nanogpt.config.patterns import read_processes, read_sharded
from nanogpt.errors import (
    ClaimedError,
    LostRankError,
    PrintedElsewhereError,
    UserError,
    user_message,
)
from nanogpt.files import locks
from nanogpt.files.atomic import fit_name, remove_temporaries
from nanogpt.files.clocks import wait_until_past
from nanogpt.project import HERE, Project, copies_of_stored

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The job of a stage.

    parameters: groups of settings, with devices and dtypes resolved. training: the state of a
    training, owned by this process; None for other stages. inputs: the sha256 of each, by path.
    """

    parameters: JsonObject
    version: str
    training: TrainingState | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    def settings(
        self, group: str, model: type[AnySettings], *, partial: bool = False
    ) -> AnySettings:
        """A group of settings; see `config.parameters.complete`."""
        given = self.parameters[group]
        assert isinstance(given, dict), group
        return complete(model, given, partial=partial)

    def text(self, name: str) -> str:
        """A parameter that isn't a group, such as the name of a run."""
        value = self.parameters[name]
        assert isinstance(value, str), name
        return value


@dataclass(frozen=True)
class Made:
    """A stage's result: a one-line summary for the terminal and the layouts of a training.

    made_before: the sha256 of outputs that earlier jobs wrote, by path.
    """

    summary: str
    layouts: Sequence[Layout] = ()
    made_before: Mapping[str, str] = field(default_factory=dict)


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
    """Parse the command line of a `shell:` rule into a job like a script's `snakemake` object."""
    parser = argparse.ArgumentParser()
    for name in ("input", "output", "log"):
        parser.add_argument(f"--{name}", nargs="+")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--processes", default="1")
    parser.add_argument("--sharded", default="0")
    params: dict[str, Callable[[str], Any]] = {
        "run": str,
        "settings": json.loads,
        "untracked": json.loads,
        "code": str,
    }
    for name, kind in params.items():
        parser.add_argument(f"--{name}", type=kind)
    job = parser.parse_args()
    try:
        job.processes, job.sharded = read_processes(job.processes), read_sharded(job.sharded)
    except UserError as error:
        sys.exit(f"error: {error}")
    job.params = argparse.Namespace(**{name: getattr(job, name) for name in params})
    return cast(WorkflowJob, job)


@contextmanager
def logged(job: WorkflowJob, stage: str, project: Project = HERE) -> Iterator[None]:
    """Run a stage with temporary outputs: with a log, but without a manifest.

    A user error ends the process with one line and exit code 1, and a signal with 128 + n. Other
    errors are raised, with their traceback in the log too.
    """
    with _ending(stage):
        log = project.root / job.log[0]
        _log_to(log)
        wait_until_past((project.root / path for path in job.input), log.parent)
        yield


@contextmanager
def _ending(
    stage: str, printed_by_others: tuple[type[UserError], ...] = (), name: str = ""
) -> Iterator[None]:
    """End the process on errors and signals, as described in `logged`.

    printed_by_others: errors that another process prints on the terminal. name: of this process,
    if it's one of several.
    """
    try:
        with exiting():
            yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            logger.exception("%sstage %s failed", name, stage)
            raise
        line = message if message.startswith("rank ") else name + message
        logger.error(line)
        sys.exit(
            1
            if isinstance(error, (*printed_by_others, PrintedElsewhereError))
            else f"error: {line}"
        )


@contextmanager
def following(
    job: WorkflowJob,
    stage: str,
    rank: int,
    is_printed: Callable[[UserError], bool] = lambda _: False,
    project: Project = HERE,
) -> Iterator[None]:
    """Run one of several processes of a stage led by rank 0, without lock and manifest.

    Errors are handled as in `logged`, and name the rank. Rank 0 creates the log, and each rank
    writes its errors to it. is_printed: whether another rank prints the same error.
    """
    printed_by_others = (ClaimedError,) if rank else ()
    with _ending(stage, printed_by_others, f"rank {rank}: "):
        path = project.root / job.log[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        _add_handler(path, logging.ERROR)
        try:
            yield
        except Exception as error:
            message = user_message(error)
            if message and not isinstance(error, (*printed_by_others, PrintedElsewhereError)):
                own = error if isinstance(error, UserError) else UserError(message)
                if is_printed(own):
                    if isinstance(error, LostRankError):
                        logger.error(message)  # what started the ranks may say no more
                    sys.exit(1)
            raise


def followed_job(job: WorkflowJob, reads_inputs: bool, project: Project = HERE) -> Job:
    """The job as one that follows rank 0 has it, still without its version and its state.

    reads_inputs: whether to take the digests of the inputs that are here; of large ones, that takes
    a while.
    """
    inputs = [path for path in job.input if reads_inputs and (project.root / path).exists()]
    digests = manifests.digests(project, inputs)
    return Job(_resolve(job.params.settings, job.threads), "", inputs=digests)


def run_stage(
    job: WorkflowJob,
    stage: str,
    make: Callable[[Job], Made],
    *,
    check: Callable[[Mapping[str, str]], None] = lambda _: None,
    inputs: Sequence[str] | None = None,
    known: Callable[[], Mapping[str, str]] = dict,
    more_outputs: Sequence[str] = (),
    more_directory: Path | None = None,
    cached: bool = True,
    run: str | None = None,
    project: Project = HERE,
) -> None:
    """Run a stage: restore the job's outputs from the cache or make them, and write their manifest.

    job.params: `settings`, groups of settings as parameters, and `code`, the stage's code digest.
    stage: its name in versions and manifests, independent of its rule's name. check: is called
    with the sha256 of each input by path, also before a restore, and raises UserError for an input
    that doesn't match the settings. inputs: the inputs listed in the manifest, if some of the
    rule's inputs are temporary. known: returns the sha256 of inputs that earlier jobs read, by
    path. more_outputs: outputs in more_directory, which is removed first; declared only for a
    storage. run: the run to train. One process at a time owns its state; others wait for it.

    Errors are handled as in `logged`.
    """
    start = time.monotonic()
    with logged(job, stage, project):
        parameters = _resolve(job.params.settings, job.threads)
        manifest_path = next(path for path in job.output if path.endswith(manifests.SUFFIX))
        outputs = [p for p in dict.fromkeys((*job.output, *more_outputs)) if p != manifest_path]
        digests = _input_digests(project, job.input if inputs is None else inputs, known())
        check(digests)
        request = _request(project, stage, parameters, digests, job.params.code)
        logger.info("stage %s, version %s", stage, request.version)
        with _alone(project, manifest_path, request, run, job.params.settings) as training:
            if run and _is_made(project, manifest_path, request.version):
                logger.info("another process has made the outputs meanwhile")
                return
            for path in (*outputs, manifest_path):
                remove_temporaries(project.root / path)
            if more_directory:
                shutil.rmtree(project.root / more_directory, ignore_errors=True)
            if cached and _restore(project, request, outputs, manifest_path):
                return
            made = make(Job(parameters, request.version, training, digests))
            if training:
                training.check_owner()
            manifest = Manifest(
                **request.content(),
                summary=made.summary,
                outputs={**manifests.digests(project, outputs), **made.made_before},
                environment=manifests.environment(job.threads, made.layouts),
                wall_seconds=round(time.monotonic() - start, 3),
            )
            named = manifest.model_copy(update={"outputs": _in_project(manifest.outputs)})
            write_record(project.root / manifest_path, named)
            if cached:
                cache.store(project, manifest, cache.names_in_entry(outputs, manifest_path))
            _summarize(stage, manifest_path, made.summary)


def _input_digests(
    project: Project, inputs: Sequence[str], known: Mapping[str, str]
) -> dict[str, str]:
    """The sha256 of each input, in order. known: of some of them, which aren't read again."""
    read = manifests.digests(project, (path for path in inputs if path not in known))
    return {path: known.get(path) or read[path] for path in inputs}


def _request(
    project: Project, stage: str, parameters: JsonObject, digests: Mapping[str, str], code: str
) -> Request:
    hashed = without_device_index(parameters)
    inputs = _in_project(digests)
    version = manifests.version(stage, hashed, inputs, code)
    _note_functions(project, stage, code)
    return Request(stage=stage, version=version, inputs=inputs, parameters=hashed, code=code)


def _in_project(digests: Mapping[str, str]) -> dict[str, str]:
    """Digests by paths in the project, if the files are copies from a storage."""
    copies = copies_of_stored()
    below = f"{copies}/" if copies else ""
    return {path.removeprefix(below): digest for path, digest in digests.items()}


def _note_functions(project: Project, stage: str, code: str) -> None:
    """Store the digests of the stage's functions, so that `nanogpt why` can name edited ones.

    This is done at the start, because the code may be edited during a long training.
    """
    # Imported late because it isn't needed if this code's functions are already stored.
    from nanogpt.artifacts.code_functions import note_functions

    adapter = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if adapter.stem == stage and adapter.is_file():
        note_functions(project, code, adapter)


def _restore(
    project: Project, request: Request, outputs: Sequence[str], manifest_path: str
) -> bool:
    """Restore a stage's outputs and manifest from the cache; False if they aren't there."""
    names = cache.names_in_entry(outputs, manifest_path)
    entry = cache.restore(project, request.version, names)
    if not entry:
        return False
    logger.info("restored from the cache")
    restored = {names[name]: digest for name, digest in entry.outputs.items()}
    content = {**entry.content(), **request.content(), "outputs": _in_project(restored)}
    write_record(project.root / manifest_path, Manifest.model_validate(content))
    _summarize(request.stage, manifest_path, entry.summary, " (from the cache)")
    return True


def _summarize(stage: str, manifest_path: str, summary: str, source: str = "") -> None:
    """Print a one-line summary of the outputs, with the name of their directory."""
    if summary:
        say(f"{stage} {Path(manifest_path).parent.name}: {summary}{source}")


def say(line: str) -> None:
    """Print a line on the terminal and write it to the log."""
    logger.info(line)
    print(line, file=sys.stderr, flush=True)


def _alone(
    project: Project, manifest_path: str, request: Request, run: str | None, settings: JsonObject
) -> AbstractContextManager[TrainingState | None]:
    """Prevent other processes from making the same outputs at the same time."""
    if run is None:
        return _job_lock(project, manifest_path)
    # The settings as in config.yaml, so that `nanogpt cache` can check if they're still current.
    training = TrainingRequest(**request.content(), run=run, settings=settings)
    return states.hold(project, training)


@contextmanager
def _job_lock(project: Project, manifest_path: str) -> Iterator[None]:
    """Wait for an orphan of a killed Snakemake that's still making the same outputs.

    Otherwise it could overwrite the new outputs with those of other settings.
    """
    directory = project.jobs / fit_name(manifest_path.replace("/", "."))
    with locks.hold(directory, f"making {manifest_path}"):
        try:
            yield
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _is_made(project: Project, manifest_path: str, version: str) -> bool:
    """Whether all outputs of a version exist and are intact."""
    path = project.root / manifest_path
    return (
        path.exists()
        and not manifests.verify(Project(project.root / copies_of_stored()), path)
        and read_record(path, Manifest).version == version
    )


def _log_to(path: Path) -> None:
    log = logging.getLogger("nanogpt")
    log.addHandler(logging.NullHandler())  # otherwise errors before the log exists print twice
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    _add_handler(path, logging.INFO)
    shown = logging.StreamHandler()
    shown.addFilter(lambda record: record.levelno == logging.WARNING)
    shown.setFormatter(logging.Formatter("warning: %(message)s"))
    log.addHandler(shown)


def _add_handler(path: Path, level: int) -> None:
    """Log to this file instead of an earlier one. Other processes may write to it too."""
    logging.raiseExceptions = False  # a failed log write, as on a full disk, mustn't stop the stage
    log = logging.getLogger("nanogpt")
    log.setLevel(logging.INFO)
    for other in [handler for handler in log.handlers if type(handler) is logging.FileHandler]:
        log.removeHandler(other)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)


def _resolve(settings: JsonObject, threads: int) -> JsonObject:
    """Set the number of threads, and resolve the devices and dtypes of all groups."""
    if _computes(settings):
        # Imported late because other stages shouldn't wait for torch.
        import torch

        torch.set_num_threads(threads)
    return resolve_devices(settings)


def _computes(settings: JsonObject) -> bool:
    return any(isinstance(group, dict) and "device" in group for group in settings.values())


def resolve_devices(settings: JsonObject) -> JsonObject:
    """Parameters with `auto` replaced by this machine's devices and dtypes."""
    if not _computes(settings):
        return settings
    # Imported late for the same reason.
    from nanogpt.devices import resolve_both

    def resolve(group: JsonValue) -> JsonValue:
        if not isinstance(group, dict) or "device" not in group:
            return group
        reproducible = str(group.get("reproducible", "machine"))
        device, dtype = resolve_both(str(group["device"]), str(group["dtype"]), reproducible)
        return {**group, "device": device, "dtype": dtype}

    return {name: resolve(group) for name, group in settings.items()}


def without_device_index(parameters: JsonObject) -> JsonObject:
    """Parameters for hashing, without GPU numbers, because any of several equal GPUs will do."""
    return {
        name: {**group, "device": str(group["device"]).partition(":")[0]}
        if isinstance(group, dict) and "device" in group
        else group
        for name, group in parameters.items()
    }
