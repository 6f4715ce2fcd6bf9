"""nanoGPT's model, reimplemented from its description to compare imports and exports with.

GPT-2 with exact GELU: pre-norm blocks, tied embeddings, and a bias in every layer or in none.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def theirs(args: dict, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under nanoGPT's names."""
    generator = torch.Generator().manual_seed(seed)
    width, shapes = args["n_embd"], {}
    for layer in range(args["n_layer"]):
        block = f"transformer.h.{layer}."
        shapes |= {block + "ln_1.weight": (width,), block + "ln_2.weight": (width,)}
        shapes |= {
            block + "attn.c_attn.weight": (3 * width, width),
            block + "attn.c_proj.weight": (width, width),
            block + "mlp.c_fc.weight": (4 * width, width),
            block + "mlp.c_proj.weight": (width, 4 * width),
        }
    shapes["transformer.ln_f.weight"] = (width,)
    if args["bias"]:
        shapes |= {f"{name[:-6]}bias": shape[:1] for name, shape in shapes.items()}
    shapes["transformer.wte.weight"] = (args["vocab_size"], width)
    shapes["transformer.wpe.weight"] = (args["block_size"], width)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.2 + (".ln_" in name)
        for name, shape in shapes.items()
    }
    return {**weights, "lm_head.weight": weights["transformer.wte.weight"]}


def logits(weights: dict[str, Tensor], args: dict, idx: Tensor) -> Tensor:
    """The logits (B, T, V) of nanoGPT's model for tokens (B, T)."""

    def layer(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, weights.get(f"{name}.bias"), 1e-5)

    B, T = idx.shape
    C, H = args["n_embd"], args["n_head"]
    mask = torch.full((T, T), -math.inf).triu(1)
    x = weights["transformer.wte.weight"][idx] + weights["transformer.wpe.weight"][:T]
    for number in range(args["n_layer"]):
        block = f"transformer.h.{number}"
        q, k, v = (
            part.view(B, T, H, C // H).transpose(1, 2)
            for part in layer(f"{block}.attn.c_attn", norm(f"{block}.ln_1", x)).split(C, dim=2)
        )
        scores = q @ k.transpose(2, 3) / math.sqrt(C // H) + mask
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C)
        x = x + layer(f"{block}.attn.c_proj", y)
        inside = F.gelu(layer(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", x)))
        x = x + layer(f"{block}.mlp.c_proj", inside)
    return F.linear(norm("transformer.ln_f", x), weights["lm_head.weight"])
