"""What surrounds the one call that a stage of the workflow makes.

Log, errors, threads, the cache, a training's state, and the manifest.

What the call computes is left to the module that the adapter calls.
"""

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from nanogpt.artifacts import cache
from nanogpt.artifacts import manifests as manifest
from nanogpt.artifacts import states as state
from nanogpt.artifacts.signals import exiting
from nanogpt.errors import user_message
from nanogpt.files import locks as lock
from nanogpt.files.atomic import read_json, remove_temporaries, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a stage is asked for: settings, with devices and dtypes resolved, and their version."""

    settings: Mapping[str, Any]
    version: str
    training: state.Held | None = None  # what is held of a training's state


class WorkflowJob(Protocol):
    """The part of Snakemake's `snakemake` object that a stage needs."""

    rule: str
    input: Sequence[str]
    output: Sequence[str]
    params: Any
    log: Sequence[str]
    threads: int


def shell_job(rule: str) -> WorkflowJob:
    """The job that the command line of a `shell:` rule tells, as Snakemake gives it to a script."""
    parser = argparse.ArgumentParser()
    for name in ("input", "output", "log"):
        parser.add_argument(f"--{name}", nargs="+")
    parser.add_argument("--threads", type=int)
    for name, kind in (("run", str), ("settings", json.loads), ("code", str)):
        parser.add_argument(f"--{name}", type=kind)
    job = parser.parse_args(namespace=argparse.Namespace(rule=rule))
    job.params = argparse.Namespace(run=job.run, settings=job.settings, code=job.code)
    return cast(WorkflowJob, job)


@contextmanager
def logged(job: WorkflowJob) -> Iterator[None]:
    """Run a stage whose outputs are temporary: with a log, and without a manifest.

    A user's mistake ends the process with one line and exit code 1, a signal with 128 + n; anything
    else leaves its traceback in the log as well.
    """
    try:
        _log_to(Path(job.log[0]))
        with exiting():
            yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            logger.exception("stage %s failed", job.rule)
            raise
        logger.error(message)
        sys.exit(f"error: {message}")


def stage(
    job: WorkflowJob,
    make: Callable[[Job], Mapping[str, Any] | None],
    *,
    inputs: Sequence[str] | None = None,
    more_outputs: Sequence[str] = (),
    more_directory: Path | None = None,
    cached: bool = True,
    run: str | None = None,
) -> None:
    """Run a stage: restore the job's outputs from the cache, or make them; write their manifest.

    job.params: `settings`, groups of settings as JSON has them, and `code`, the stage's code
    digest. make: makes the outputs, and may return what their manifest gets as well: `summary`, a
    line for the terminal, and more of its `environment`.
    inputs: what the manifest names, if not all inputs: those that are not temporary. more_outputs:
    what is made beside the declared outputs, in more_directory, which is removed before. run: the
    run that is trained. It keeps a state, which one process at a time may hold: another one waits
    for it, and then takes what that one made.

    Errors are treated as `logged` treats them.
    """
    start = time.monotonic()
    with logged(job):
        settings = _resolve(job.params.settings, job.threads)
        parameters = _without_device_index(settings)
        manifest_path = next(path for path in job.output if path.endswith(".manifest.json"))
        outputs = [*(path for path in job.output if path != manifest_path), *more_outputs]
        named = cache.names_in_entry(outputs, manifest_path)
        digests = manifest.digests(job.input if inputs is None else inputs)
        version = manifest.version(job.rule, parameters, digests, job.params.code)
        asked = {
            "stage": job.rule,
            "version": version,
            "inputs": digests,
            "parameters": parameters,
            "code": job.params.code,
        }
        logger.info("stage %s, version %s", job.rule, version)
        held = state.hold(run, asked, job.params.settings) if run else _alone(manifest_path)
        with held as training:
            if run and _is_made(Path(manifest_path), version):
                logger.info("made by the process that was waited for")
                return
            for path in (*outputs, manifest_path):
                remove_temporaries(path)
            if more_directory:
                shutil.rmtree(more_directory, ignore_errors=True)
            said = cache.restore(version, named) if cached else None
            if said:
                logger.info("restored from the cache")
                made = {str(named[name]): digest for name, digest in said["outputs"].items()}
                del said["made_in"]
                write_json(manifest_path, {**said, **asked, "outputs": made})
                _summarize(job.rule, manifest_path, said.get("summary"), " (from the cache)")
                return
            more = make(Job(settings, version, training)) or {}
            said = {
                **asked,
                "summary": more.get("summary", ""),
                "outputs": manifest.digests(outputs),
                "environment": {
                    **manifest.environment(job.threads),
                    **more.get("environment", {}),
                },
                "wall_seconds": round(time.monotonic() - start, 3),
            }
            if training:
                training.check_owner()
                if training.adopted:
                    said["environment"]["adopted"] = training.adopted
            write_json(manifest_path, said)
            # An adopted state is of other code than the version says.
            if cached and not (training and training.adopted):
                cache.store(said, named)
            _summarize(job.rule, manifest_path, said["summary"])


def _summarize(rule: str, manifest_path: str, summary: str | None, source: str = "") -> None:
    """Say in one line what was made, named by the directory that it is in."""
    if summary:
        say(f"{rule} {Path(manifest_path).parent.name}: {summary}{source}")


def say(line: str) -> None:
    """Tell the terminal and the log."""
    logger.info(line)
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _alone(manifest_path: str) -> Iterator[None]:
    """Wait for the orphan of a Snakemake that was killed, if one still makes the same outputs.

    It may make them of other settings, and would write over the newer ones.
    """
    directory = Path(".nanogpt/jobs", manifest_path.replace("/", "."))
    with lock.hold(directory, "a job of a Snakemake that was killed"):
        try:
            yield
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _is_made(manifest_path: Path, version: str) -> bool:
    """Whether all of a version's outputs are in their places."""
    return (
        manifest_path.exists()
        and not manifest.verify(manifest_path)
        and read_json(manifest_path)["version"] == version
    )


def _log_to(path: Path) -> None:
    log = logging.getLogger("nanogpt")
    log.setLevel(logging.INFO)
    log.addHandler(logging.NullHandler())  # until there is a log: no message is printed twice
    logging.raiseExceptions = False  # a log on a full disk shall not stop what it tells of
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    # Appended to, as the process of an earlier call may still write there.
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    shown = logging.StreamHandler()
    shown.addFilter(lambda record: record.levelno == logging.WARNING)
    shown.setFormatter(logging.Formatter("warning: %(message)s"))
    log.addHandler(handler)
    log.addHandler(shown)


def _resolve(settings: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Settings with the device and dtype of each group that has them."""
    if not any(isinstance(group, dict) and "device" in group for group in settings.values()):
        return dict(settings)
    # Not at the top: a stage that does not compute with torch must not wait for it.
    import torch

    from nanogpt import devices as device

    torch.set_num_threads(threads)
    return {
        name: device.resolve(group) if isinstance(group, dict) and "device" in group else group
        for name, group in settings.items()
    }


def _without_device_index(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are hashed: which of several equal GPUs was taken is not asked for."""
    return {
        name: {**group, "device": group["device"].partition(":")[0]}
        if isinstance(group, dict) and "device" in group
        else group
        for name, group in settings.items()
    }
