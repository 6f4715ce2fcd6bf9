"""The training loop: tokens and settings in, a model directory and metrics.jsonl out.

The batch and the dropout of a step depend on nothing but the seed and the step. What a batch is,
what the model computes and how weights are stored is left to the modules that this one calls.
"""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from nanogpt import dataset
from nanogpt.checkpoint import save_model
from nanogpt.config import ModelSettings, TrainSettings, UserError
from nanogpt.device import autocast
from nanogpt.evaluate import window_starts, windows_loss
from nanogpt.files import atomic_write, write_json
from nanogpt.model import GPT
from nanogpt.optimizer import configure_adamw, learning_rate_at
from nanogpt.tokenizer import Tokens

logger = logging.getLogger(__name__)

# Called with tokens (B, T), gives logits (B, T, V): the model, or what torch.compile made of it.
Forward = Callable[[Tensor], Tensor]


def train(
    run: str,
    dataset_directory: Path,
    model_settings: ModelSettings,
    settings: TrainSettings,
    state_directory: Path,
    results: Path,
) -> None:
    """Train a model on a dataset; writes model/ and metrics.jsonl in `results`.

    settings: with device and dtype resolved. metrics.jsonl grows in `state_directory`, whose
    run.json names the run, and moves to `results` when the training is done.

    Errors: UserError for a dataset shorter than a window, a missing compiler, or a loss that is not
    a number.
    """
    files = dataset.load(dataset_directory)
    dataset.check_block_size(files, model_settings.block_size, dataset_directory.name)
    _use_cuda_settings(settings)
    torch.manual_seed(settings.seed)
    model = GPT(model_settings, files.tokenizer.vocab_size).to(settings.device)
    logger.info(
        "%s: %s parameters, %s in %s, %d threads",
        run,
        f"{model.n_parameters():,}",
        settings.device,
        settings.dtype,
        torch.get_num_threads(),
    )
    forward: Forward = _compiled(model) if settings.compile else model
    shutil.rmtree(state_directory, ignore_errors=True)
    write_json(state_directory / "run.json", {"run": run})
    weights = _train_loop(model, forward, files, settings, state_directory / "metrics.jsonl")
    save_model(results / "model", weights, model_settings, files.tokenizer)
    with atomic_write(results / "metrics.jsonl") as file:
        file.write((state_directory / "metrics.jsonl").read_bytes())
    shutil.rmtree(state_directory)


def _train_loop(
    model: GPT,
    forward: Forward,
    files: dataset.TokenFiles,
    settings: TrainSettings,
    metrics_path: Path,
) -> dict[str, Tensor]:
    """Make all steps; returns the weights to keep."""
    optimizer = configure_adamw(model, settings)
    rows_per_step = settings.batch_size * settings.gradient_accumulation_steps
    tokens_per_step = rows_per_step * model.settings.block_size
    best_val_loss = math.inf
    kept: dict[str, Tensor] = {}
    start = time.monotonic()
    step_seconds, timed_steps = 0.0, 0  # since the last line of metrics
    model.train()
    # disable=None: no bar where there is no terminal; the log has plain lines.
    with (
        open(metrics_path, "w", encoding="utf-8") as metrics,
        tqdm(total=settings.max_iters, unit="step", disable=None) as bar,
    ):
        for step in range(settings.max_iters + 1):
            line: dict[str, Any] = {"step": step, "tokens": step * tokens_per_step}
            last = step == settings.max_iters
            if step > 0:
                step_start = time.monotonic()
                learning_rate = learning_rate_at(step - 1, settings)
                windows = dataset.batch(
                    files.train,
                    model.settings.block_size,
                    rows_per_step,
                    settings.seed,
                    step - 1,
                )
                loss, grad_norm = _optimizer_step(
                    forward, optimizer, windows, learning_rate, settings, step - 1
                )
                if step % settings.log_interval == 0 or step % settings.eval_interval == 0 or last:
                    # Reading a number waits for the device, so it belongs to the step's time.
                    line |= {"loss": loss.item()}
                    line |= {"learning_rate": learning_rate, "grad_norm": grad_norm.item()}
                step_seconds += time.monotonic() - step_start
                timed_steps += 1
                bar.update()
            if step % settings.eval_interval == 0 or last:
                line |= _estimate(model, files, settings)
                best = line["val_loss"] < best_val_loss
                best_val_loss = min(best_val_loss, line["val_loss"])
                if last if settings.keep == "last" else best:
                    kept = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            if len(line) > 2:
                if timed_steps:
                    line["tokens_per_second"] = timed_steps * tokens_per_step / step_seconds
                    step_seconds, timed_steps = 0.0, 0
                line["seconds"] = time.monotonic() - start
                _write_line(metrics, line)
                bar.set_postfix_str(_summary(line), refresh=False)
                _stop_if_diverged(line)
    return kept


