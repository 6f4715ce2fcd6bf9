"""Evaluation: the loss over a whole split, exactly, in units that compare across tokenizers.

A split is read in order, in windows of block_size without overlap, the last one shorter, so that
each token but the first is predicted once. Which model and which text is left to others.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from nanogpt import dataset
from nanogpt.checkpoint import load_model
from nanogpt.config import EvalSettings, TrainSettings, UserError
from nanogpt.device import autocast
from nanogpt.files import write_json
from nanogpt.model import GPT
from nanogpt.tokenizer import Tokens

logger = logging.getLogger(__name__)

MAX_EXPONENT = 709.0


@dataclass(frozen=True)
class Loss:
    """The summed surprise of predicted tokens. nats: its sum; n_bytes: of UTF-8, if asked for."""

    nats: float
    n_tokens: int
    n_bytes: int = 0

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(
            self.nats + other.nats, self.n_tokens + other.n_tokens, self.n_bytes + other.n_bytes
        )

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / self.n_tokens

    def summary(self) -> dict[str, float | int | None]:
        """What eval.json says of a split."""
        return {
            "loss": self.mean,
            # A diverged model's can be larger than a float; JSON has no infinity.
            "perplexity": math.exp(self.mean) if self.mean < MAX_EXPONENT else None,
            "bits_per_byte": self.nats / math.log(2) / self.n_bytes,
            "n_tokens": self.n_tokens,
            "n_bytes": self.n_bytes,
        }


def n_full_windows(n_tokens: int, block_size: int) -> int:
    """How many whole windows, each with a last target, a split holds."""
    return (n_tokens - 1) // block_size


def window_starts(n_tokens: int, block_size: int, n_windows: int) -> NDArray[np.int64]:
    """Where `n_windows` windows without overlap begin that are spread evenly over a split.

    All whole windows, if there are not more.
    """
    full = n_full_windows(n_tokens, block_size)
    chosen = np.linspace(0, full - 1, min(n_windows, full)).round().astype(np.int64)
    return chosen * block_size


@torch.no_grad()
def windows_loss(
    model: GPT,
    tokens: Tokens,
    starts: NDArray[np.int64],
    settings: EvalSettings | TrainSettings,
    *,
    block_size: int | None = None,
    token_bytes: NDArray[np.int64] | None = None,
) -> Loss:
    """The loss over the windows at `starts`, without dropout, summed in float64.

    settings: batch_size, device and dtype of a forward pass. block_size: length of a window, the
    model's own if none is given. token_bytes: (vocab_size,).
    """
    block_size = block_size or model.settings.block_size
    was_training = model.training
    model.eval()
    total = Loss(0.0, 0)
    for first in range(0, len(starts), settings.batch_size):
        window = dataset.windows(tokens, starts[first : first + settings.batch_size], block_size)
        rows = torch.from_numpy(window).to(settings.device)
        targets = rows[:, 1:]
        with autocast(settings.device, settings.dtype):
            logits = model(rows[:, :-1])
        nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        n_bytes = 0 if token_bytes is None else int(token_bytes[window[:, 1:]].sum())
        total += Loss(nats.cpu().double().sum().item(), targets.numel(), n_bytes)
    model.train(was_training)
    return total


def whole_split_loss(
    model: GPT, tokens: Tokens, token_bytes: NDArray[np.int64], settings: EvalSettings
) -> Loss:
    """The loss over every token of a split but the first, each predicted once."""
    block_size = model.settings.block_size
    full = n_full_windows(len(tokens), block_size)
    starts = block_size * np.arange(full)
    total = windows_loss(model, tokens, starts, settings, token_bytes=token_bytes)
    rest = len(tokens) - 1 - full * block_size
    if rest:
        tail = np.array([full * block_size])
        total += windows_loss(
            model, tokens, tail, settings, block_size=rest, token_bytes=token_bytes
        )
    return total


def nanogpt_estimate(model: GPT, tokens: Tokens, settings: EvalSettings) -> float:
    """nanoGPT's estimate, nats per token: the mean over random windows. Only for comparison."""
    block_size = model.settings.block_size
    n_windows = settings.eval_iters * settings.batch_size
    random = np.random.default_rng(settings.seed)
    starts = random.integers(len(tokens) - block_size, size=n_windows)
    return windows_loss(model, tokens, starts, settings).mean


def evaluate(
    run: str, dataset_directory: Path, model_directory: Path, settings: EvalSettings, path: Path
) -> dict[str, Any]:
    """Evaluate a model on its dataset and write eval.json; returns what stands in it.

    settings: with device and dtype resolved. Errors: UserError for files that do not fit together.
    """
    files = dataset.load(dataset_directory)
    checkpoint = load_model(model_directory, settings.device)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    if tokenizer != files.tokenizer:
        raise UserError(
            f"{model_directory}: trained on another vocabulary than {dataset_directory}; train "
            "the run again, or evaluate it on its own dataset"
        )
    block_size = model.settings.block_size
    dataset.check_block_size(files, block_size, dataset_directory.name)
    token_bytes = tokenizer.token_bytes
    val = whole_split_loss(model, files.val, token_bytes, settings)
    # As many windows as the validation split has, so that both cost the same.
    starts = window_starts(len(files.train), block_size, n_full_windows(len(files.val), block_size))
    train = windows_loss(model, files.train, starts, settings, token_bytes=token_bytes)
    result: dict[str, Any] = {
        "run": run,
        "dataset": dataset_directory.name,
        "val": val.summary(),
        "train": {**train.summary(), "n_windows": len(starts)},
        "nanogpt_estimate": {
            "train": nanogpt_estimate(model, files.train, settings),
            "val": nanogpt_estimate(model, files.val, settings),
            "eval_iters": settings.eval_iters,
            "batch_size": settings.batch_size,
        },
        "model": {
            "n_parameters": model.n_parameters(),
            "vocab_size": model.vocab_size,
            **model.settings.model_dump(),
        },
    }
    if "source" in files.meta:
        entropy = files.meta["source"]["val_bits_per_byte"]
        excess = result["val"]["bits_per_byte"] - entropy
        result["source"] = {
            "bits_per_byte": entropy,
            "excess_bits_per_byte": excess,
            "excess_percent": 100 * excess / entropy,
        }
    write_json(path, result)
    logger.info(
        "%s: validation loss %.4f nats per token, %.4f bits per byte",
        run,
        val.mean,
        result["val"]["bits_per_byte"],
    )
    return result
