"""Hugging Face's GPT-2 as ours: its config.json as model settings, its state dict as weights.

Reading the files is left to the caller.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, PositiveInt, ValidationError, model_validator
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

# Causal masks that old files have, and the output embedding, which is tied to `wte`.
NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", "lm_head.weight")

ACTIVATIONS: Mapping[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class HuggingFaceConfig(BaseModel):
    """The part of a Hugging Face config.json that decides what a GPT-2 computes.

    Fields with one possible value are variants that our model doesn't have.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    n_layer: PositiveInt
    n_head: PositiveInt
    n_embd: PositiveInt
    n_positions: PositiveInt
    vocab_size: PositiveInt
    resid_pdrop: float
    activation_function: Literal["gelu", "gelu_new", "gelu_pytorch_tanh"]
    n_inner: int | None = None
    model_type: Literal["gpt2"] = "gpt2"
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    layer_norm_epsilon: float = NORM_EPSILON
    tie_word_embeddings: Literal[True] = True
    add_cross_attention: Literal[False] = False

    @model_validator(mode="after")
    def _is_ours(self) -> "HuggingFaceConfig":
        if self.n_inner not in (None, 4 * self.n_embd):
            raise ValueError("n_inner should be 4 * n_embd")
        if self.layer_norm_epsilon != NORM_EPSILON:
            raise ValueError(f"layer_norm_epsilon should be {NORM_EPSILON}")
        return self


def settings_from_hugging_face(content: Mapping[str, JsonValue]) -> tuple[ModelSettings, int]:
    """Our model settings and vocab_size for the content of a Hugging Face GPT-2's config.json.

    Errors: UserError for an architecture that our model doesn't have.
    """
    kind: type[BaseModel] = HuggingFaceConfig
    try:
        config = HuggingFaceConfig.model_validate(content)
        kind = ModelSettings
        settings = ModelSettings(
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            block_size=config.n_positions,
            dropout=config.resid_pdrop,
            bias=True,
            position="learned",
            activation=ACTIVATIONS[config.activation_function],
        )
    except ValidationError as error:
        raise UserError(f"not a GPT-2 that nanogpt can read: {explain(error, kind)}") from None
    return settings, config.vocab_size


def weights_from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a Hugging Face GPT-2 as our model's."""
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    return {
        name: tensor.t().contiguous() if name.endswith(TRANSPOSED) else tensor
        for name, tensor in renamed.items()
        if not name.endswith(NOT_WEIGHTS)
    }
