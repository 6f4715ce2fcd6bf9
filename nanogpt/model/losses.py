"""The loss over windows of a split, exactly.

What a training measures itself with, and evaluation builds on. Which windows of which split, and
what follows from the loss, is left to train.py and evaluate.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nanogpt.config.schema import EvalSettings, TrainSettings
from nanogpt.data import batches as dataset
from nanogpt.data.tokenizers import Tokens
from nanogpt.devices import autocast
from nanogpt.model.gpt import GPT


@dataclass(frozen=True)
class Loss:
    """The surprise of predicted tokens, summed. nats: its sum."""

    nats: float
    n_tokens: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / self.n_tokens


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
def predictions(
    model: GPT,
    tokens: Tokens,
    starts: NDArray[np.int64],
    settings: EvalSettings | TrainSettings,
    block_size: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Targets (B, T) and logits (B, T, V) in float32 of the windows at `starts`, without dropout.

    settings: batch_size, device and dtype of a forward pass. block_size: length of a window, the
    model's own if none is given.
    """
    block_size = block_size or model.settings.block_size
    was_training = model.training
    model.eval()
    for first in range(0, len(starts), settings.batch_size):
        window = dataset.windows(tokens, starts[first : first + settings.batch_size], block_size)
        rows = torch.from_numpy(window).to(settings.device)
        with autocast(settings.device, settings.dtype):
            logits = model(rows[:, :-1])
        yield rows[:, 1:], logits.float()
    model.train(was_training)


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """The surprise of each target (B, T) by logits (B, T, V): (B, T), float32."""
    flat = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


def windows_loss(
    model: GPT,
    tokens: Tokens,
    starts: NDArray[np.int64],
    settings: EvalSettings | TrainSettings,
) -> Loss:
    """The loss over the windows at `starts`, without dropout, summed in float64."""
    nats, n_tokens = 0.0, 0
    for targets, logits in predictions(model, tokens, starts, settings):
        nats += token_nats(logits, targets).cpu().double().sum().item()
        n_tokens += targets.numel()
    return Loss(nats, n_tokens)
