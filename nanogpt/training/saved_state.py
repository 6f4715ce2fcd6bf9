"""Model directories (model.safetensors, config.json, tokenizer.json) and states of trainings.

Nothing in them is executed when they are read: weights and states are safetensors, the rest is
JSON. When a state is saved is left to train.py.
"""

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
from pydantic import ValidationError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from nanogpt.artifacts.states import find_states, state_name, step_of
from nanogpt.config.schema import ModelSettings, UserError, check_model, counted, explain
from nanogpt.data.tokenizers import Tokenizer, load_tokenizer
from nanogpt.files.atomic import atomic_write, put_in_place, read_json, sha256_file, write_json
from nanogpt.model.gpt import GPT

logger = logging.getLogger(__name__)

MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")

# A damaged state is no loss while the one before it is there.
STATES_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be evaluated and sampled from, and the tokenizer that it speaks."""

    model: GPT
    tokenizer: Tokenizer


def save_model(
    directory: Path,
    weights: dict[str, Tensor],
    settings: ModelSettings,
    tokenizer: Tokenizer,
) -> None:
    """Write a model directory; each file appears whole or not at all."""
    tokenizer.save(directory / "tokenizer.json")
    config = {"architecture": "gpt2", "vocab_size": tokenizer.vocab_size, **settings.model_dump()}
    write_json(directory / "config.json", config)
    with atomic_write(directory / "model.safetensors") as file:
        file.write(save({name: tensor.contiguous() for name, tensor in weights.items()}))


def load_model(directory: Path, device: str = "cpu") -> Checkpoint:
    """Read a model directory.

    Errors: UserError for a file that is absent, damaged, or of another architecture or vocabulary.
    """
    config_file = directory / "config.json"
    try:
        config = read_json(config_file)
        if config.pop("architecture") != "gpt2":
            raise UserError("an architecture that this version does not know")
        vocab_size = config.pop("vocab_size")
        settings = ModelSettings.model_validate(config)
        check_model(settings)
    except FileNotFoundError:
        raise UserError(
            f"{directory}: no model here; config.json is missing: train the run, or name the "
            "directory of a model"
        ) from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        flaw = _config_flaw(error)
        raise UserError(f"{config_file}: {flaw}; train the run again") from None
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{config_file}: vocab_size is {vocab_size}, but tokenizer.json has "
            f"{counted(tokenizer.vocab_size, 'token')}; they do not belong together: train the run "
            "again"
        )
    model = GPT(settings, vocab_size)
    load_weights(model, directory / "model.safetensors")
    return Checkpoint(model.to(device), tokenizer)


def _config_flaw(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    flaw = ""
    if isinstance(error, ValidationError):
        flaw = f" ({explain(error, ModelSettings)})"
    elif isinstance(error, KeyError):
        flaw = f" (`{error.args[0]}` is missing)"
    return f"not a model's config{flaw}"


def load_weights(model: GPT, path: Path) -> None:
    """Read a safetensors file into a model of the same architecture.

    Errors: UserError for a file that is absent or damaged, or the first tensor that does not fit,
    or is not finite.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; train the run again")
    try:
        weights = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); train the run again") from None
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        flaw = _tensor_flaw(weights.get(name), wanted.get(name))
        if flaw:
            raise UserError(f"{path}: tensor {name} {flaw}; train the run again")
    model.load_state_dict(weights)


def _tensor_flaw(found: Tensor | None, wanted: Tensor | None) -> str | None:
    if found is None or wanted is None:
        return "is missing" if found is None else "is not of this model"

    def form(tensor: Tensor) -> str:
        return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"

    if form(found) != form(wanted):
        return f"is {form(found)}, but the model's is {form(wanted)}"
    # Of the extremes: isfinite().all() of all takes twenty times as long.
    if not torch.stack(torch.aminmax(found)).isfinite().all():
        return "has NaN or infinity"
    return None


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
