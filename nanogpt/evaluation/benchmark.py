"""The benchmark: how fast this machine trains a run's model and samples from it.

A step is a training's: the same batch, operations and loss. One micro-batch makes it, whatever
gradient_accumulation_steps says. The speed is held against that of plain matrix products, measured
by the same process, not against a data sheet.
"""

import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nanogpt.config.schema import BenchSettings, ModelSettings, SampleSettings, TrainSettings
from nanogpt.data import batches as dataset
from nanogpt.files.atomic import write_json
from nanogpt.inference.sampling import generate
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import linear
from nanogpt.model.sizing import flops_per_token
from nanogpt.training.optimizers import configure_adamw
from nanogpt.training.schedules import learning_rate_at
from nanogpt.training.step import Forward, compiled, optimizer_step, use_cuda_settings

PARTS = ("forward", "backward", "optimizer")

# Widths of square matrices: the small ones saturate a CPU, the large ones a GPU.
GEMM_SIZES = (1024, 2048, 3072, 4096, 8192)
GEMM_SECONDS = 0.4  # for each size; a size of which one product takes longer is left out

GENERATED_BATCH = 10  # rows, beside a single one: as many samples as nanoGPT's sample.py draws
GENERATED_TOKENS = 128  # of each row, at most
GENERATION_SECONDS = 5.0  # for each batch, about


