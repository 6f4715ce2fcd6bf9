"""Saved states of a training: each is one safetensors file with all that a resume needs.

`step-<step>.<digest>.safetensors`: the file's own digest, in its name, shows damage. Nothing in a
file is executed when it's read. When a state is saved is decided in session.py.

torch is imported by the functions that need it: `nanogpt cache ls` lists steps without it.
"""

import json
import logging
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nanogpt.artifacts.records.base import Record
from nanogpt.artifacts.records.manifests import Layout
from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.artifacts.states import SAVED_STATES
from nanogpt.errors import UserError
from nanogpt.files.atomic import put_in_place, sha256_file

if TYPE_CHECKING:
    from torch import Tensor
    from torch.amp import GradScaler
    from torch.optim import Optimizer

    from nanogpt.model.gpt import GPT

logger = logging.getLogger(__name__)

# The last one may turn out to be damaged.
STATES_KEPT = 2
STATE_NAME = re.compile(r"step-[0-9]+\.")


@dataclass
class Progress:
    """How far a training is; beside it, a state has the weights and the optimizer's moments.

    Batches and dropout are functions of the step, so no generator has a state between two steps.

    version: of the training. step: optimizer steps that are done. line: what the last step
    measured, if it's one to log. kept: the weights to keep, as of now. metrics: the lines of
    metrics.jsonl so far. seconds: of training. layouts: where it was computed.
    """

    version: str
    step: int = 0
    line: MetricsLine | None = None
    best_val_loss: float = math.inf
    kept: "dict[str, Tensor]" = field(default_factory=dict)
    metrics: bytearray = field(default_factory=bytearray)
    seconds: float = 0.0
    layouts: list[Layout] = field(default_factory=list)

    def summary(self) -> str:
        """A finished training in one line."""
        return f"best validation loss {self.best_val_loss:.4f}, {self.seconds:,.0f} s of training"


class _Header(Record):
    """The part of a state's progress that is JSON. best_val_loss: None before an evaluation."""

    FORMAT: ClassVar[int] = 2

    version: str
    step: int
    line: MetricsLine | None
    best_val_loss: float | None
    seconds: float
    layouts: list[Layout]

    @classmethod
    def upgrade(cls, content: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 1 had an empty line for none, and infinity for no loss.

        Its line lacked the step and the tokens; the tokens are set when it is logged.
        """
        assert found == 1, found
        best, line = content["best_val_loss"], content["line"]
        return {
            **content,
            "line": {"step": content["step"], "tokens": 0, **line} if line else None,
            "best_val_loss": best if math.isfinite(best) else None,
        }


def save_state(
    directory: Path,
    progress: Progress,
    model: "GPT",
    optimizer: "Optimizer",
    scaler: "GradScaler",
) -> None:
    """Write the state of a training as one file, and remove those before the last two.

    Errors: OSError, for a full disk too.
    """
    import safetensors
    import torch
    from safetensors.torch import save_file

    tensors = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    tensors |= {f"kept.{name}": weight for name, weight in progress.kept.items()}
    for name, parameter in model.named_parameters():
        for key, moment in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = moment
    tensors["metrics"] = torch.frombuffer(progress.metrics + b"\n", dtype=torch.uint8)
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(_header(progress).content(), allow_nan=False)}
    if scaler.is_enabled():
        metadata["scaler"] = json.dumps(scaler.state_dict())
    temporary = directory / f".state.{os.getpid()}.tmp"
    try:
        save_file(on_cpu, temporary, metadata=metadata)
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
    directory: Path,
    version: str,
    model: "GPT",
    optimizer: "Optimizer",
    scaler: "GradScaler",
) -> Progress | None:
    """Resume from the newest undamaged state in a directory; None if there isn't one.

    version: of the training; a state of another one is logged and left. A damaged state is logged
    and removed.

    Errors: UserError for a state of an unknown format, or whose tensors aren't the model's.
    """
    import safetensors

    for half_written in directory.glob(".state.*.tmp"):  # by a process that was killed
        half_written.unlink()
    for path in find_states(directory):
        if path.name != state_name(step_of(path), sha256_file(path)):
            logger.warning("%s: damaged; the state before it is taken, if there is one", path)
            path.unlink()
            continue
        remedy = f"remove {directory} to train from the beginning"
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                content = json.loads(metadata["progress"])
                progress = _progress(_Header.parse(content, str(path), remedy))
                if progress.version != version:
                    logger.warning("%s: of version %s; ignored", path, progress.version)
                    continue
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            _restore(progress, tensors, model, optimizer, scaler)
            scaler.load_state_dict(json.loads(metadata.get("scaler", "{}")))
        except UserError:
            raise
        except (RuntimeError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
            raise UserError(
                f"{path}: not a state of this model, or of this version of nanogpt; {remedy}"
            ) from None
        return progress
    return None


def remove_states(directory: Path) -> None:
    """Remove the saved states of a training; nothing else in its directory."""
    for path in find_states(directory):
        path.unlink(missing_ok=True)


def state_name(step: int, digest: str) -> str:
    """The name of a saved state's file."""
    return f"step-{step}.{digest[:16]}.safetensors"


def find_states(directory: Path) -> list[Path]:
    """The files of the states in a directory, newest first."""
    found = _state_files(directory)
    return sorted(found, key=lambda path: (step_of(path), path.stat().st_mtime_ns), reverse=True)


def saved_steps(directory: Path) -> list[int]:
    """The steps at which the states in a directory were saved, in order."""
    return sorted(map(step_of, _state_files(directory)))


def step_of(path: Path) -> int:
    """The step at which a state was saved, by its file's name."""
    return int(path.name.removeprefix("step-").partition(".")[0])


def _state_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob(SAVED_STATES) if STATE_NAME.match(path.name)]


def _header(progress: Progress) -> _Header:
    best = progress.best_val_loss
    return _Header(
        version=progress.version,
        step=progress.step,
        line=progress.line,
        best_val_loss=best if math.isfinite(best) else None,
        seconds=progress.seconds,
        layouts=progress.layouts,
    )


def _progress(header: _Header) -> Progress:
    best = header.best_val_loss
    return Progress(
        version=header.version,
        step=header.step,
        line=header.line,
        best_val_loss=math.inf if best is None else best,
        seconds=header.seconds,
        layouts=list(header.layouts),
    )


def _restore(
    progress: Progress,
    tensors: "dict[str, Tensor]",
    model: "GPT",
    optimizer: "Optimizer",
    scaler: "GradScaler",
) -> None:
    """Put a state's tensors where they belong."""

    def part(prefix: str) -> "dict[str, Tensor]":
        names = (name for name in tensors if name.startswith(prefix))
        return {name.removeprefix(prefix): tensors[name] for name in names}

    model.load_state_dict(part("model."))
    # With float16, the first steps may all have been left out.
    needs_moments = progress.step > 0 and (not scaler.is_enabled() or bool(part("optimizer.")))
    for name, parameter in model.named_parameters():
        moments = part(f"optimizer.{name}.")
        if needs_moments and not moments:
            raise KeyError(name)
        if moments:
            # All of them, as the fused optimizer wants the number of steps there, too.
            optimizer.state[parameter] = {
                key: moment.to(parameter.device) for key, moment in moments.items()
            }
    progress.kept = part("kept.")
    progress.metrics = bytearray(tensors["metrics"].numpy().tobytes()[:-1])
