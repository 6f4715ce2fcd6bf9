"""Estimate the memory of training and sampling, without using it.

The training code runs a step on torch's fake tensors, which have shapes but no data, while we add
up the tensors that are alive. Models of two and three layers are enough, since each further layer
needs the same amount.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanogpt.config.schema import ModelSettings, SampleSettings, TrainSettings
from nanogpt.devices import peak_memory, torch_dtype
from nanogpt.inference.decoder import state_dtype
from nanogpt.inference.engine import most_sequences
from nanogpt.model.attention import forget_masks
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import GRADIENTS_AT_ONCE, LARGE_VOCABULARY
from nanogpt.model.layers import WithoutDraws
from nanogpt.model.sizing import n_parameters
from nanogpt.training.optimizers import configure_optimizer
from nanogpt.training.step import loss_function, loss_scaler, optimizer_step

# The memory of a process as a multiple of its tensors. It's more because of fragmentation and the
# buffers of libraries. Measured on a CPU: 1.3 to 1.6 (docs/PLANNING.md).
BESIDE_TENSORS = {"cpu": 1.45, "cuda": 1.1, "mps": 1.1}

FEW_LAYERS = (2, 3)
FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class TrainingMemory:
    """The peak memory of a training in bytes, by part.

    activations: including the gradients, which replace them during the backward pass. logits: the
    activations of the output layer. gradients: also part of the activations. kept: the best weights
    so far, unless they're in main memory. spare: fragmentation and buffers. process: Python and
    torch.
    """

    weights: int
    gradients: int
    optimizer: int
    kept: int
    activations: int
    logits: int
    spare: int
    process: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        tensors = self.weights + self.optimizer + self.kept + self.activations
        return tensors + self.spare + self.process

    @property
    def least(self) -> int:
        """The part that doesn't depend on the micro-batch or the device."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class SamplingMemory:
    """The memory of sampling from one prompt, in bytes.

    copies: the matrices in the layout of inference/decoder.py. cache: keys and values of all rows.
    logits: of one step.
    """

    weights: int
    copies: int
    cache: int
    logits: int
    process: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.copies + self.cache + self.logits + self.process


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the total memory of all live tensors, and its peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return outputs

    def _add(self, storage: Any) -> None:
        if storage in self._seen:
            return
        n_bytes = storage.nbytes()
        self._seen.add(storage)
        self.now += n_bytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, n_bytes)

    def _free(self, n_bytes: int) -> None:
        self.now -= n_bytes


@dataclass(frozen=True)
class _Step:
    """Bytes of tensors: weights, optimizer state, and the peak of each part of a step."""

    weights: int
    optimizer: int
    peaks: tuple[int, ...]

    def deeper(self, other: "_Step", layers: int) -> "_Step":
        """Extrapolate to a deeper model. other: the same step with one layer more."""

        def extend(mine: int, more: int) -> int:
            return mine + layers * (more - mine)

        return _Step(
            extend(self.weights, other.weights),
            extend(self.optimizer, other.optimizer),
            tuple(map(extend, self.peaks, other.peaks)),
        )


