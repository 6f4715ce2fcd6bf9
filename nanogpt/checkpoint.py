"""Model directories: model.safetensors, config.json, tokenizer.json.

Nothing in them is executed when they are read: weights are safetensors, the rest is JSON.
"""

from dataclasses import dataclass
from pathlib import Path

import safetensors
from pydantic import ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

from nanogpt.config import ModelSettings, UserError, check_model
from nanogpt.files import atomic_write, read_json, write_json
from nanogpt.model import GPT
from nanogpt.tokenizer import Tokenizer, load_tokenizer


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
        raise UserError(f"{directory}: no model here; config.json is missing") from None
    except (ValidationError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise UserError(f"{config_file}: {error}") from None
        raise UserError(f"{config_file}: not a model's config; train the run again") from None
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{config_file}: vocab_size is {vocab_size}, but tokenizer.json has "
            f"{tokenizer.vocab_size} tokens; they do not belong together"
        )
    model = GPT(settings, vocab_size)
    load_weights(model, directory / "model.safetensors")
    return Checkpoint(model.to(device), tokenizer)


def load_weights(model: GPT, path: Path) -> None:
    """Read a safetensors file into a model of the same architecture.

    Errors: UserError for a file that is absent or damaged, or the first tensor that does not fit.
    """
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train the run again") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); train the run again") from None
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else "absent"
        expected = tuple(wanted[name].shape) if name in wanted else "absent"
        if found != expected:
            raise UserError(f"{path}: tensor {name} is {found}, but the model's is {expected}")
    model.load_state_dict(weights)
