"""Which models each format can hold, by their settings alone.

Nothing here imports torch, so that the workflow asks before a training starts.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError

Format = Literal["huggingface", "gguf", "nanogpt"]

# Settings that a model of another program has no other choice of; a list: it has these.
# GPT-2, as transformers has it.
GPT2_SETTINGS: Mapping[str, JsonValue] = {
    "position": "learned",
    "norm": "layernorm",
    "embedding_norm": False,
    "qk_norm": False,
    "final_logit_softcapping": 0.0,
}
# NanoChat, as transformers has it.
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

# Of the shipped config.yaml: all formats can hold its model.
FITTING_RUN = "shakespeare_char_quickstart"

# By the tokenizer that the dataset has in config.yaml.
TOKENS_UNKNOWN_TO_NANOGPT = {"byte": "bytes", "bpe": "byte pairs of its own"}


def differing_settings(settings: ModelSettings, wanted: Mapping[str, JsonValue]) -> str:
    """`norm: rmsnorm, qk_norm: true`: the settings that aren't as wanted, as config.yaml has them.

    Nothing for a model that fits.
    """
    own = settings.model_dump(mode="json", include=set(wanted))
    return ", ".join(
        f"{name}: {str(own[name]).lower() if isinstance(own[name], bool) else own[name]}"
        for name, value in wanted.items()
        if (own[name] not in value if isinstance(value, list) else own[name] != value)
    )


def check_format(settings: ModelSettings, tokenizer: str, kind: Format, where: str) -> None:
    """UserError that names the settings of a model, or the tokens, which a format can't hold.

    tokenizer: char, byte, bpe or gpt2. where: the model or its run, for the message.
    """
    _check_architecture(settings, kind, where)
    if kind == "nanogpt" and tokenizer in TOKENS_UNKNOWN_TO_NANOGPT:
        raise UserError(
            f"{where}: its tokens are {TOKENS_UNKNOWN_TO_NANOGPT[tokenizer]}, which nanoGPT "
            "doesn't know; it has `tokenizer: char` and `tokenizer: gpt2`"
        )


def _check_architecture(settings: ModelSettings, kind: Format, where: str) -> None:
    if kind == "huggingface":
        unlike_gpt2 = differing_settings(settings, GPT2_SETTINGS)
        unlike_nanochat = differing_settings(settings, NANOCHAT_SETTINGS)
        if unlike_gpt2 and unlike_nanochat:
            raise UserError(
                f"{where}: transformers has no such architecture: its GPT-2 isn't one with "
                f"{unlike_gpt2}, nor its NanoChat one with {unlike_nanochat}; change one or the "
                "other, and train again"
            )
        return
    if kind == "gguf":
        program, wanted, fitting = "llama.cpp", LLAMA_CPP_SETTINGS, "GPT-2's"
    else:
        program, wanted, fitting = "nanoGPT", NANOGPT_SETTINGS, "GPT-2's with exact GELU"
    differing = differing_settings(settings, wanted)
    if differing:
        raise UserError(
            f"{where}: {program} has no model with {differing}; its model is {fitting}: train such "
            f"a one to export it, as the shipped run `{FITTING_RUN}` is"
        )


def check_package(kind: Format) -> None:
    """UserError if the package that writes a format isn't installed."""
    if kind != "gguf":
        return
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UserError("the package gguf isn't installed; run `pip install gguf`") from None
