"""Convert the config.json of transformers' GPT-2 and NanoChat models to our model settings.

Types are strict: `"12"` and `true` aren't numbers. `interchange` converts the weights. This module
is separate because settings are needed before a job starts, without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from nanogpt.config.messages import explain
from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError

# The same values as in model/gpt.py, which imports torch.
NORM_EPSILON = 1e-5
RMS_EPSILON = 1e-6
ROTARY_BASE = 10_000

# The limit of token files.
VocabSize = Annotated[int, Field(gt=0, le=2**32)]

ACTIVATIONS: Mapping[str, Literal["gelu", "gelu_tanh", "relu2"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}


def is_foreign(content: Mapping[str, JsonValue]) -> bool:
    """Whether a config.json is another program's: ours has a key `architecture`."""
    return "architecture" not in content


class OurPart(BaseModel):
    """The key `nanogpt` of our exports: settings that transformers' configs don't have.

    bias: whether our model has biases; if not, an export has zeros for them. start: the tokens that
    come before the start of a text.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    bias: bool = True
    dropout: float = 0.0
    init: Literal["gpt2", "zero_proj"] = "gpt2"
    start: Annotated[tuple[NonNegativeInt, ...], Field(strict=False)] = ()  # a list in JSON


class GPT2Config(BaseModel):
    """The keys of a GPT-2's config.json that affect its computation.

    A field with one possible value stands for variants that our model doesn't support.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    n_layer: PositiveInt
    n_head: PositiveInt
    n_embd: PositiveInt
    n_positions: PositiveInt
    vocab_size: VocabSize
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
    def _is_ours(self) -> "GPT2Config":
        if self.n_inner not in (None, 4 * self.n_embd):
            raise ValueError("n_inner should be 4 * n_embd")
        if self.layer_norm_epsilon != NORM_EPSILON:
            raise ValueError(f"layer_norm_epsilon should be {NORM_EPSILON}")
        return self

    @property
    def settings(self) -> ModelSettings:
        """The same architecture as our settings."""
        return ModelSettings(
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            block_size=self.n_positions,
            dropout=self.resid_pdrop,
            bias=True,
            position="learned",
            activation=ACTIVATIONS[self.activation_function],
            tie_word_embeddings=self.tie_word_embeddings,
            init=self.nanogpt.init,
        )


class RopeParameters(BaseModel):
    """The rotary positions. Only these values are supported."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    rope_type: Literal["default"] = "default"
    rope_theta: float = ROTARY_BASE


class NanoChatConfig(BaseModel):
    """The keys of a NanoChat's config.json that affect its computation."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    model_type: Literal["nanochat"]
    vocab_size: VocabSize
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
    rope_scaling: None = None  # in older files
    rope_theta: float = ROTARY_BASE
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
        rope = self.rope_parameters or RopeParameters()
        if {rope.rope_theta, self.rope_theta} != {ROTARY_BASE}:
            raise ValueError(f"rope_theta should be {ROTARY_BASE}")
        return self

    @property
    def settings(self) -> ModelSettings:
        """The same architecture as our settings."""
        return ModelSettings(
            n_layer=self.num_hidden_layers,
            n_head=self.num_attention_heads,
            n_embd=self.hidden_size,
            block_size=self.max_position_embeddings,
            dropout=self.nanogpt.dropout,
            bias=False,
            position="rotary",
            activation=ACTIVATIONS[self.hidden_act],
            norm="rmsnorm",
            embedding_norm=True,
            qk_norm=True,
            tie_word_embeddings=self.tie_word_embeddings,
            final_logit_softcapping=self.final_logit_softcapping or 0.0,
            init=self.nanogpt.init,
        )


@dataclass(frozen=True)
class ForeignModel:
    """A transformers model, from its config.json.

    settings: as ours. vocab_size: number of rows of its embedding. own: the keys that our export
    added.
    """

    settings: ModelSettings
    vocab_size: int
    own: OurPart


def read_transformers_config(content: Mapping[str, JsonValue]) -> ForeignModel:
    """Convert the content of a transformers config.json.

    Errors: UserError for an architecture that our model doesn't support.
    """
    is_nanochat = content.get("model_type") == "nanochat"
    name, reader = ("NanoChat", NanoChatConfig) if is_nanochat else ("GPT-2", GPT2Config)
    model: type[BaseModel] = reader
    try:
        config = reader.model_validate(content)
        model = ModelSettings
        settings = config.settings
    except ValidationError as error:
        raise UserError(
            f"not a {name} model that nanogpt supports: {explain(error, model)}"
        ) from None
    return ForeignModel(settings, config.vocab_size, config.nanogpt)
