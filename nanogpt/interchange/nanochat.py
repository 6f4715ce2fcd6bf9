"""Convert our modern architecture to transformers' NanoChat and back: config.json and weights.

Both rotate queries and keys in pairs half a head apart, but in opposite directions. Swapping the
two halves of each head makes up for that.
"""

from collections.abc import Mapping

import torch
from pydantic import JsonValue
from torch import Tensor

from nanogpt.config.schema import ModelSettings
from nanogpt.interchange.architectures import NANOCHAT_SETTINGS, differing_settings
from nanogpt.model.gpt import RMS_EPSILON, ROTARY_BASE

ARCHITECTURE = "NanoChatForCausalLM"

# Our names of a block's layers and theirs. Our queries, keys and values are a single matrix.
OF_A_BLOCK = {"attn.c_proj": "self_attn.o_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
OUTSIDE = {"wte.weight": "model.embed_tokens.weight", "lm_head.weight": "lm_head.weight"}

THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2"}


def config_for_nanochat(settings: ModelSettings, vocab_size: int) -> dict[str, JsonValue]:
    """The part of a NanoChat's config.json that determines its outputs."""
    assert not differing_settings(settings, NANOCHAT_SETTINGS)
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "nanochat",
        "vocab_size": vocab_size,
        "max_position_embeddings": settings.block_size,
        "hidden_size": settings.n_embd,
        "intermediate_size": 4 * settings.n_embd,
        "num_hidden_layers": settings.n_layer,
        "num_attention_heads": settings.n_head,
        "num_key_value_heads": settings.n_head,
        "hidden_act": THEIR_ACTIVATIONS[settings.activation],
        "attention_dropout": 0.0,
        "attention_bias": False,
        "rms_norm_eps": RMS_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(ROTARY_BASE)},
        # transformers would divide by 0.
        "final_logit_softcapping": settings.final_logit_softcapping or None,
        "tie_word_embeddings": settings.tie_word_embeddings,
    }


def weights_for_nanochat(
    weights: Mapping[str, Tensor], settings: ModelSettings
) -> dict[str, Tensor]:
    """The state dict of transformers' NanoChat from ours."""
    theirs = {OUTSIDE[name]: weight for name, weight in weights.items() if name in OUTSIDE}
    for layer in range(settings.n_layer):
        ours, other = f"h.{layer}", f"model.layers.{layer}"
        parts = weights[f"{ours}.attn.c_attn.weight"].chunk(3)
        for name, part in zip(PROJECTIONS, parts, strict=True):
            turned = part if name == "v_proj" else _swap_halves(part, settings.n_head)
            theirs[f"{other}.self_attn.{name}.weight"] = turned.contiguous()
        for own, name in OF_A_BLOCK.items():
            theirs[f"{other}.{name}.weight"] = weights[f"{ours}.{own}.weight"]
    return theirs


def weights_from_nanochat(
    weights: Mapping[str, Tensor], settings: ModelSettings
) -> dict[str, Tensor]:
    """The state dict of our model from a NanoChat's."""
    ours = {own: weights[name] for own, name in OUTSIDE.items() if name in weights}
    for layer in range(settings.n_layer):
        own, other = f"h.{layer}", f"model.layers.{layer}"
        q, k, v = (weights[f"{other}.self_attn.{name}.weight"] for name in PROJECTIONS)
        turned = (_swap_halves(q, settings.n_head), _swap_halves(k, settings.n_head), v)
        ours[f"{own}.attn.c_attn.weight"] = torch.cat(turned)
        for name, theirs in OF_A_BLOCK.items():
            ours[f"{own}.{name}.weight"] = weights[f"{other}.{theirs}.weight"]
    return ours


def _swap_halves(matrix: Tensor, n_head: int) -> Tensor:
    """Swap the first and last D / 2 rows of each head in a query or key matrix (C, C)."""
    C = matrix.shape[1]
    return matrix.view(n_head, 2, -1, C).flip(1).reshape(C, C)
