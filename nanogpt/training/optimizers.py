"""The optimizer, its groups of parameters, and their learning rates.

A group has an `initial_lr`, from which schedules.py sets its rate in each step. Each parameter is
in exactly one group.
"""

from collections import defaultdict
from typing import Any

import torch

from nanogpt.config.schema import TrainSettings
from nanogpt.model.gpt import GPT
from nanogpt.training.muon import MuonAdamW


def configure_optimizer(model: GPT, settings: TrainSettings) -> torch.optim.AdamW:
    """Create the optimizer that the settings name, for all parameters of a model."""
    if settings.optimizer == "muon":
        return configure_muon(model, settings)
    return configure_adamw(model, settings)


def configure_adamw(model: GPT, settings: TrainSettings) -> torch.optim.AdamW:
    """Create AdamW with weight decay for matrices and embeddings, but not for biases and norms.

    It's fused: one pass over a parameter's memory, three times as fast as the default on a CPU.
    """
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    rate = settings.learning_rate
    groups = [
        {"params": matrices, "initial_lr": rate, "weight_decay": settings.weight_decay},
        {"params": vectors, "initial_lr": rate, "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)


def configure_muon(model: GPT, settings: TrainSettings) -> MuonAdamW:
    """Create Muon for the blocks' matrices, and AdamW without decay for everything else."""
    tied = model.settings.tie_word_embeddings
    rates = {
        "wte.weight": settings.unembedding_lr if tied else settings.embedding_lr,
        "lm_head.weight": settings.unembedding_lr,
    }
    by_rate: defaultdict[float, list[torch.nn.Parameter]] = defaultdict(list)
    by_shape: defaultdict[tuple[int, int], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if name.startswith("h.") and parameter.dim() == 2:
            rows, columns = parameter.shape
            if name.endswith("c_attn.weight"):
                rows //= 3  # one matrix each for queries, keys and values
            by_shape[max(rows, columns), min(rows, columns)].append(parameter)
        else:
            by_rate[rates.get(name, settings.learning_rate)].append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": matrices,
            "initial_lr": settings.matrix_lr,
            "weight_decay": settings.weight_decay,
            "shape": shape,
            "momentum": settings.momentum,
        }
        for shape, matrices in by_shape.items()
    ]
    groups += [
        {"params": parameters, "initial_lr": rate, "weight_decay": 0.0}
        for rate, parameters in by_rate.items()
    ]
    betas = (settings.beta1, settings.beta2)
    return MuonAdamW(
        groups, ns_steps=settings.ns_steps, lr=settings.learning_rate, betas=betas, fused=True
    )
