"""Weights and settings of Hugging Face's GPT-2 as ours.

Where such weights come from is left to the caller."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError
from torch import Tensor

from nanogpt.config.messages import explain
from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError
from nanogpt.model.gpt import NORM_EPSILON

# transformers keeps these as Conv1D, whose weight is the transpose of a linear layer's.
TRANSPOSED = (
    "attn.c_attn.weight",
    "attn.c_proj.weight",
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
)

# Causal masks that old files hold, and the output embedding, which is tied to `wte`.
NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", "lm_head.weight")

ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

REFUSED = "not a GPT-2 that can be read here"

# What else a GPT-2 of theirs can be, and ours cannot.
REQUIRED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "layer_norm_epsilon": NORM_EPSILON,
    "tie_word_embeddings": True,
    "add_cross_attention": False,
}


def settings_from_hugging_face(config: Mapping[str, Any]) -> tuple[ModelSettings, int]:
    """Our model settings and vocab_size for the `config.json` of a Hugging Face GPT-2.

    Errors: UserError for an architecture that ours is not.
    """
    for name, wanted in REQUIRED.items():
        if (found := config.get(name, wanted)) != wanted:
            raise UserError(f"{REFUSED}: {name} is {found}; only {wanted} can be read")
    try:
        if config.get("n_inner") not in (None, 4 * config["n_embd"]):
            raise UserError(f"{REFUSED}: n_inner is not 4 * n_embd")
        settings = ModelSettings(
            n_layer=config["n_layer"],
            n_head=config["n_head"],
            n_embd=config["n_embd"],
            block_size=config["n_positions"],
            dropout=config["resid_pdrop"],
            bias=True,
            activation=ACTIVATIONS[config["activation_function"]],
        )
        return settings, int(config["vocab_size"])
    except KeyError as error:
        raise UserError(f"{REFUSED}: {error} is absent or not one we know") from None
    except ValidationError as error:
        raise UserError(f"{REFUSED}: {explain(error, ModelSettings)}") from None


def weights_from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a Hugging Face GPT-2 as our model's."""
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    return {
        name: tensor.t().contiguous() if name.endswith(TRANSPOSED) else tensor
        for name, tensor in renamed.items()
        if not name.endswith(NOT_WEIGHTS)
    }
