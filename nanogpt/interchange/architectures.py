"""Which architectures each format can hold, by the model's settings alone. Doesn't import torch."""

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError

Format = Literal["huggingface", "gguf", "nanogpt"]

# Settings that a model of another program has no other choice of; a list: it has these.
# GPT-2, as transformers has it.
GPT2: Mapping[str, JsonValue] = {
    "position": "learned",
    "norm": "layernorm",
    "embedding_norm": False,
    "qk_norm": False,
    "final_logit_softcapping": 0.0,
}
# NanoChat, as transformers has it.
NANOCHAT: Mapping[str, JsonValue] = {
    "position": "rotary",
    "norm": "rmsnorm",
    "embedding_norm": True,
    "qk_norm": True,
    "bias": False,
}
# llama.cpp computes `gelu` as `gelu_tanh`.
LLAMA_CPP: Mapping[str, JsonValue] = {**GPT2, "activation": ["gelu", "gelu_tanh"]}
NANOGPT: Mapping[str, JsonValue] = {**GPT2, "activation": "gelu", "tie_word_embeddings": True}


def differing_settings(settings: ModelSettings, wanted: Mapping[str, JsonValue]) -> str:
    """`norm: rmsnorm, qk_norm: true`: the settings that aren't as wanted, as config.yaml has them.

    Nothing for a model that fits.
    """
    found = settings.model_dump(mode="json", include=set(wanted))
    return ", ".join(
        f"{name}: {str(found[name]).lower() if isinstance(found[name], bool) else found[name]}"
        for name, value in wanted.items()
        if (found[name] not in value if isinstance(value, list) else found[name] != value)
    )


def check_format(settings: ModelSettings, kind: Format, where: str) -> None:
    """UserError that names the settings of a model which a format can't hold.

    where: the model or its run, for the message.
    """
    if kind == "huggingface":
        unlike_gpt2 = differing_settings(settings, GPT2)
        unlike_nanochat = differing_settings(settings, NANOCHAT)
        if unlike_gpt2 and unlike_nanochat:
            raise UserError(
                f"{where}: transformers has no such architecture: its GPT-2 isn't one with "
                f"{unlike_gpt2}, nor its NanoChat one with {unlike_nanochat}; change one or the "
                "other, and train again"
            )
        return
    program, wanted = ("llama.cpp", LLAMA_CPP) if kind == "gguf" else ("nanoGPT", NANOGPT)
    differing = differing_settings(settings, wanted)
    if differing:
        fits = "GPT-2's" if kind == "gguf" else "GPT-2's with exact GELU"
        raise UserError(
            f"{where}: {program} has no model with {differing}; its model is {fits}: train such a "
            "one to export it"
        )
