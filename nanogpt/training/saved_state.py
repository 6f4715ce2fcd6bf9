"""The saved state of a training: one safetensors file with all that a resume needs.

Nothing in it is executed when it is read. When a state is saved is decided by loop.py."""

import json
import logging
import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from nanogpt.artifacts.states import find_states, state_name, step_of
from nanogpt.errors import UserError
from nanogpt.files.atomic import put_in_place, sha256_file
from nanogpt.model.gpt import GPT

logger = logging.getLogger(__name__)

# A damaged state is no loss while the one before it is there.
STATES_KEPT = 2


@dataclass
class Progress:
    """How far a training is. With the weights and the optimizer's moments it is all there is to it:

    batches and dropout are functions of the step, so no generator has a state between two steps.
    """

    version: str  # of the training, as stage.py computes it
    step: int = 0  # optimizer steps that are done
    # What metrics.jsonl will say of the last one.
    line: dict[str, Any] = field(default_factory=dict)
    best_val_loss: float = math.inf
    kept: dict[str, Tensor] = field(default_factory=dict)  # the weights to keep, as of now
    metrics: bytearray = field(default_factory=bytearray)  # the lines of metrics.jsonl so far
    seconds: float = 0.0  # of training
    # Where it was computed (device.layout), each with its first_step.
    layouts: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> str:
        """What there is to say of a finished training."""
        return f"best validation loss {self.best_val_loss:.4f}, {self.seconds:,.0f} s of training"

    NUMBERS = ("version", "step", "line", "best_val_loss", "seconds", "layouts")


def save_state(
    directory: Path, progress: Progress, model: GPT, optimizer: torch.optim.Optimizer
) -> None:
    """Write the state of a training as one file, whose name has its step and its digest.

    The states before the last two are removed.
    """
    tensors = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    tensors |= {f"kept.{name}": weight for name, weight in progress.kept.items()}
    for name, parameter in model.named_parameters():
        for key, moment in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = moment
    tensors["metrics"] = torch.frombuffer(progress.metrics + b"\n", dtype=torch.uint8)
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    numbers = {name: getattr(progress, name) for name in Progress.NUMBERS}
    temporary = directory / f".state.{os.getpid()}.tmp"
    try:
        save_file(on_cpu, temporary, metadata={"progress": json.dumps(numbers)})
        digest = sha256_file(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        put_in_place(temporary, directory / state_name(progress.step, digest))
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        found = re.search(r"os error (\d+)", str(error))
        if isinstance(error, safetensors.SafetensorError) and found:
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(directory)) from None
        raise
    for path in find_states(directory)[STATES_KEPT:]:
        path.unlink(missing_ok=True)


def load_state(
    directory: Path, versions: Collection[str], model: GPT, optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Continue from the newest whole state of a directory; None if there is none.

    versions: of trainings whose states may be taken. A damaged state is told in the log and
    removed; one of another version is told and left.

    Errors: UserError for a state whose tensors are not the model's.
    """
    for half_written in directory.glob(".state.*.tmp"):  # by a process that was killed
        half_written.unlink()
    for path in find_states(directory):
        if path.name != state_name(step_of(path), sha256_file(path)):
            logger.warning("%s: damaged; the state before it is taken, if there is one", path)
            path.unlink()
            continue
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                progress = Progress(**json.loads(file.metadata()["progress"]))
                if progress.version not in versions:
                    logger.warning("%s: of version %s; it is not taken", path, progress.version)
                    continue
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            _restore(progress, tensors, model, optimizer)
        except (RuntimeError, KeyError, TypeError):
            raise UserError(
                f"{path}: not a state of this model, or of this version of nanogpt; remove "
                f"{path.parent} to train from the beginning"
            ) from None
        return progress
    return None


def _restore(
    progress: Progress,
    tensors: dict[str, Tensor],
    model: GPT,
    optimizer: torch.optim.Optimizer,
) -> None:
    def part(prefix: str) -> dict[str, Tensor]:
        names = (name for name in tensors if name.startswith(prefix))
        return {name.removeprefix(prefix): tensors[name] for name in names}

    model.load_state_dict(part("model."))
    for name, parameter in model.named_parameters():
        moments = part(f"optimizer.{name}.")
        if progress.step and not moments:
            raise KeyError(name)
        if moments:
            # All of them, as the fused optimizer wants the number of steps there, too.
            optimizer.state[parameter] = {
                key: moment.to(parameter.device) for key, moment in moments.items()
            }
    progress.kept = part("kept.")
    progress.metrics = bytearray(np.asarray(tensors["metrics"]).tobytes()[:-1])
