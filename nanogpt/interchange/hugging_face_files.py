"""Read a model directory of transformers: config.json, model.safetensors, tokenizer.json."""

import json
from pathlib import Path

import safetensors
import torch
from pydantic import BaseModel, JsonValue, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from nanogpt.config.foreign import ForeignModel, read_transformers_config
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
    """Read a GPT-2 or NanoChat written by transformers or a nanogpt export.

    tokenizer: used instead of the directory's, if given.

    Errors: UserError for a file that's missing or damaged, for an architecture or tokenizer that
    nanogpt doesn't support, and for the first tensor that doesn't match.
    """
    config_file = directory / "config.json"
    content = read_config(config_file)
    try:
        described = read_transformers_config(content)
        check_model(described.settings)
    except UserError as error:
        raise UserError(f"{config_file}: {error}; use another model") from None
    tokenizer = tokenizer or read_tokenizer_json(directory / "tokenizer.json")
    path, tensors = _read_weights(directory)
    convert = _convert_nanochat if described.settings.position == "rotary" else _convert_gpt2
    settings, weights = convert(tensors, described, path)
    weights = without_padding(weights, tokenizer.vocab_size, path)
    start = described.own.start
    if any(token >= tokenizer.vocab_size for token in start):
        start = ()
    return Checkpoint(model_of(settings, weights), tokenizer, start)


def read_config(path: Path) -> dict[str, JsonValue]:
    """Read a config.json.

    Errors: UserError for a file that's missing or isn't a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent}: not a model directory: config.json is missing; name a model directory"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path}: a directory, not a file; {AGAIN}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: damaged: not JSON; {AGAIN}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged: not a JSON object; {AGAIN}")
    return content


def _convert_gpt2(
    tensors: dict[str, Tensor], described: ForeignModel, path: Path
) -> tuple[ModelSettings, dict[str, Tensor]]:
    """Convert the settings and weights of a GPT-2, without biases if an export added them."""
    settings = described.settings
    empty = empty_weights(settings, described.vocab_size)
    wanted = hugging_face.weights_for_hugging_face(empty, settings)
    tied = settings.tie_word_embeddings
    known = hugging_face.known_weights(tensors, tied=tied)
    check_tensors(known, hugging_face.known_weights(wanted, tied=tied), path)
    biases = (weight for name, weight in known.items() if name.endswith(".bias"))
    if not described.own.bias and not any(weight.any() for weight in biases):
        settings = settings.model_copy(update={"bias": False})
    return settings, hugging_face.our_weights(known, settings)


def _convert_nanochat(
    tensors: dict[str, Tensor], described: ForeignModel, path: Path
) -> tuple[ModelSettings, dict[str, Tensor]]:
    """Convert the settings and weights of a NanoChat."""
    settings = described.settings
    if settings.tie_word_embeddings:
        tensors = {name: weight for name, weight in tensors.items() if name != hugging_face.HEAD}
    empty = empty_weights(settings, described.vocab_size)
    check_tensors(tensors, nanochat.weights_for_nanochat(empty, settings), path)
    return settings, nanochat.weights_from_nanochat(tensors, settings)


def _read_weights(directory: Path) -> tuple[Path, dict[str, Tensor]]:
    """All tensors of a directory, and the file to name in errors."""
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
            if Path(name).name != name or name in ("", ".."):
                raise UserError(f"{index}: `{shorten(name)}` isn't in its directory; {AGAIN}")
            weights |= _load(directory / name)
        return index, weights
    remedy = AGAIN
    if list(directory.glob("pytorch_model*.bin")):
        remedy = "nanogpt only reads safetensors, so save the model again with transformers"
    raise UserError(f"{path}: no such file; {remedy}")


def _load(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; {AGAIN}")
    with open(path, "rb"):
        pass  # raises PermissionError, which load_file would report as a missing file
    try:
        weights = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not safetensors ({error}); {AGAIN}") from None
    half = (torch.float16, torch.bfloat16)
    return {name: w.float() if w.dtype in half else w for name, w in weights.items()}
