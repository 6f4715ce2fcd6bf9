"""The loss of a model over windows of a split, for estimates during training and for evaluation.

A window is block_size tokens plus the token after them, which is the last target.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nanogpt.data.batches import windows
from nanogpt.data.shards import SplitTokens
from nanogpt.devices import autocast
from nanogpt.model import alike
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import LARGE_VOCABULARY, head_loss


class ForwardSettings(Protocol):
    """The settings of a forward pass: TrainSettings or EvalSettings, with device resolved."""

    @property
    def batch_size(self) -> int: ...

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...


@dataclass(frozen=True)
class Loss:
    """The loss of n_tokens predicted tokens. nats: its sum."""

    nats: float
    n_tokens: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / self.n_tokens


def n_full_windows(n_tokens: int, block_size: int) -> int:
    """Return the number of full, non-overlapping windows in a split."""
    return (n_tokens - 1) // block_size


def window_starts(n_tokens: int, block_size: int, n_windows: int) -> NDArray[np.int64]:
    """Return the starts of `n_windows` non-overlapping windows, spread evenly over a split.

    If the split has fewer full windows, return them all.
    """
    full = n_full_windows(n_tokens, block_size)
    chosen = np.linspace(0, full - 1, min(n_windows, full)).round().astype(np.int64)
    return chosen * block_size


def mean_loss(model: GPT, idx: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss in nats, with gradients. targets: the tokens after idx, both (B, T)."""
    if alike.on():
        nats = token_nats(model(idx), targets)
        return alike.total(nats) / nats.numel()
    settings, on_cpu = model.settings, idx.device.type == "cpu"
    if on_cpu and model.vocab_size >= LARGE_VOCABULARY and not torch.compiler.is_compiling():
        states = model.hidden(idx).flatten(0, 1)
        cap = settings.final_logit_softcapping
        return head_loss(states, model.output_matrix, targets.flatten(), cap)
    return F.cross_entropy(model(idx).float().flatten(0, 1), targets.flatten())


@torch.no_grad()
def predictions(
    model: GPT,
    tokens: SplitTokens,
    starts: NDArray[np.int64],
    settings: ForwardSettings,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield targets (B, T) and float32 logits (B, T, V) for the windows at `starts`, no dropout."""
    block_size = model.settings.block_size
    was_training = model.training
    model.eval()
    for first in range(0, len(starts), settings.batch_size):
        batch = windows(tokens, starts[first : first + settings.batch_size], block_size)
        rows = torch.from_numpy(batch).to(settings.device)  # (B, T + 1)
        with autocast(settings.device, settings.dtype):
            logits = model(rows[:, :-1])
        yield rows[:, 1:], logits.float()
    model.train(was_training)


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss in nats of each target (B, T) under logits (B, T, V): float32 (B, T)."""
    if alike.on():
        return alike.nats(logits.flatten(0, 1), targets.flatten()).view(targets.shape)
    flat = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


def windows_loss(
    model: GPT,
    tokens: SplitTokens,
    starts: NDArray[np.int64],
    settings: ForwardSettings,
) -> Loss:
    """Return the loss over the windows at `starts`, without dropout, summed in float64."""
    nats, n_tokens = 0.0, 0
    for targets, logits in predictions(model, tokens, starts, settings):
        nats += token_nats(logits, targets).cpu().double().sum().item()
        n_tokens += targets.numel()
    return Loss(nats, n_tokens)