def bench(
    run: str,
    dataset_directory: Path,
    model_settings: ModelSettings,
    train_settings: TrainSettings,
    bench_settings: BenchSettings,
    sample_settings: SampleSettings,
    path: Path,
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure training and sampling of a new model; writes bench.json to `path` and returns it.

    train_settings, sample_settings: with device and dtype resolved. Times are in
    seconds, of steps one by one: median, 10th and 90th percentile. `step` is the whole, the drawing
    of its batch included; `forward` has the loss, `optimizer` the clipping. Memory is the
    process's peak until training ends (resident on a CPU, PyTorch's on a GPU), so a process should
    measure one run.

    threads: that compute, as many as PyTorch likes if none is given.

    Errors: UserError for a dataset shorter than a window, or a missing compiler.
    """
    if threads:
        torch.set_num_threads(threads)
    settings = train_settings.model_copy(
        update={
            "batch_size": bench_settings.batch_size or train_settings.batch_size,
            "gradient_accumulation_steps": 1,
            "seed": bench_settings.seed,
        }
    )
    files = dataset.load(dataset_directory)
    block_size, vocab_size = model_settings.block_size, files.tokenizer.vocab_size
    real = bench_settings.data == "real"
    if real:
        dataset.check_block_size(files, block_size, dataset_directory.name)

    def draw(step: int) -> NDArray[np.int64]:
        rows, seed = settings.batch_size, settings.seed
        if real:
            return dataset.batch(files.train, block_size, rows, seed, step)
        return np.random.default_rng([seed, step]).integers(vocab_size, size=(rows, block_size + 1))

    use_cuda_settings(settings)
    torch.manual_seed(settings.seed)
    model = GPT(model_settings, vocab_size).to(settings.device)
    seconds, loss = _time_steps(model, draw, settings, bench_settings)
    peak_memory = _peak_memory_bytes(settings.device)  # of training: the rest can take more
    gemm = gemm_flops_per_second(settings.device, settings.dtype)
    tokens_per_second = settings.batch_size * block_size / seconds["step"]["median"]
    flops = flops_per_token(model_settings, vocab_size)
    # Weights that diverged would have no probabilities to draw from.
    untrained = GPT(model_settings, vocab_size).to(sample_settings.device)
    result: dict[str, Any] = {
        "run": run,
        "dataset": dataset_directory.name,
        "model": {
            "n_parameters": model.n_parameters(),
            "vocab_size": vocab_size,
            **model_settings.model_dump(),
        },
        "device": settings.device,
        "dtype": settings.dtype,
        "compile": settings.compile,
        "threads": torch.get_num_threads(),
        "batch_size": settings.batch_size,
        "data": bench_settings.data,
        "burn_in": bench_settings.burn_in,
        "steps": bench_settings.steps,
        "seconds": seconds,
        "tokens_per_second": tokens_per_second,
        "flops_per_token": flops,
        "flops_per_second": tokens_per_second * flops,
        "gemm_flops_per_second": gemm,
        "mfu": tokens_per_second * flops / gemm,
        "peak_memory_bytes": peak_memory,
        "loss": loss if math.isfinite(loss) else None,  # JSON has no NaN or infinity
        "generation": _time_generation(untrained, 1, sample_settings),
        "batch_generation": _time_generation(untrained, GENERATED_BATCH, sample_settings),
    }
    write_json(path, result)
    return result


def summary(result: dict[str, Any]) -> str:
    """What bench.json says, in one line."""
    return (
        f"{result['tokens_per_second']:,.0f} tokens/s in training "
        f"(MFU {result['mfu']:.2f}), "
        f"{result['generation']['tokens_per_second']:,.0f} tokens/s sampling one stream"
    )


def _time_steps(
    model: GPT,
    draw: Callable[[int], NDArray[np.int64]],
    settings: TrainSettings,
    bench_settings: BenchSettings,
) -> tuple[dict[str, dict[str, float]], float]:
    """Seconds of a step and of its parts, and the last whole step's loss. draw: a step's windows.

    The parts are timed apart from whole steps, a quarter as often: to time them a GPU must be
    waited for, and training does not wait there.
    """
    forward: Forward = compiled(model) if settings.compile else model
    optimizer = configure_adamw(model, settings)
    last = bench_settings.burn_in + bench_settings.steps
    whole: list[float] = []
    parts: list[list[float]] = []
    final_loss = math.nan
    model.train()
    for step in range(last + max(1, bench_settings.steps // 4)):
        moments: list[float] = []

        def done(_part: str, moments: list[float] = moments) -> None:
            moments.append(_now(settings.device))

        start = _now(settings.device)
        windows = draw(step)
        rate = learning_rate_at(step, settings)
        arguments = (forward, optimizer, windows, rate, settings, step)
        if step < last:
            loss, _ = optimizer_step(*arguments)
            final_loss = loss.item()  # as training reads it
            whole.append(_now(settings.device) - start)
        else:
            done("")
            optimizer_step(*arguments, done)
            parts.append(np.diff(moments).tolist())
    times = dict(zip(PARTS, np.transpose(parts), strict=True))
    times["step"] = np.array(whole[bench_settings.burn_in :])
    seconds = {
        part: dict(
            zip(("p10", "median", "p90"), np.percentile(t, [10, 50, 90]).tolist(), strict=True)
        )
        for part, t in times.items()
    }
    return seconds, final_loss


def _now(device: str) -> float:
    """Seconds on a clock, when the device has done what it was given."""
    if device != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def gemm_flops_per_second(device: str, dtype: str) -> float:
    """The most FLOPs a second that products of square matrices reach, computed as the model's are.

    The best of all, as what else the machine does can only slow them down.
    """
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    best = 0.0
    for n in GEMM_SIZES:
        flops = 2 * n**3
        if best and flops / best > GEMM_SECONDS:
            break
        x, weight = torch.randn(2, n, n, device=device).to(kind)
        linear(x, weight)  # the first call chooses a kernel
        began = end = _now(device)
        while end - began < GEMM_SECONDS:
            start = end
            linear(x, weight)
            end = _now(device)
            best = max(best, flops / (end - start))
    return best


def _time_generation(model: GPT, batch_size: int, settings: SampleSettings) -> dict[str, Any]:
    """Tokens a second that sampling draws, of all rows together, from a prompt of one token."""
    asked = settings.model_copy(update={"max_new_tokens": GENERATED_TOKENS + 1})
    prompt = torch.zeros(batch_size, 1, dtype=torch.int64, device=settings.device)
    tokens = generate(model, prompt, asked)
    next(tokens)  # the first pays for allocations that later ones reuse
    start = _now(settings.device)
    n_tokens = 0
    for _ in tokens:
        n_tokens += 1
        if time.perf_counter() - start > GENERATION_SECONDS:
            break
    seconds = _now(settings.device) - start
    return {
        "batch_size": batch_size,
        "dtype": settings.dtype,
        "max_new_tokens": n_tokens,
        "tokens_per_second": batch_size * n_tokens / seconds,
    }


def _peak_memory_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
