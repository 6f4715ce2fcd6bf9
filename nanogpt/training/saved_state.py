"""Saved states: everything needed to resume a training, as safetensors files.

Reading a state executes nothing. session.py decides when to save, and state_files.py names files.

With several ranks, each keeps the optimizer moments of the parameters that it owns. Rank 0 writes
the state with its own moments. Each other rank writes a separate part, which the state names. Any
number of ranks can read a state, however many wrote it.
"""

import json
import logging
import math
import os
import re
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanogpt.artifacts.records.base import Record
from nanogpt.artifacts.records.manifests import Layout
from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.errors import PrintedElsewhereError, UserError, user_message
from nanogpt.files.atomic import put_in_place, sha256_file
from nanogpt.model.gpt import GPT
from nanogpt.training.distributed import ALONE, Ranks, parameters_of
from nanogpt.training.sharding import like, part_of, whole
from nanogpt.training.state_files import (
    DIGITS,
    digest_in,
    find_states,
    is_whole,
    part_name,
    remove_old_states,
    state_name,
    step_of,
    wait_for_rank_0s_file,
)

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """The progress of a training. A saved state also has the weights and optimizer moments.

    Batches and dropout are functions of the step, so there's no random generator to save.

    version: of the training. step: the number of finished optimizer steps. line: the last step's
    measurements, if they're to be logged. kept: the weights to keep, so far. metrics: the lines of
    metrics.jsonl so far. seconds: of training. layouts: the setups it was computed on.
    """

    version: str
    step: int = 0
    line: MetricsLine | None = None
    best_val_loss: float = math.inf
    kept: dict[str, Tensor] = field(default_factory=dict)
    metrics: bytearray = field(default_factory=bytearray)
    seconds: float = 0.0
    layouts: list[Layout] = field(default_factory=list)

    def summary(self) -> str:
        """Summarize a finished training in one line."""
        return f"best validation loss {self.best_val_loss:.4f}, {self.seconds:,.0f} s of training"


