"""Hugging Face's GPT-2 as ours and ours as theirs: config.json, and the names of weights.

Reading and writing files is left to others.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, JsonValue, PositiveInt, ValidationError, model_validator
from torch import Tensor

from nanogpt.config.messages import explain
from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError
from nanogpt.interchange.architectures import GPT2, differing_settings
from nanogpt.model.gpt import NORM_EPSILON

ARCHITECTURE = "GPT2LMHeadModel"

# transformers keeps these as Conv1D, whose weight is the transpose of a linear layer's.
TRANSPOSED = (
    "attn.c_attn.weight",
    "attn.c_proj.weight",
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
)

# Causal masks that old files have, and the output embedding, which is tied to `wte`.
MASKS = (".attn.bias", ".attn.masked_bias")
HEAD = "lm_head.weight"

ACTIVATIONS: Mapping[str, Literal["gelu", "gelu_tanh", "relu2"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}
THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu2": "relu2"}


class OurPart(BaseModel):
    """What our models have and transformers' configs don't: the key `nanogpt` of our exports.

    bias: whether the model has biases; those of an export without are zeros. start: the tokens that
    a text begins after.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    bias: bool = True
    dropout: float = 0.0
    init: Literal["gpt2", "zero_proj"] = "gpt2"
    start: tuple[int, ...] = ()


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
    activation_function: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu2"]
    n_inner: int | None = None
    model_type: Literal["gpt2"] = "gpt2"
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    layer_norm_epsilon: float = NORM_EPSILON
    tie_word_embeddings: bool = True
    add_cross_attention: Literal[False] = False
    nanogpt: OurPart = OurPart()

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
            tie_word_embeddings=config.tie_word_embeddings,
            init=config.nanogpt.init,
        )
    except ValidationError as error:
        raise UserError(f"not a GPT-2 that nanogpt can read: {explain(error, kind)}") from None
    return settings, config.vocab_size


def config_for_hugging_face(settings: ModelSettings, vocab_size: int) -> dict[str, JsonValue]:
    """The part of a GPT-2's config.json that says what it computes."""
    assert not differing_settings(settings, GPT2)
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


def weights_from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a Hugging Face GPT-2 whose embeddings are tied as our model's."""
    return _transposed(known_weights(weights, tied=True))


def known_weights(weights: Mapping[str, Tensor], *, tied: bool) -> dict[str, Tensor]:
    """The tensors of a GPT-2 that count, under their names in ours; not yet transposed."""
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    unused = (*MASKS, HEAD) if tied else MASKS
    return {name: tensor for name, tensor in renamed.items() if not name.endswith(unused)}


def our_weights(weights: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
    """The tensors of `known_weights` as our model has them.

    A model without biases leaves those out that transformers' GPT-2 always has.
    """
    ours = _transposed(weights)
    if settings.bias:
        return ours
    return {name: weight for name, weight in ours.items() if not name.endswith(".bias")}


def weights_for_hugging_face(
    weights: Mapping[str, Tensor], settings: ModelSettings
) -> dict[str, Tensor]:
    """The state dict of our GPT-2 as transformers', with zeros for biases that ours hasn't."""
    theirs = _transposed(weights)
    if not settings.bias:
        for name, weight in weights.items():
            layer = name.removesuffix(".weight")
            if "ln_" in layer or name.endswith(TRANSPOSED):
                theirs[f"{layer}.bias"] = torch.zeros(len(weight), device=weight.device)
    return {
        name if name == HEAD else f"transformer.{name}": weight for name, weight in theirs.items()
    }


def _transposed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.t().contiguous() if name.endswith(TRANSPOSED) else tensor
        for name, tensor in weights.items()
    }
