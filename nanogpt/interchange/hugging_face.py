"""Convert weights between our GPT-2 and Hugging Face's, and write their config.json.

config/foreign.py reads their config.json. This module doesn't read or write files.
"""

from collections.abc import Mapping

import torch
from pydantic import JsonValue
from torch import Tensor

from nanogpt.config.schema import ModelSettings
from nanogpt.interchange.architectures import GPT2_SETTINGS, differing_settings
from nanogpt.model.gpt import NORM_EPSILON

ARCHITECTURE = "GPT2LMHeadModel"

# In transformers these are Conv1D layers, whose weight is the transpose of a linear layer's.
TRANSPOSED = (
    "attn.c_attn.weight",
    "attn.c_proj.weight",
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
)

# Causal masks, which old files have, and the output embedding, which may be tied to `wte`.
MASKS = (".attn.bias", ".attn.masked_bias")
HEAD = "lm_head.weight"

THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu2": "relu2"}


def config_for_hugging_face(settings: ModelSettings, vocab_size: int) -> dict[str, JsonValue]:
    """The part of a GPT-2's config.json that determines its outputs."""
    assert not differing_settings(settings, GPT2_SETTINGS)
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "n_positions": settings.block_size,
        "n_embd": settings.n_embd,
        "n_layer": settings.n_layer,
        "n_head": settings.n_head,
        "n_inner": None,
        "activation_function": THEIR_ACTIVATIONS[settings.activation],
        "attn_pdrop": settings.dropout,
        "embd_pdrop": settings.dropout,
        "resid_pdrop": settings.dropout,
        "layer_norm_epsilon": NORM_EPSILON,
        "tie_word_embeddings": settings.tie_word_embeddings,
        "scale_attn_weights": True,
    }


def known_weights(weights: Mapping[str, Tensor], *, tied: bool) -> dict[str, Tensor]:
    """The tensors of their GPT-2 that ours needs, renamed but not yet transposed."""
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    unused = (*MASKS, HEAD) if tied else MASKS
    return {name: tensor for name, tensor in renamed.items() if not name.endswith(unused)}


def our_weights(weights: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
    """The state dict of our model, from the tensors of `known_weights`.

    Biases are omitted for a model without them. transformers' GPT-2 always has biases.
    """
    ours = _transpose(weights)
    if settings.bias:
        return ours
    return {name: weight for name, weight in ours.items() if not name.endswith(".bias")}


def weights_for_hugging_face(
    weights: Mapping[str, Tensor], settings: ModelSettings
) -> dict[str, Tensor]:
    """The state dict of transformers' GPT-2 from ours, with zeros for missing biases."""
    theirs = _transpose(weights)
    if not settings.bias:
        for name, weight in weights.items():
            layer = name.removesuffix(".weight")
            if "ln_" in layer or name.endswith(TRANSPOSED):
                theirs[f"{layer}.bias"] = torch.zeros(len(weight), device=weight.device)
    return {
        name if name == HEAD else f"transformer.{name}": weight for name, weight in theirs.items()
    }


def _transpose(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.t().contiguous() if name.endswith(TRANSPOSED) else tensor
        for name, tensor in weights.items()
    }
