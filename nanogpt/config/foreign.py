"""The config.json of transformers' GPT-2 and NanoChat as our model settings.

Weights are left to `interchange`. This is apart from it, since settings are known before a job
starts: nothing here needs torch.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from nanogpt.config.messages import explain
from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError

# The same as in model/gpt.py, which reading a config must not import.
NORM_EPSILON = 1e-5
RMS_EPSILON = 1e-6
ROTARY_BASE = 10_000

ACTIVATIONS: Mapping[str, Literal["gelu", "gelu_tanh", "relu2"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}


def settings_of_transformers(content: Mapping[str, JsonValue]) -> tuple[ModelSettings, int]:
    """Our model settings and vocab_size for the content of a config.json of transformers.

    Errors: UserError for an architecture that our model doesn't have.
    """
    if content.get("model_type") == "nanochat":
        return settings_from_nanochat(content)
    return settings_from_hugging_face(content)


def is_foreign(content: Mapping[str, JsonValue]) -> bool:
    """Whether a config.json is another program's: ours says which `architecture` it is."""
    return "architecture" not in content


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


class RopeParameters(BaseModel):
    """How positions turn."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rope_type: Literal["default"] = "default"
    rope_theta: float = ROTARY_BASE


class NanoChatConfig(BaseModel):
    """The part of a NanoChat's config.json that decides what it computes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: Literal["nanochat"]
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: PositiveInt
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu2"] = "relu2"
    rms_norm_eps: float = RMS_EPSILON
    rope_parameters: RopeParameters | None = None
    final_logit_softcapping: NonNegativeFloat | None = 15.0
    attention_bias: Literal[False] = False
    tie_word_embeddings: bool = False
    nanogpt: OurPart = OurPart()

    @model_validator(mode="after")
    def _is_ours(self) -> "NanoChatConfig":
        if self.intermediate_size != 4 * self.hidden_size:
            raise ValueError("intermediate_size should be 4 * hidden_size")
        if self.num_key_value_heads not in (None, self.num_attention_heads):
            raise ValueError("num_key_value_heads should be num_attention_heads")
        if self.head_dim not in (None, self.hidden_size // self.num_attention_heads):
            raise ValueError("head_dim should be hidden_size / num_attention_heads")
        if self.rms_norm_eps != RMS_EPSILON:
            raise ValueError(f"rms_norm_eps should be {RMS_EPSILON}")
        if self.rope_parameters and self.rope_parameters.rope_theta != ROTARY_BASE:
            raise ValueError(f"rope_theta should be {ROTARY_BASE}")
        return self


def settings_from_nanochat(content: Mapping[str, JsonValue]) -> tuple[ModelSettings, int]:
    """Our model settings and vocab_size for the content of a NanoChat's config.json.

    Errors: UserError for an architecture that our model doesn't have.
    """
    kind: type[BaseModel] = NanoChatConfig
    try:
        config = NanoChatConfig.model_validate(content)
        kind = ModelSettings
        settings = ModelSettings(
            n_layer=config.num_hidden_layers,
            n_head=config.num_attention_heads,
            n_embd=config.hidden_size,
            block_size=config.max_position_embeddings,
            dropout=config.nanogpt.dropout,
            bias=False,
            position="rotary",
            activation=ACTIVATIONS[config.hidden_act],
            norm="rmsnorm",
            embedding_norm=True,
            qk_norm=True,
            tie_word_embeddings=config.tie_word_embeddings,
            final_logit_softcapping=config.final_logit_softcapping or 0.0,
            init=config.nanogpt.init,
        )
    except ValidationError as error:
        raise UserError(f"not a NanoChat that nanogpt can read: {explain(error, kind)}") from None
    return settings, config.vocab_size
