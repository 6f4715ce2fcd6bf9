"""One optimizer step: forward and backward passes of micro-batches, clipping, update."""

import math
import shutil
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanogpt.config.schema import TrainSettings
from nanogpt.devices import autocast
from nanogpt.errors import UserError
from nanogpt.model import alike
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import prepare_kernels
from nanogpt.model.losses import mean_loss
from nanogpt.project import cxx_compiler, set_cublas_workspace
from nanogpt.training.distributed import ALONE, Ranks, parameters_of
from nanogpt.training.memory import keep_freed_memory
from nanogpt.training.schedules import set_learning_rates
from nanogpt.training.sharding import whole_of

# From tokens (B, T) and their next tokens (B, T) to the mean loss, with gradients.
LossFunction = Callable[[Tensor, Tensor], Tensor]


def optimizer_step(
    loss_of: LossFunction,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    windows: NDArray[np.int64],
    learning_rate: float,
    settings: TrainSettings,
    step: int,
    done: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
    n_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Make a step on windows (rows, block_size + 1); return the mean loss and gradient norm.

    ranks: each has windows of its own, its share of n_rows; the loss is the mean over all of them.
    n_rows: of all ranks; by default those of windows.

    scaler: from `loss_scaler`. If it's on and a gradient overflows float16, the norm is NaN or
    infinite, the parameters stay the same, and the next step's loss is scaled down.

    done: called after each `forward`, each `backward` and the `optimizer`, to time them.
    """
    # Dropout depends only on the step, so a resumed training needs no saved generator.
    seeds = [settings.seed, step, *([ranks.rank] if ranks.rank else [])]
    torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
    set_learning_rates(optimizer, learning_rate, settings)
    total = torch.zeros((), device=settings.device)
    assert n_rows or ranks.n == 1
    n_rows = n_rows or len(windows)
    for first in range(0, len(windows), settings.batch_size):
        micro_batch = windows[first : first + settings.batch_size]
        rows = torch.from_numpy(micro_batch).to(settings.device)
        with autocast(settings.device, settings.dtype):
            loss = loss_of(rows[:, :-1], rows[:, 1:])
        loss = loss / (n_rows / len(micro_batch))
        done("forward")
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        done("backward")
        total += loss.detach()
    parameters = parameters_of(optimizer)
    total = ranks.add_gradients(parameters, total)
    scaler.unscale_(optimizer)
    grad_norm = whole_of(_clip(parameters, settings.grad_clip or math.inf))
    ranks.keep_own(parameters)
    scaler.step(optimizer)
    scaler.update()
    ranks.send_own(parameters)
    optimizer.zero_grad(set_to_none=True)
    done("optimizer")
    return total, grad_norm


def _clip(parameters: list[Tensor], largest_norm: float) -> Tensor:
    """Scale the gradient down to largest_norm if it's larger; return its original norm."""
    if not alike.on():
        return torch.nn.utils.clip_grad_norm_(parameters, largest_norm)
    norm = alike.norm(p.grad for p in parameters if p.grad is not None)
    torch.nn.utils.clip_grads_with_norm_(parameters, largest_norm, norm)
    return norm


def loss_scaler(settings: TrainSettings) -> torch.amp.GradScaler:
    """Create a scaler, which multiplies the loss to keep gradients within float16's range.

    It's off for other dtypes, which have float32's range.
    """
    device = torch.device(settings.device).type
    return torch.amp.GradScaler(device, enabled=settings.dtype == "float16")


def loss_function(model: GPT, settings: TrainSettings) -> LossFunction:
    """Return a model's loss function, compiled if the settings say so.

    Errors: UserError if torch.compile has no C++ compiler.
    """
    loss_of = partial(mean_loss, model)
    if not settings.compile:
        return loss_of
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and not any(map(shutil.which, [cxx_compiler(), "g++", "clang++"])):
        raise UserError(
            "train.compile: torch.compile needs a C++ compiler on a CPU, and found none (g++, "
            "clang++ or $CXX); install one, or set `compile: false`"
        )
    return torch.compile(loss_of)


def prepare_process(settings: TrainSettings) -> None:
    """Set up this process: keep freed memory, and use the kernels that the settings name.

    Errors: UserError on a machine without these kernels.
    """
    keep_freed_memory()
    prepare_kernels(settings.reproducible)
    torch.backends.cuda.matmul.allow_tf32 = not settings.deterministic
    torch.use_deterministic_algorithms(settings.deterministic)
    if settings.deterministic:
        set_cublas_workspace(":4096:8")  # deterministic kernels need a fixed workspace
