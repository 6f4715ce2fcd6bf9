"""Export a model as a directory that transformers can load without our package."""

from pathlib import Path

from pydantic import JsonValue
from safetensors.torch import save
from torch import Tensor

from nanogpt.config.schema import ModelSettings
from nanogpt.data.byte_pairs import END_OF_TEXT, BytePairTokenizer
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.files.atomic import atomic_write, write_json, write_text
from nanogpt.interchange import hugging_face, nanochat
from nanogpt.interchange.destinations import EXPORT_MARK, whole_directory
from nanogpt.interchange.exports import ExportedModel, read_model
from nanogpt.interchange.model_card import model_card
from nanogpt.interchange.tokenizer_files import tokenizer_json


def export_hugging_face(directory: Path, destination: Path) -> str:
    """Write a model for transformers; return a one-line summary.

    Errors, before anything is written: UserError for a model that transformers doesn't support,
    and for a destination with other files.
    """
    model = read_model(directory, "huggingface")
    architecture, config, weights = _convert(model)
    ids = special_ids(model.tokenizer)
    own = {"bias": model.settings.bias, "dropout": model.settings.dropout}
    config = {
        **config,
        **ids,
        "dtype": "float32",
        # Settings that only our models have, for importing the model again.
        "nanogpt": {**own, "init": model.settings.init, "start": list(model.start)},
    }
    tokenizer = tokenizer_json(model.tokenizer)
    card = model_card(model, architecture)
    with whole_directory(destination, EXPORT_MARK, model.mark("huggingface")) as temporary:
        write_json(temporary / "config.json", config)
        write_json(temporary / "generation_config.json", _generation_config(model.settings, ids))
        write_json(temporary / "tokenizer_config.json", _tokenizer_config(model))
        write_text(temporary / "tokenizer.json", tokenizer)
        write_text(temporary / "README.md", card)
        with atomic_write(temporary / "model.safetensors") as file:
            # transformers rejects a file without this metadata.
            own_copies = {name: weight.contiguous() for name, weight in weights.items()}
            file.write(save(own_copies, metadata={"format": "pt"}))
    return f"{architecture} for transformers"


def _convert(model: ExportedModel) -> tuple[str, dict[str, JsonValue], dict[str, Tensor]]:
    """The model's architecture in transformers, its config.json and its weights."""
    settings, vocab_size = model.settings, model.tokenizer.vocab_size
    if settings.position == "learned":
        config = hugging_face.config_for_hugging_face(settings, vocab_size)
        weights = hugging_face.weights_for_hugging_face(model.weights, settings)
        return hugging_face.ARCHITECTURE, config, weights
    config = nanochat.config_for_nanochat(settings, vocab_size)
    weights = nanochat.weights_for_nanochat(model.weights, settings)
    return nanochat.ARCHITECTURE, config, weights


def special_ids(tokenizer: Tokenizer) -> dict[str, JsonValue]:
    """The ids of special tokens, null for missing ones.

    If omitted, they'd get defaults, which are ordinary characters in a small vocabulary.
    """
    end = tokenizer.vocab_size - 1 if isinstance(tokenizer, BytePairTokenizer) else None
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": None}


def _generation_config(settings: ModelSettings, ids: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """generation_config.json: by default, generate up to half a window of tokens.

    The other half is left for the prompt.
    """
    return {**ids, "max_new_tokens": max(1, settings.block_size // 2)}


def _tokenizer_config(model: ExportedModel) -> dict[str, JsonValue]:
    end = END_OF_TEXT if isinstance(model.tokenizer, BytePairTokenizer) else None
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.settings.block_size,
        # It would remove spaces before punctuation from decoded text.
        "clean_up_tokenization_spaces": False,
        "bos_token": end,
        "eos_token": end,
        "unk_token": None,
        "pad_token": None,
    }
