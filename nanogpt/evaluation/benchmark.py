"""The benchmark: how fast this machine trains a run's model and samples from it.

A step is the same as in training: same batch, operations and loss, but always with one micro-batch.
We compare its speed with plain matrix products, measured by the same process, rather than with a
data sheet.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.benchmarks import Benchmark, Generation, Percentiles, StepSeconds
from nanogpt.config.schema import BenchSettings, ModelSettings, SampleSettings, TrainSettings
from nanogpt.data import batches as dataset
from nanogpt.data.batches import TokenFiles
from nanogpt.devices import peak_memory, torch_dtype
from nanogpt.evaluation.model_summary import summarize_model
from nanogpt.inference.engine import Engine, Prompt
from nanogpt.model import alike
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import matmul_in_use, matmuls, use_matmul
from nanogpt.model.sizing import flops_per_token
from nanogpt.training.optimizers import configure_optimizer
from nanogpt.training.schedules import learning_rate_at
from nanogpt.training.step import loss_function, loss_scaler, optimizer_step, prepare_process

# Widths of square matrices: the small ones saturate a CPU, the large ones a GPU.
GEMM_SIZES = (1024, 2048, 3072, 4096, 8192)
GEMM_SECONDS = 0.4  # per size; we skip a size if one product takes longer

GENERATED_BATCH = 10  # rows of the second measurement; nanoGPT's sample.py draws 10 samples
GENERATED_TOKENS = 128  # per row, at most
GENERATION_SECONDS = 5.0  # per batch, about


# We mention the other kernel for float32 products if it's faster by this factor.
WORTH_A_WORD = 1.03


def bench(
    run: str,
    dataset_directory: Path,
    model_settings: ModelSettings,
    train_settings: TrainSettings,
    bench_settings: BenchSettings,
    sample_settings: SampleSettings,
    path: Path,
    threads: int | None = None,
) -> Benchmark:
    """Time training and sampling of an untrained model; write bench.json to `path` and return it.

    train_settings, sample_settings: with device and dtype resolved. threads: for computing; None:
    torch's default. Memory is the process's peak, so use a new process for each run.

    Errors: UserError for a dataset shorter than a window, or a missing compiler.
    """
    if threads:
        torch.set_num_threads(threads)
    settings = _step_settings(train_settings, bench_settings)
    files = dataset.load(dataset_directory)
    block_size, vocab_size = model_settings.block_size, files.tokenizer.vocab_size
    draw = _windows_by_step(files, dataset_directory.name, block_size, settings, bench_settings)
    prepare_process(settings)
    torch.manual_seed(settings.seed)
    model = GPT(model_settings, vocab_size).to(settings.device)
    seconds, loss = _time_steps(model, draw, settings, bench_settings)
    peak_memory = _peak_memory_bytes(settings.device)  # of training, since the rest may need more
    by_matmul = _time_each_matmul(model_settings, vocab_size, draw, settings, bench_settings)
    gemm = gemm_flops_per_second(settings.device, settings.dtype)
    tokens_per_second = settings.batch_size * block_size / seconds.step.median
    flops = flops_per_token(model_settings, vocab_size)
    single, rows = _time_generations(model_settings, vocab_size, sample_settings)
    benchmark = Benchmark(
        run=run,
        dataset=dataset_directory.name,
        model=summarize_model(model),
        device=settings.device,
        dtype=settings.dtype,
        compile=settings.compile,
        threads=torch.get_num_threads(),
        batch_size=settings.batch_size,
        data=bench_settings.data,
        burn_in=bench_settings.burn_in,
        steps=bench_settings.steps,
        seconds=seconds,
        tokens_per_second=tokens_per_second,
        flops_per_token=flops,
        flops_per_second=tokens_per_second * flops,
        gemm_flops_per_second=gemm,
        mfu=tokens_per_second * flops / gemm,
        peak_memory_bytes=peak_memory,
        loss=loss,
        generation=single,
        batch_generation=rows,
        matmul=matmul_in_use() if by_matmul else None,
        step_seconds=by_matmul,
    )
    write_record(path, benchmark)
    return benchmark


def summary(benchmark: Benchmark) -> str:
    """Return the main speeds in one line."""
    text = (
        f"{benchmark.tokens_per_second:,.0f} tokens/s in training "
        f"(MFU {benchmark.mfu:.2f}), "
        f"{benchmark.generation.tokens_per_second:,.0f} tokens/s sampling one stream"
    )
    by_matmul = benchmark.step_seconds
    if by_matmul and benchmark.matmul:
        fastest = min(by_matmul, key=lambda name: by_matmul[name])
        gain = by_matmul[benchmark.matmul] / by_matmul[fastest]
        if gain > WORTH_A_WORD:
            text += f"; set NANOGPT_MATMUL={fastest} to train {gain:.2f} times as fast"
    return text


def _step_settings(train: TrainSettings, bench: BenchSettings) -> TrainSettings:
    """Return the settings of a timed step."""
    return train.model_copy(
        update={
            "batch_size": bench.batch_size or train.batch_size,
            "gradient_accumulation_steps": 1,
            "seed": bench.seed,
        }
    )


def _windows_by_step(
    files: TokenFiles,
    name: str,
    block_size: int,
    settings: TrainSettings,
    bench_settings: BenchSettings,
) -> Callable[[int], NDArray[np.int64]]:
    """Return a function from a step to its windows, (batch_size, block_size + 1).

    They're drawn from dataset `name` in the same way as in training, or consist of random tokens,
    which works even if the text is shorter than a window.
    """
    n_rows, seed = settings.batch_size, settings.seed

    def draw_real(step: int) -> NDArray[np.int64]:
        return dataset.batch(files.train, block_size, n_rows, seed, step)

    def draw_random(step: int) -> NDArray[np.int64]:
        random = np.random.default_rng([seed, step])
        return random.integers(files.tokenizer.vocab_size, size=(n_rows, block_size + 1))

    if bench_settings.data == "random":
        return draw_random
    dataset.check_block_size(files, block_size, name)
    return draw_real


def _time_steps(
    model: GPT,
    draw: Callable[[int], NDArray[np.int64]],
    settings: TrainSettings,
    bench_settings: BenchSettings,
) -> tuple[StepSeconds, float]:
    """Time steps and their parts; return seconds and the last step's loss. draw: a step's windows.

    Parts are timed in separate steps, a quarter as many, because timing them means waiting for the
    GPU where training doesn't wait.
    """
    loss_of = loss_function(model, settings)
    optimizer, scaler = configure_optimizer(model, settings), loss_scaler(settings)
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
        arguments = (loss_of, optimizer, scaler, windows, rate, settings, step)
        if step < last:
            loss, _ = optimizer_step(*arguments)
            final_loss = loss.item()  # training reads it too
            whole.append(_now(settings.device) - start)
        else:
            done("")
            optimizer_step(*arguments, done)
            parts.append(np.diff(moments).tolist())
    forward_times, backward_times, optimizer_times = np.transpose(parts)
    seconds = StepSeconds(
        forward=_percentiles(forward_times),
        backward=_percentiles(backward_times),
        optimizer=_percentiles(optimizer_times),
        step=_percentiles(np.array(whole[bench_settings.burn_in :])),
    )
    return seconds, final_loss


def _time_each_matmul(
    model_settings: ModelSettings,
    vocab_size: int,
    draw: Callable[[int], NDArray[np.int64]],
    settings: TrainSettings,
    bench_settings: BenchSettings,
) -> dict[str, float]:
    """Return the median seconds of a step by each kernel for float32 products; empty elsewhere.

    The kernels take turns after each step, so if the machine slows down, both do.
    """
    chooses = settings.device == "cpu" and settings.dtype == "float32" and not settings.compile
    if not chooses or alike.on():
        return {}
    chosen = matmul_in_use()
    torch.manual_seed(settings.seed)
    model = GPT(model_settings, vocab_size)
    loss_of = loss_function(model, settings)
    optimizer, scaler = configure_optimizer(model, settings), loss_scaler(settings)
    seconds: dict[str, list[float]] = {name: [] for name in matmuls()}
    for step in range(bench_settings.burn_in + bench_settings.steps):
        for name, times in seconds.items():
            use_matmul(name)
            start = _now(settings.device)
            rate = learning_rate_at(step, settings)
            loss, _ = optimizer_step(loss_of, optimizer, scaler, draw(step), rate, settings, step)
            loss.item()
            times.append(_now(settings.device) - start)
    use_matmul(chosen)
    return {
        name: float(np.median(times[bench_settings.burn_in :])) for name, times in seconds.items()
    }


def _percentiles(times: NDArray[np.float64]) -> Percentiles:
    p10, median, p90 = np.percentile(times, [10, 50, 90]).tolist()
    return Percentiles(p10=p10, median=median, p90=p90)


def _now(device: str) -> float:
    """Wait for the device, then return the time in seconds."""
    if device != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def gemm_flops_per_second(device: str, dtype: str) -> float:
    """Return the most FLOPs per second of square matrix products, with the fastest kernel.

    We take the maximum, because other work on the machine can only slow them down.
    """
    ways = matmuls() if device == "cpu" and dtype == "float32" else {"torch": F.linear}
    return max(_flops_per_second(way, device, dtype) for way in ways.values())


def _flops_per_second(way: Callable[[Tensor, Tensor], Tensor], device: str, dtype: str) -> float:
    """Return the most FLOPs per second of square matrix products with one kernel."""
    kind = torch_dtype(dtype)
    best = 0.0
    for n in GEMM_SIZES:
        flops = 2 * n**3
        if best and flops / best > GEMM_SECONDS:
            break
        x, weight = torch.randn(2, n, n, device=device).to(kind)
        way(x, weight)  # the first call chooses a kernel
        began = end = _now(device)
        while end - began < GEMM_SECONDS:
            start = end
            way(x, weight)
            end = _now(device)
            best = max(best, flops / (end - start))
    return best


def _time_generations(
    model_settings: ModelSettings, vocab_size: int, settings: SampleSettings
) -> tuple[Generation, Generation]:
    """Return the speed of sampling one row, and of GENERATED_BATCH rows."""
    if alike.on():  # training switched it on for the rest of this process
        settings = settings.model_copy(update={"dtype": "float32"})
    # We need an untrained model: the timed steps may have diverged, and NaN can't be sampled.
    untrained = GPT(model_settings, vocab_size).to(settings.device)
    single = _time_generation(untrained, 1, settings)
    return single, _time_generation(untrained, GENERATED_BATCH, settings)


def _time_generation(model: GPT, batch_size: int, settings: SampleSettings) -> Generation:
    """Time sampling from a prompt of one token. Tokens per second are of all rows together."""
    longer = settings.model_copy(update={"max_new_tokens": GENERATED_TOKENS + 1})
    engine = Engine(model, longer)
    for _ in range(batch_size):
        engine.join(Prompt([0], longer))
    engine.step()  # not timed, because it allocates memory that later steps reuse
    start = _now(settings.device)
    n_tokens = 0
    while engine.step():
        n_tokens += 1
        if time.perf_counter() - start > GENERATION_SECONDS:
            break
    seconds = _now(settings.device) - start
    return Generation(
        batch_size=batch_size,
        dtype=settings.dtype,
        max_new_tokens=n_tokens,
        tokens_per_second=batch_size * n_tokens / seconds,
    )


def _peak_memory_bytes(device: str) -> int:
    """Return the process's peak so far: PyTorch's memory on a GPU, resident memory elsewhere."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()
