"""Weights of others: Hugging Face's GPT-2.

Where such weights come from is left to the caller.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nanogpt.config import ModelSettings, UserError

# transformers keeps these as Conv1D, whose weight is the transpose of a linear layer's.
TRANSPOSED = (
    "attn.c_attn.weight",
    "attn.c_proj.weight",
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
)
# Causal masks that old files hold, and the output embedding, which is tied to `wte`.
NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", "lm_head.weight")

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def settings_from_hugging_face(config: Mapping[str, Any]) -> tuple[ModelSettings, int]:
    """Our model settings and vocab_size for the `config.json` of a Hugging Face GPT-2.

    Errors: UserError for an architecture that ours is not.
    """
    width = config.get("n_inner") or 4 * config["n_embd"]
    activation = ACTIVATIONS.get(config["activation_function"])
    if config.get("model_type") != "gpt2" or width != 4 * config["n_embd"] or not activation:
        raise UserError("not a GPT-2 that this model can be: another type, n_inner or activation")
    settings = {
        "n_layer": config["n_layer"],
        "n_head": config["n_head"],
        "n_embd": config["n_embd"],
        "block_size": config["n_positions"],
        "dropout": config["resid_pdrop"],
        "bias": True,
        "activation": activation,
    }
    return ModelSettings.model_validate(settings), config["vocab_size"]


def weights_from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a Hugging Face GPT-2 as our model's."""
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    return {
        name: tensor.t().contiguous() if name.endswith(TRANSPOSED) else tensor
        for name, tensor in renamed.items()
        if not name.endswith(NOT_WEIGHTS)
    }
