"""Model directories: model.safetensors, config.json and tokenizer.json.

Nothing in them is executed when they are read: weights are safetensors, the rest is JSON."""

from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

from nanogpt.config.messages import explain
from nanogpt.config.resolving import check_model
from nanogpt.config.schema import ModelSettings
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import atomic_write, read_json, write_json
from nanogpt.model.gpt import GPT

MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be evaluated and sampled from, and the tokenizer that it speaks."""

    model: GPT
    tokenizer: Tokenizer


def save_model(
    directory: Path,
    weights: dict[str, Tensor],
    settings: ModelSettings,
    tokenizer: Tokenizer,
) -> None:
    """Write a model directory; each file appears whole or not at all."""
    tokenizer.save(directory / "tokenizer.json")
    config = {"architecture": "gpt2", "vocab_size": tokenizer.vocab_size, **settings.model_dump()}
    write_json(directory / "config.json", config)
    with atomic_write(directory / "model.safetensors") as file:
        file.write(save({name: tensor.contiguous() for name, tensor in weights.items()}))


def load_model(directory: Path, device: str = "cpu") -> Checkpoint:
    """Read a model directory.

    Errors: UserError for a file that is absent, damaged, or of another architecture or vocabulary.
    """
    config_file = directory / "config.json"
    try:
        config = read_json(config_file)
        if config.pop("architecture") != "gpt2":
            raise UserError("an architecture that this version does not know")
        vocab_size = config.pop("vocab_size")
        settings = ModelSettings.model_validate(config)
        check_model(settings)
    except FileNotFoundError:
        raise UserError(
            f"{directory}: no model here; config.json is missing: train the run, or name the "
            "directory of a model"
        ) from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        flaw = _config_flaw(error)
        raise UserError(f"{config_file}: {flaw}; train the run again") from None
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{config_file}: vocab_size is {vocab_size}, but tokenizer.json has "
            f"{plural(tokenizer.vocab_size, 'token')}; they do not belong together: train the run "
            "again"
        )
    model = GPT(settings, vocab_size)
    load_weights(model, directory / "model.safetensors")
    return Checkpoint(model.to(device), tokenizer)


def _config_flaw(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    flaw = ""
    if isinstance(error, ValidationError):
        flaw = f" ({explain(error, ModelSettings)})"
    elif isinstance(error, KeyError):
        flaw = f" (`{error.args[0]}` is missing)"
    return f"not a model's config{flaw}"


def load_weights(model: GPT, path: Path) -> None:
    """Read a safetensors file into a model of the same architecture.

    Errors: UserError for a file that is absent or damaged, or the first tensor that does not fit,
    or is not finite.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; train the run again")
    try:
        weights = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); train the run again") from None
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        flaw = _tensor_flaw(weights.get(name), wanted.get(name))
        if flaw:
            raise UserError(f"{path}: tensor {name} {flaw}; train the run again")
    model.load_state_dict(weights)


def _tensor_flaw(found: Tensor | None, wanted: Tensor | None) -> str | None:
    if found is None or wanted is None:
        return "is missing" if found is None else "is not of this model"

    def form(tensor: Tensor) -> str:
        return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"

    if form(found) != form(wanted):
        return f"is {form(found)}, but the model's is {form(wanted)}"
    # Of the extremes: isfinite().all() of all takes twenty times as long.
    if not torch.stack(torch.aminmax(found)).isfinite().all():
        return "has NaN or infinity"
    return None