def _optimizer_step(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    windows: NDArray[np.int64],
    learning_rate: float,
    settings: TrainSettings,
    step: int,
) -> tuple[Tensor, Tensor]:
    """One step on windows (rows, block_size + 1); returns mean loss and norm of the gradient."""
    # Dropout is a function of the step, so that a resumed training need not restore a generator.
    torch.manual_seed(int(np.random.SeedSequence([settings.seed, step]).generate_state(1)[0]))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    total = torch.zeros((), device=settings.device)
    for first in range(0, len(windows), settings.batch_size):
        micro_batch = windows[first : first + settings.batch_size]
        rows = torch.from_numpy(micro_batch).to(settings.device)
        with autocast(settings.device, settings.dtype):
            logits = forward(rows[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        loss = loss / settings.gradient_accumulation_steps
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    largest_norm = settings.grad_clip or math.inf
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, largest_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, grad_norm


def _estimate(model: GPT, files: dataset.TokenFiles, settings: TrainSettings) -> dict[str, float]:
    """Losses of both splits on eval_iters * batch_size windows, the same ones at every call."""

    def loss(tokens: Tokens) -> float:
        n_windows = settings.eval_iters * settings.batch_size
        starts = window_starts(len(tokens), model.settings.block_size, n_windows)
        return windows_loss(model, tokens, starts, settings).mean

    return {"train_loss": loss(files.train), "val_loss": loss(files.val)}


def _write_line(metrics: Any, line: dict[str, Any]) -> None:
    """Append a line of metrics; JSON has no NaN or infinity, so they become null."""
    finite = {k: None if not math.isfinite(v) else v for k, v in line.items()}
    metrics.write(json.dumps(finite) + "\n")
    metrics.flush()
    logger.info("step %d: %s", line["step"], _summary(line))


def _summary(line: dict[str, Any]) -> str:
    names = {"loss": "loss", "train_loss": "train", "val_loss": "val", "grad_norm": "norm"}
    parts = [f"{short} {line[name]:.4f}" for name, short in names.items() if name in line]
    if "tokens_per_second" in line:
        parts.append(f"{line['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(parts)


def _stop_if_diverged(line: dict[str, Any]) -> None:
    for name in ("loss", "grad_norm", "train_loss", "val_loss"):
        if not math.isfinite(line.get(name, 0.0)):
            raise UserError(
                f"training diverged: {name} is {line[name]} at step {line['step']}; "
                "lower learning_rate, raise warmup_iters or set grad_clip"
            )


def _compiled(model: GPT) -> Forward:
    on_cpu = next(model.parameters()).device.type == "cpu"
    compilers = [os.environ.get("CXX", "g++"), "g++", "clang++"]
    if on_cpu and not any(map(shutil.which, compilers)):
        raise UserError(
            "train.compile: torch.compile needs a C++ compiler on a CPU and found none (g++, "
            "clang++ or $CXX); install one or set compile: false"
        )
    return torch.compile(model)


def _use_cuda_settings(settings: TrainSettings) -> None:
    torch.backends.cuda.matmul.allow_tf32 = not settings.deterministic
    torch.use_deterministic_algorithms(settings.deterministic)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
