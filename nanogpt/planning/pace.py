"""Estimate the time of a training: here from a few real steps, on GPUs from published speeds."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.evaluation.benchmark import gemm_flops_per_second
from nanogpt.model.gpt import GPT
from nanogpt.planning.machine import GPUS, UTILISATION, Gpu
from nanogpt.training.optimizers import configure_optimizer
from nanogpt.training.step import loss_function, loss_scaler, optimizer_step, prepare_process

# In seconds. A step that would take longer isn't measured.
LONGEST_STEP = 4.0
STEPS = 5  # to time, after the first one
SECONDS = 8.0  # for all of them, though at least one step is timed

# The share of the speed of plain matrix products that training reaches on a CPU, if no step was
# measured: 0.3 to 0.6 for the runs of docs/BENCHMARKS.md.
SHARE = 0.45

# An evaluation's forward pass takes a third of the time of a step's forward and backward pass.
FORWARD = 1 / 3


@dataclass(frozen=True)
class Pace:
    """The duration of a step here, in seconds, and whether it was measured. threads: used by it."""

    step_seconds: float
    threads: int
    is_measured: bool


@dataclass(frozen=True)
class GpuTime:
    """The estimated time of a training on one GPU.

    fits: whether weights, gradients and optimizer state fit into its memory. The rest can be
    reduced with a smaller micro-batch.
    """

    name: str
    hours: float
    fits: bool


def pace(
    model: ModelSettings, train: TrainSettings, vocab_size: int, flops_per_step: int, *, fits: bool
) -> Pace:
    """Estimate the pace of a training on this machine. train: with device and dtype resolved.

    fits: whether it fits into memory. If it doesn't, or a step takes too long, nothing is measured.
    """
    prepare_process(train)
    rate = SHARE * gemm_flops_per_second(train.device, train.dtype)
    expected = flops_per_step / rate
    threads = torch.get_num_threads()
    micro_batches = train.gradient_accumulation_steps
    if not fits or expected / micro_batches > LONGEST_STEP:
        return Pace(expected, threads, is_measured=False)
    times = list(_time_steps(model, train, vocab_size))
    return Pace(float(np.median(times)) * micro_batches, threads, is_measured=True)


def _time_steps(
    model_settings: ModelSettings, train: TrainSettings, vocab_size: int
) -> Iterator[float]:
    """Yield the seconds of steps with one micro-batch of random tokens."""
    settings = train.model_copy(update={"gradient_accumulation_steps": 1})
    torch.manual_seed(settings.seed)
    model = GPT(model_settings, vocab_size).to(settings.device)
    model.train()
    loss_of = loss_function(model, settings)
    optimizer, scaler = configure_optimizer(model, settings), loss_scaler(settings)
    random = np.random.default_rng(settings.seed)
    shape = (settings.batch_size, model_settings.block_size + 1)
    began = time.perf_counter()
    for step in range(1 + STEPS):
        start = time.perf_counter()
        windows = random.integers(vocab_size, size=shape)
        rate = settings.learning_rate
        loss, _ = optimizer_step(loss_of, optimizer, scaler, windows, rate, settings, step)
        loss.item()  # waits for the device
        end = time.perf_counter()
        if step:
            yield end - start
            if end - began > SECONDS:
                return


def training_steps(train: TrainSettings) -> float:
    """Return the length of a training in steps, with its evaluations converted to steps."""
    n_evaluations = 1 + -(-train.max_iters // train.eval_interval)
    batches = 2 * train.eval_iters * n_evaluations  # of both splits
    return train.max_iters + FORWARD * batches / train.gradient_accumulation_steps


def gpu_times(flops: float, memory: int) -> list[GpuTime]:
    """Estimate the time of a training of this many FLOPs on each GPU, in one process.

    memory: the minimum that it needs, in bytes.
    """
    return [GpuTime(gpu.name, _estimate_hours(gpu, flops), memory <= gpu.memory) for gpu in GPUS]


def _estimate_hours(gpu: Gpu, flops: float) -> float:
    return flops / (UTILISATION * gpu.flops_per_second) / 3600
