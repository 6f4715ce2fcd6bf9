"""Check from a model's settings whether a format supports the model.

This module doesn't import torch, so the workflow can check before a training starts.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError

Format = Literal["huggingface", "gguf", "nanogpt"]

# Settings for which another program's model supports only this value, or the values in a list.
# GPT-2 in transformers.
GPT2_SETTINGS: Mapping[str, JsonValue] = {
    "position": "learned",
    "norm": "layernorm",
    "embedding_norm": False,
    "qk_norm": False,
    "final_logit_softcapping": 0.0,
}
# NanoChat in transformers.
NANOCHAT_SETTINGS: Mapping[str, JsonValue] = {
    "position": "rotary",
    "norm": "rmsnorm",
    "embedding_norm": True,
    "qk_norm": True,
    "bias": False,
}
# llama.cpp computes `gelu` as `gelu_tanh`.
LLAMA_CPP_SETTINGS: Mapping[str, JsonValue] = {**GPT2_SETTINGS, "activation": ["gelu", "gelu_tanh"]}
NANOGPT_SETTINGS: Mapping[str, JsonValue] = {
    **GPT2_SETTINGS,
    "activation": "gelu",
    "tie_word_embeddings": True,
}

# A run in the shipped config.yaml whose model works in all formats.
FITTING_RUN = "shakespeare_char_quickstart"

# By the dataset's tokenizer in config.yaml.
TOKENS_UNKNOWN_TO_NANOGPT = {"byte": "bytes", "bpe": "byte pairs of its own"}


def differing_settings(settings: ModelSettings, wanted: Mapping[str, JsonValue]) -> str:
    """List the settings that a format doesn't support: `norm: rmsnorm, qk_norm: true`.

    Empty for a model that it supports. wanted: the supported values.
    """
    own = settings.model_dump(mode="json", include=set(wanted))
    return ", ".join(
        f"{name}: {str(own[name]).lower() if isinstance(own[name], bool) else own[name]}"
        for name, value in wanted.items()
        if (own[name] not in value if isinstance(value, list) else own[name] != value)
    )


def check_format(settings: ModelSettings, tokenizer: str, kind: Format, where: str) -> None:
    """Raise UserError for settings or tokens that a format doesn't support.

    tokenizer: char, byte, bpe or gpt2. where: the model or its run, for the message.
    """
    _check_architecture(settings, kind, where)
    if kind == "nanogpt" and tokenizer in TOKENS_UNKNOWN_TO_NANOGPT:
        raise UserError(
            f"{where}: nanoGPT doesn't support its tokens "
            f"({TOKENS_UNKNOWN_TO_NANOGPT[tokenizer]}); train with `tokenizer: char` "
            "or `tokenizer: gpt2` to export to it"
        )


def _check_architecture(settings: ModelSettings, kind: Format, where: str) -> None:
    if kind == "huggingface":
        unlike_gpt2 = differing_settings(settings, GPT2_SETTINGS)
        unlike_nanochat = differing_settings(settings, NANOCHAT_SETTINGS)
        if unlike_gpt2 and unlike_nanochat:
            raise UserError(
                f"{where}: transformers has no model with these settings: its GPT-2 doesn't "
                f"support {unlike_gpt2}, and its NanoChat doesn't support {unlike_nanochat}; "
                "change them to fit one of the two and train again"
            )
        return
    if kind == "gguf":
        program, wanted, fitting = "llama.cpp", LLAMA_CPP_SETTINGS, "GPT-2's"
    else:
        program, wanted, fitting = "nanoGPT", NANOGPT_SETTINGS, "GPT-2's with exact GELU"
    differing = differing_settings(settings, wanted)
    if differing:
        raise UserError(
            f"{where}: {program} doesn't support {differing}, because its model is {fitting}; "
            f"train a model with other settings, like those of the shipped run `{FITTING_RUN}`"
        )


def check_package(kind: Format) -> None:
    """Raise UserError if the package that writes a format isn't installed."""
    if kind != "gguf":
        return
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UserError("package `gguf` isn't installed; run `pip install gguf`") from None
