"""Forward passes over windows of a split, to get the prediction of each token.

- On a CPU, each thread reads its own windows, and torch computes each operation on one thread. So
  no thread waits for others, and a window's result doesn't depend on the number of threads.
- Logits are computed for a few tokens at a time and reduced to three numbers per token. With
  GPT-2's vocabulary, the logits of a window of 1,024 tokens would take 206 MB.
- In int8, windows are read by the decoder that also draws samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanogpt.config.schema import EvalSettings
from nanogpt.data.batches import windows
from nanogpt.data.shards import SplitTokens
from nanogpt.data.streams import OrderedPool
from nanogpt.devices import autocast
from nanogpt.inference.decoder import decoder_of
from nanogpt.model.ensemble import Model
from nanogpt.model.kernels import exp
from nanogpt.model.losses import token_nats

# Per CPU thread. More tokens don't fit the caches; with fewer, the overhead of calls dominates.
TOKENS_AT_ONCE = 2048
# 16 MB in float32. glibc requests blocks of 32 MB or more from the system each time.
LOGITS_AT_ONCE = 1 << 22

# The start positions of some windows, and their common length.
Part = tuple[NDArray[np.int64], int]


@dataclass(frozen=True)
class Predictions:
    """The predictions for some windows. Each tensor is (B, T), on the CPU.

    targets: the tokens. nats: their loss, float32. confidence: the likeliest token's probability,
    float32. right: whether that token is the target.
    """

    targets: Tensor
    nats: Tensor
    confidence: Tensor
    right: Tensor


def read_windows(
    model: Model, tokens: SplitTokens, parts: Sequence[Part], settings: EvalSettings
) -> Iterator[Predictions]:
    """Yield the predictions for windows of a split, without dropout, batch_size at a time."""
    batches = [
        (starts[first : first + settings.batch_size], length)
        for starts, length in parts
        for first in range(0, len(starts), settings.batch_size)
    ]
    pieces_of = [_cut(batch, settings.device) for batch in batches]
    decode = _decoding(model) if settings.dtype == "int8" else None

    def read(piece: Part) -> Predictions:
        if decode:
            return decode(torch.from_numpy(windows(tokens, *piece)))
        return _predict(model, tokens, piece, settings)

    was_training = model.training
    model.eval()
    results = _in_threads(read, (piece for pieces in pieces_of for piece in pieces), settings)
    for pieces in pieces_of:
        yield _join(list(islice(results, len(pieces))))
    model.train(was_training)


def _cut(batch: Part, device: str) -> list[Part]:
    """Split a batch into pieces, one per forward pass; only on a CPU."""
    starts, length = batch
    if device != "cpu":
        return [batch]
    size = max(1, TOKENS_AT_ONCE // length)
    return [(starts[first : first + size], length) for first in range(0, len(starts), size)]


def _in_threads(
    read: Callable[[Part], Predictions], pieces: Iterable[Part], settings: EvalSettings
) -> Iterator[Predictions]:
    """Read pieces, in parallel on a CPU, and yield the results in order."""
    if settings.device != "cpu":
        yield from map(read, pieces)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # per operation, in threads that start from now on
    try:
        with OrderedPool(threads) as pool:
            yield from pool.in_order(read, pieces)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _predict(model: Model, tokens: SplitTokens, piece: Part, settings: EvalSettings) -> Predictions:
    """Make one forward pass and reduce its logits."""
    rows = torch.from_numpy(windows(tokens, *piece)).to(settings.device)  # (B, T + 1)
    targets = rows[:, 1:]
    with autocast(settings.device, settings.dtype):
        hidden = model.hidden(rows[:, :-1]).flatten(0, 1)  # (B * T, C)
        at_once = len(hidden)
        if settings.device == "cpu":
            at_once = max(1, LOGITS_AT_ONCE // model.vocab_size)
        compared = [
            _compare(model.head(some).float(), their)
            for some, their in zip(
                torch.split(hidden, at_once), torch.split(targets.flatten(), at_once), strict=True
            )
        ]
    return _predictions(targets, compared)


def _decoding(model: Model) -> Callable[[Tensor], Predictions]:
    """Return a function that reads windows (B, T + 1) with an int8 decoder, on several threads."""
    slots: SimpleQueue[int] = SimpleQueue()  # free slots of the decoder
    with torch.inference_mode():
        decoder = decoder_of(model, torch.int8, model.settings.block_size)
        decoder.reserve(torch.get_num_threads())
    for slot in range(torch.get_num_threads()):
        slots.put(slot)

    @torch.inference_mode()
    def decode(rows: Tensor) -> Predictions:
        slot, length = slots.get(), rows.shape[1] - 1
        compared = [
            _compare(decoder.read(row[:-1].tolist(), slot, n_logits=length), row[1:])
            for row in rows
        ]
        slots.put(slot)
        return _predictions(rows[:, 1:], compared)

    return decode


def _predictions(targets: Tensor, compared: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Predictions:
    """Join the results of `_compare` to predictions of targets (B, T)."""
    nats, confidence, right = map(torch.cat, zip(*compared, strict=True))
    return Predictions(
        targets.cpu(),
        nats.view(targets.shape).cpu(),
        confidence.view(targets.shape).cpu(),
        right.view(targets.shape).cpu(),
    )


def _compare(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return nats, confidence and correctness, each (N,), from logits (N, V) and targets (N,)."""
    nats = token_nats(logits[None], targets[None])[0]
    guesses = _argmax(logits)
    columns = torch.stack([guesses, targets], dim=-1)
    top, of_target = logits.gather(-1, columns).unbind(-1)
    # The likeliest token's probability is the target's times exp(difference of their logits).
    confidence = exp(top - of_target - nats).clamp(max=1.0)
    return nats, confidence, guesses == targets


def _argmax(logits: Tensor) -> Tensor:
    """Return the likeliest tokens, (N,); the first if tied. On a CPU numpy is ten times as fast."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    return torch.from_numpy(logits.numpy().argmax(-1))


def _join(pieces: Sequence[Predictions]) -> Predictions:
    """Join the predictions of a batch's pieces."""
    if len(pieces) == 1:
        return pieces[0]
    return Predictions(
        torch.cat([piece.targets for piece in pieces]),
        torch.cat([piece.nats for piece in pieces]),
        torch.cat([piece.confidence for piece in pieces]),
        torch.cat([piece.right for piece in pieces]),
    )
