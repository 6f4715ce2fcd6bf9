"""What surrounds the one call that a stage of the workflow makes: log, errors, threads, manifest.

What the call computes is left to the module that the adapter calls.
"""

import errno
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nanogpt import manifest
from nanogpt.config import UserError
from nanogpt.files import write_json

logger = logging.getLogger(__name__)

STATE = Path(".nanogpt/state")


@dataclass(frozen=True)
class Job:
    """What a stage is asked for: settings, with devices and dtypes resolved, and their version."""

    settings: Mapping[str, Any]
    version: str

    def state_directory(self, run: str) -> Path:
        """Where an unfinished training keeps what it has; Snakemake knows nothing of it."""
        return STATE / f"{self.version}.{run}"


class WorkflowJob(Protocol):
    """The part of Snakemake's `snakemake` object that a stage needs."""

    rule: str
    input: Sequence[str]
    output: Sequence[str]
    params: Any
    log: Sequence[str]
    threads: int


@contextmanager
def logged(job: WorkflowJob) -> Iterator[None]:
    """Run a stage whose outputs are temporary: with a log, and without a manifest.

    A user's mistake ends the process with one line and exit code 1; anything else leaves its
    traceback in the log as well.
    """
    try:
        _log_to(Path(job.log[0]))
        yield
    except Exception as error:
        message = _user_message(error)
        if message is None:
            logger.exception("stage %s failed", job.rule)
            raise
        logger.error(message)
        sys.exit(f"error: {message}")


@contextmanager
def stage(job: WorkflowJob, inputs: Sequence[str] | None = None) -> Iterator[Job]:
    """Run a stage: the block makes the job's outputs, then the manifest among them is written.

    job.params: `settings`, groups of settings as JSON has them, and `code`, the stage's code
    digest. inputs: what the manifest names, if not all inputs: those that are not temporary. Errors
    are treated as `logged` treats them.
    """
    start = time.monotonic()
    with logged(job):
        settings = _resolve(job.params.settings, job.threads)
        parameters = _without_device_index(settings)
        digests = manifest.digests(job.input if inputs is None else inputs)
        version = manifest.version(job.rule, parameters, digests, job.params.code)
        logger.info("stage %s, version %s", job.rule, version)
        yield Job(settings, version)
        manifest_path = next(path for path in job.output if path.endswith(".manifest.json"))
        made = manifest.digests(path for path in job.output if path != manifest_path)
        write_json(
            manifest_path,
            {
                "stage": job.rule,
                "version": version,
                "inputs": digests,
                "parameters": parameters,
                "code": job.params.code,
                "outputs": made,
                "environment": manifest.environment(job.threads),
                "wall_seconds": round(time.monotonic() - start, 3),
            },
        )


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("nanogpt").addHandler(handler)
    logging.getLogger("nanogpt").setLevel(logging.INFO)


def _resolve(settings: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Settings with the device and dtype of each group that has them."""
    if not any(isinstance(group, dict) and "device" in group for group in settings.values()):
        return dict(settings)
    # Not at the top: a stage that does not compute with torch must not wait for it.
    import torch

    from nanogpt import device

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


def _user_message(error: Exception) -> str | None:
    """One line for what a user can mend, None for a fault of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"disk full while writing {error.filename or 'a result'}; free some space"
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; make it readable and writable"
    # torch says "out of memory" of a GPU, "can't allocate memory" of a CPU.
    if isinstance(error, MemoryError) or re.search(
        "out of memory|can't allocate memory", str(error), re.IGNORECASE
    ):
        return (
            "out of memory; lower batch_size (and raise gradient_accumulation_steps to match), "
            "block_size or the model's size"
        )
    return None