def training_memory(
    model: ModelSettings, train: TrainSettings, vocab_size: int, *, is_here: bool = True
) -> TrainingMemory:
    """Estimate the memory of a training. train: with device and dtype resolved.

    is_here: whether this machine has the device. If not, the estimate is for a CPU's step, plus the
    logits, which a CPU doesn't keep.
    """
    traced = train if is_here else train.model_copy(update={"device": "cpu"})
    few, more = FEW_LAYERS
    if model.n_layer <= more:
        step = _trace(model, traced, vocab_size)
    else:
        first, second = (
            _trace(model.model_copy(update={"n_layer": n}), traced, vocab_size) for n in FEW_LAYERS
        )
        step = first.deeper(second, model.n_layer - few)
    # With a GPU, the best weights are in main memory.
    is_gpu = train.device.startswith("cuda")
    n_kept = n_parameters(model, vocab_size) if train.keep == "best" and not is_gpu else 0
    logits = train.batch_size * model.block_size * vocab_size
    peak = max(step.peaks)
    if vocab_size >= LARGE_VOCABULARY and train.device == "cpu":
        logits = min(logits, GRADIENTS_AT_ONCE)
    elif vocab_size >= LARGE_VOCABULARY and not is_here:
        # Logits in the step's dtype and in float32, and the gradient of these.
        peak += logits * (torch_dtype(train.dtype).itemsize + 2 * FLOAT32)
    spare = BESIDE_TENSORS.get(train.device.partition(":")[0], 1.0) - 1
    return TrainingMemory(
        weights=step.weights,
        gradients=step.weights,
        optimizer=step.optimizer,
        kept=FLOAT32 * n_kept,
        activations=peak - step.weights - step.optimizer,
        logits=FLOAT32 * logits,
        spare=round(spare * (peak + FLOAT32 * n_kept)),
        process=peak_memory(),
    )


def _trace(model_settings: ModelSettings, train: TrainSettings, vocab_size: int) -> _Step:
    """Trace the second step on fake tensors; in the first, the optimizer has no moments yet."""
    n_rows = train.batch_size * min(2, train.gradient_accumulation_steps)
    windows = np.zeros((n_rows, model_settings.block_size + 1), dtype=np.int64)
    settings = train.model_copy(update={"compile": False})
    with _without_masks(), FakeTensorMode(allow_non_fake_inputs=True), _Live() as live:
        with torch.device(settings.device), WithoutDraws():
            model = GPT(model_settings, vocab_size)
        model.train()
        weights = live.now
        optimizer, scaler = configure_optimizer(model, settings), loss_scaler(settings)
        loss_of = loss_function(model, settings)
        peaks: dict[str, int] = {}

        def done(part: str) -> None:
            peaks[part] = max(peaks.get(part, 0), live.peak)
            live.peak = live.now

        for step in range(2):
            peaks.clear()
            live.peak = live.now
            optimizer_step(loss_of, optimizer, scaler, windows, 1e-3, settings, step, done)
        return _Step(weights, live.now - weights, tuple(peaks.values()))


@contextmanager
def _without_masks() -> Iterator[None]:
    """Clear the cached attention masks before and after, since fake ones have no data."""
    forget_masks()
    try:
        yield
    finally:
        forget_masks()


def sampling_memory(
    models: Sequence[ModelSettings], sample: SampleSettings, vocab_size: int
) -> SamplingMemory:
    """Estimate the memory of sampling from a model, or from the models of an ensemble."""
    dtype = torch_dtype(sample.dtype)
    of_state = state_dtype(dtype).itemsize
    window = min(model.block_size for model in models)
    numbers = sum(2 * m.n_layer * m.n_embd * window for m in models)
    # With drafts, samples are generated one after another.
    rows = 1 if sample.draft else min(sample.num_samples, most_sequences(numbers * of_state))
    matrices = sum(12 * m.n_layer * m.n_embd**2 + vocab_size * m.n_embd for m in models)
    return SamplingMemory(
        weights=FLOAT32 * sum(n_parameters(model, vocab_size) for model in models),
        copies=dtype.itemsize * matrices,
        cache=rows * numbers * of_state,
        logits=FLOAT32 * rows * vocab_size,
        process=peak_memory(),
    )


def largest_batch(memory: TrainingMemory, batch_size: int, limit: int) -> int:
    """Return the largest batch size that fits into `limit` bytes; 0 if none does."""
    rest = memory.total - memory.activations - memory.spare
    factor = (memory.total - memory.process) / (memory.total - memory.process - memory.spare)
    room = (limit - memory.process) / factor - (rest - memory.process)
    return max(0, min(batch_size, int(room * batch_size / memory.activations)))