class _Header(Record):
    """The part of a state's progress stored as JSON. best_val_loss: None before an evaluation."""

    FORMAT: ClassVar[int] = 2

    version: str
    step: int
    line: MetricsLine | None
    best_val_loss: float | None
    seconds: float
    layouts: list[Layout]

    @classmethod
    def upgrade(cls, content: dict[str, Any], found: int) -> dict[str, Any]:
        """Upgrade format 1, which had an empty line for no line and infinity for no loss.

        Its line had no step and no tokens. The tokens are set when the line is logged.
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
    model: GPT,
    optimizer: Optimizer,
    scaler: GradScaler,
    ranks: Ranks = ALONE,
) -> None:
    """Save the state of a training, and remove all but the last two states.

    All ranks call it and return once the state is complete. If one returned and ended earlier,
    torchrun and srun would soon end the others too.

    Errors: OSError, for example for a full disk.
    """
    moments = {
        f"optimizer.{name}.{key}": part_of(moment)
        for name, parameter in model.named_parameters()
        for key, moment in optimizer.state[parameter].items()
    }
    temporary = directory / f".state.{ranks.rank}.{os.getpid()}.tmp"
    parts = _write_parts(temporary, progress.step, moments, ranks)
    weights = whole(model.state_dict(), ranks) if ranks.is_sharded or ranks.is_main else {}
    if ranks.is_main:
        _write_main_state(temporary, progress, weights, moments, scaler, parts)
        remove_old_states(directory)
    ranks.wait()


def _write_parts(temporary: Path, step: int, moments: dict[str, Tensor], ranks: Ranks) -> list[str]:
    """Write the files of all ranks but 0, and return their names on each rank.

    Errors: UserError on a rank that can't write its own, PrintedElsewhereError on the others.
    """
    number, error = 0, None
    if not ranks.is_main:
        try:
            written = _write(moments, {}, temporary, lambda digest: part_name(step, digest))
            number = _as_number(written)
        except OSError as failed:
            error = failed
    numbers, failures = zip(*ranks.gather(number, error is not None), strict=True)
    if error:
        reason = user_message(error) or str(error)
        raise UserError(f"rank {ranks.rank} of {ranks.n} on {socket.gethostname()}: {reason}")
    if any(failures):
        raise PrintedElsewhereError(
            f"rank {ranks.rank} of {ranks.n}: the state of step {step} isn't saved, as rank "
            f"{failures.index(1)} can't write its part"
        )
    return [part_name(step, _as_digest(number)) for number in numbers[1:]]


def _write_main_state(
    temporary: Path,
    progress: Progress,
    weights: dict[str, Tensor],
    moments: dict[str, Tensor],
    scaler: GradScaler,
    parts: list[str],
) -> None:
    """Write rank 0's file. parts: the names of the other ranks' files."""
    tensors = {f"model.{name}": weight for name, weight in weights.items()}
    tensors |= {f"kept.{name}": weight for name, weight in progress.kept.items()}
    tensors |= moments
    tensors["metrics"] = torch.frombuffer(progress.metrics + b"\n", dtype=torch.uint8)
    metadata = {"progress": json.dumps(_header(progress).content(), allow_nan=False)}
    if scaler.is_enabled():
        metadata["scaler"] = json.dumps(scaler.state_dict())
    if parts:
        metadata["parts"] = json.dumps(parts)
    _write(tensors, metadata, temporary, lambda digest: state_name(progress.step, digest))


def _write(
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    temporary: Path,
    name: Callable[[str], str],
) -> str:
    """Write tensors to a file named after its digest; return the digest."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(on_cpu, temporary, metadata=metadata)
        digest = sha256_file(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        put_in_place(temporary, temporary.parent / name(digest))
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        shown = re.search(r"os error (\d+)", str(error))
        if isinstance(error, safetensors.SafetensorError) and shown:
            number = int(shown[1])
            raise OSError(number, os.strerror(number), str(temporary.parent)) from None
        raise
    return digest


def find_state(directory: Path, version: str, ranks: Ranks = ALONE) -> Path | None:
    """Find the newest undamaged state in a directory; None if there isn't one.

    version: of the training; states of other versions are logged and kept. Damaged states are
    logged and removed. All ranks call it and get the state that rank 0 found.

    Errors: UserError for a state with an unknown format.
    """
    path = _find_state(directory, version) if ranks.is_main else None
    return _take_from_main(directory, path, ranks)


def read_state(
    path: Path, model: GPT, optimizer: Optimizer, scaler: GradScaler, ranks: Ranks = ALONE
) -> Progress:
    """Load a state into a model and an optimizer; each rank loads only its own part.

    Errors: UserError for a state whose tensors don't fit the model.
    """
    try:
        progress, metadata = _read_header(path)
        own = {id(parameter) for parameter in ranks.own(parameters_of(optimizer))}
        _restore(progress, _read_tensors(path, metadata), model, optimizer, scaler, own)
        scaler.load_state_dict(json.loads(metadata.get("scaler", "{}")))
    except UserError:
        raise
    except (RuntimeError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
        raise _misfit(path) from None
    if not ranks.is_main:
        progress.kept = {}  # as large as the model, and only rank 0 writes it
    return progress


def _find_state(directory: Path, version: str) -> Path | None:
    """Find the newest undamaged state of a version, and remove damaged ones."""
    for half_written in directory.glob(".state.*.tmp"):  # by a process that was killed
        half_written.unlink(missing_ok=True)
    for path in find_states(directory):
        progress, metadata = _read_header(path) if is_whole(path) else (None, {})
        if progress is None or not all(map(is_whole, _parts(path, metadata))):
            logger.warning("%s: damaged; using the state before it, if there is one", path)
            path.unlink(missing_ok=True)
        elif progress.version != version:
            logger.warning("%s: ignored, because it's from version %s", path, progress.version)
        else:
            return path
    return None


def _take_from_main(directory: Path, path: Path | None, ranks: Ranks) -> Path | None:
    """Return the state that rank 0 found, on every rank."""
    found = [step_of(path), _as_number(digest_in(path.name))] if path else [-1, 0]
    step, number = ranks.gather(*found)[0]
    if step < 0:
        return None
    path = directory / state_name(step, _as_digest(number))
    wait_for_rank_0s_file(path, f"rank {ranks.rank}")
    for part in _parts(path, _read_header(path)[1]):
        wait_for_rank_0s_file(part, f"rank {ranks.rank}")
    return path


def _read_header(path: Path) -> tuple[Progress, dict[str, str]]:
    """Read a state's progress, without its tensors, and all of its metadata."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        content = json.loads(metadata["progress"])
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError):
        raise _misfit(path) from None
    return _progress(_Header.parse(content, str(path), _remedy(path))), metadata


def _parts(path: Path, metadata: dict[str, str]) -> list[Path]:
    """Return the other ranks' files that a state names."""
    return [path.with_name(name) for name in json.loads(metadata.get("parts", "[]"))]


def _read_tensors(path: Path, metadata: dict[str, str]) -> dict[str, Tensor]:
    pieces: dict[str, list[Tensor]] = {}
    for each in [path, *_parts(path, metadata)]:
        with safetensors.safe_open(each, framework="pt") as file:
            names = file.keys()
            for name in names:
                pieces.setdefault(name, []).append(file.get_tensor(name))
    return {name: _join(pieces.pop(name)) for name in list(pieces)}


def _join(pieces: list[Tensor]) -> Tensor:
    """Join the pieces of a tensor along its first dimension, in the order of the ranks.

    A tensor without dimensions isn't split: each rank's piece is all of it.
    """
    return torch.cat(pieces) if len(pieces) > 1 and pieces[0].dim() else pieces[-1]


def _misfit(path: Path) -> UserError:
    return UserError(f"{path}: from a different model or version of nanogpt; {_remedy(path)}")


def _remedy(path: Path) -> str:
    return f"remove {path.parent} to train from scratch"


def _as_number(digest: str) -> int:
    """Return the digits of a digest that file names use, as a signed 64-bit number."""
    return int(digest[:DIGITS], 16) - 2**63


def _as_digest(number: int) -> str:
    return f"{number + 2**63:0{DIGITS}x}"


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
    tensors: dict[str, Tensor],
    model: GPT,
    optimizer: Optimizer,
    scaler: GradScaler,
    own: Collection[int],
) -> None:
    """Copy a state's tensors to where they belong. own: ids of this rank's parameters."""

    def part(prefix: str) -> dict[str, Tensor]:
        names = (name for name in tensors if name.startswith(prefix))
        return {name.removeprefix(prefix): tensors[name] for name in names}

    weights = model.state_dict()
    model.load_state_dict({n: like(weight, weights[n]) for n, weight in part("model.").items()})
    # With float16, all steps so far may have been skipped.
    needs_moments = progress.step > 0 and (not scaler.is_enabled() or bool(part("optimizer.")))
    for name, parameter in model.named_parameters():
        moments = part(f"optimizer.{name}.")
        if needs_moments and not moments:
            raise KeyError(name)
        if moments and id(parameter) in own:
            # Move all of them, because the fused optimizer needs even its step count on the device.
            optimizer.state[parameter] = {
                key: like(moment, parameter) for key, moment in moments.items()
            }
    progress.kept = part("kept.")
    progress.metrics = bytearray(tensors["metrics"].numpy().tobytes()[:-1])
