"""Learning rates: a linear warm-up, then a cosine (as in nanoGPT) or linear decay to min_lr."""

import math

import torch

from nanogpt.config.schema import TrainSettings


def learning_rate_at(step: int, settings: TrainSettings) -> float:
    """Return the learning rate of a step, for parameters whose peak is settings.peak_rate.

    step: counted from 0. Warm-up never starts at zero. After lr_decay_iters, the rate is min_lr.
    """
    peak = settings.peak_rate
    if not settings.decay_lr:
        return peak
    decay_iters = settings.lr_decay_iters or settings.max_iters
    if step < settings.warmup_iters:
        return peak * (step + 1) / (settings.warmup_iters + 1)
    if step > decay_iters:
        return settings.min_lr
    if settings.lr_schedule == "wsd":
        decay = min(settings.warmdown_ratio * decay_iters, decay_iters - settings.warmup_iters)
        left = (decay_iters - step) / decay
        return settings.min_lr + min(1.0, left) * (peak - settings.min_lr)
    progress = (step - settings.warmup_iters) / (decay_iters - settings.warmup_iters)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))  # 1 at the end of the warm-up, 0 at the end
    return settings.min_lr + cosine * (peak - settings.min_lr)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, learning_rate: float, settings: TrainSettings
) -> None:
    """Set each group's rate to `learning_rate`, scaled by the group's initial_lr.

    So the whole schedule, including min_lr, scales with initial_lr.
    """
    for group in optimizer.param_groups:
        # The ratio is exactly 1 for a group whose peak is settings.peak_rate.
        group["lr"] = learning_rate * (group["initial_lr"] / settings.peak_rate)
