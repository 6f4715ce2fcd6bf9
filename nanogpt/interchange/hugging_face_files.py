"""A model directory of transformers, read: config.json, model.safetensors, tokenizer.json."""

import json
from pathlib import Path

import safetensors
import torch
from pydantic import BaseModel, JsonValue, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from nanogpt.config.foreign import OurPart, settings_of_transformers
from nanogpt.config.resolving import check_model
from nanogpt.config.schema import ModelSettings
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError, shorten
from nanogpt.interchange import hugging_face, nanochat
from nanogpt.interchange.tokenizer_files import read_tokenizer_json
from nanogpt.interchange.weights import check_tensors, empty_weights, model_of, without_padding
from nanogpt.model.checkpoints import Checkpoint

AGAIN = "export or download the model again"
INDEX = "model.safetensors.index.json"


class _Index(BaseModel):
    weight_map: dict[str, str]


def read_hugging_face(directory: Path, tokenizer: Tokenizer | None = None) -> Checkpoint:
    """Read a GPT-2 or a NanoChat that transformers or a nanogpt export wrote.

    tokenizer: if known, instead of the directory's.

    Errors: UserError for a file that is absent or damaged, an architecture or a tokenizer that ours
    can't be, and the first tensor that doesn't fit.
    """
    config_file = directory / "config.json"
    content = read_config(config_file)
    is_nanochat = content.get("model_type") == "nanochat"
    try:
        settings, n_rows = settings_of_transformers(content)
        check_model(settings)
    except UserError as error:
        raise UserError(f"{config_file}: {error}; take another model") from None
    tokenizer = tokenizer or read_tokenizer_json(directory / "tokenizer.json")
    path, found = _read_weights(directory)
    read = _nanochat_weights if is_nanochat else _gpt2_weights
    own = OurPart.model_validate(content.get("nanogpt") or {})
    settings, weights = read(found, settings, n_rows, own, path)
    weights = without_padding(weights, tokenizer.vocab_size, path)
    start = own.start if all(token < tokenizer.vocab_size for token in own.start) else ()
    return Checkpoint(model_of(settings, weights), tokenizer, start)


def read_config(path: Path) -> dict[str, JsonValue]:
    """The content of a config.json.

    Errors: UserError for a file that is absent or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no model here; config.json is missing") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; {AGAIN}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: damaged: not JSON; {AGAIN}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged: not a JSON object; {AGAIN}")
    return content


def _gpt2_weights(
    found: dict[str, Tensor], settings: ModelSettings, n_rows: int, own: OurPart, path: Path
) -> tuple[ModelSettings, dict[str, Tensor]]:
    tied = settings.tie_word_embeddings
    empty = hugging_face.weights_for_hugging_face(empty_weights(settings, n_rows), settings)
    known = hugging_face.known_weights(found, tied=tied)
    check_tensors(known, hugging_face.known_weights(empty, tied=tied), path)
    biases = (weight for name, weight in known.items() if name.endswith(".bias"))
    if not own.bias and not any(weight.any() for weight in biases):
        settings = settings.model_copy(update={"bias": False})
    return settings, hugging_face.our_weights(known, settings)


def _nanochat_weights(
    found: dict[str, Tensor], settings: ModelSettings, n_rows: int, own: OurPart, path: Path
) -> tuple[ModelSettings, dict[str, Tensor]]:
    del own  # such a model has no biases
    if settings.tie_word_embeddings:
        found = {name: weight for name, weight in found.items() if name != hugging_face.HEAD}
    empty = nanochat.weights_for_nanochat(empty_weights(settings, n_rows), settings)
    check_tensors(found, empty, path)
    return settings, nanochat.weights_from_nanochat(found, settings)


def _read_weights(directory: Path) -> tuple[Path, dict[str, Tensor]]:
    """All tensors of a directory, and the file that messages name."""
    path, index = directory / "model.safetensors", directory / INDEX
    if path.is_file():
        return path, _load(path)
    if index.is_file():
        try:
            files = set(_Index.model_validate_json(index.read_bytes()).weight_map.values())
        except ValidationError:
            raise UserError(f"{index}: damaged; {AGAIN}") from None
        weights: dict[str, Tensor] = {}
        for name in sorted(files):
            if Path(name).name != name:
                raise UserError(f"{index}: `{shorten(name)}` isn't beside it; {AGAIN}")
            weights |= _load(directory / name)
        return index, weights
    remedy = AGAIN
    if list(directory.glob("pytorch_model*.bin")):
        remedy = "nanogpt reads safetensors only: save the model again with transformers"
    raise UserError(f"{path}: no such file; {remedy}")


def _load(path: Path) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {AGAIN}") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); {AGAIN}") from None
    half = (torch.float16, torch.bfloat16)
    return {name: w.float() if w.dtype in half else w for name, w in weights.items()}
