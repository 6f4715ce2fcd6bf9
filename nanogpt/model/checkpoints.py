"""Load model directories: a model or an ensemble, and its tokenizer.

Nothing in them is executed: weights are safetensors, and the rest is JSON. Training doesn't import
this module; it reads only its initial weights (training/initial.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.models import ModelConfig
from nanogpt.config.parameters import complete
from nanogpt.config.resolving import check_model
from nanogpt.config.schema import ModelSettings
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import REMAKE, UserError, plural
from nanogpt.model.directories import ARCHITECTURE, write_directory
from nanogpt.model.ensemble import Ensemble, Model
from nanogpt.model.gpt import GPT
from nanogpt.model.weights import load_weights

# The `architecture` in an ensemble's config.json.
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and its tokenizer. start: the tokens that precede a text, if known."""

    model: Model
    tokenizer: Tokenizer
    start: tuple[int, ...] = ()


def load_model(directory: Path, device: str = "cpu") -> Checkpoint:
    """Load a model directory.

    Errors: UserError for a missing or damaged file, or one with another architecture or vocabulary.
    """
    config_file = directory / "config.json"
    if not config_file.exists():
        raise UserError(
            f"{directory}: not a model directory: config.json is missing; train the run, or name "
            "a model directory"
        )
    config = read_record(config_file, ModelConfig)
    settings = _settings(config, config_file)
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            f"{config_file}: `vocab_size` is {config.vocab_size}, but `tokenizer.json` has "
            f"{plural(tokenizer.vocab_size, 'token')}; {REMAKE}"
        )
    if any(token >= config.vocab_size for token in config.start):
        raise UserError(f"{config_file}: `start` has a token outside the vocabulary; {REMAKE}")
    model: Model
    if isinstance(settings, ModelSettings):
        model = GPT(settings, config.vocab_size)
    else:
        model = Ensemble(settings, config.vocab_size)
    model.float()  # torch's default dtype may be another one
    load_weights(model, directory / "model.safetensors")
    return Checkpoint(model.to(device), tokenizer, config.start)


def _settings(config: ModelConfig, path: Path) -> ModelSettings | list[ModelSettings]:
    """Return the settings in a config.json: a single model's, or a list for an ensemble.

    Errors: UserError for a model that this version can't build.
    """
    if config.architecture == ENSEMBLE and config.ensemble:
        return [_settings_of_gpt(settings, path) for settings in config.ensemble]
    if config.architecture != ARCHITECTURE:
        raise UserError(
            f"{path}: unknown architecture `{config.architecture}` (this version of nanogpt reads "
            f"only `{ARCHITECTURE}`); use the version that wrote it, or {REMAKE}"
        )
    return _settings_of_gpt(config.settings, path)


def _settings_of_gpt(found: dict[str, JsonValue], path: Path) -> ModelSettings:
    try:
        settings = complete(ModelSettings, found)
    except UserError as error:
        raise UserError(f"{path}: invalid model config: {error}; {REMAKE}") from None
    try:
        check_model(settings)
    except UserError as error:
        raise UserError(f"{path}: {error}; {REMAKE}") from None
    return settings


def save_ensemble(directory: Path, members: Sequence[Path]) -> str:
    """Combine the models in several directories into one directory; return a line for the log.

    Errors: UserError for models with different vocabularies.
    """
    checkpoints = [load_model(member) for member in members]
    tokenizer = checkpoints[0].tokenizer
    for member, checkpoint in zip(members, checkpoints, strict=True):
        if checkpoint.tokenizer != tokenizer:
            raise UserError(
                f"{member}: a different vocabulary from {members[0]}; train both on the same "
                "dataset"
            )
    weights = {
        f"members.{number}.{name}": weight
        for number, checkpoint in enumerate(checkpoints)
        for name, weight in checkpoint.model.state_dict().items()
    }
    config = ModelConfig(
        architecture=ENSEMBLE,
        vocab_size=tokenizer.vocab_size,
        start=checkpoints[0].start,
        ensemble=tuple(c.model.settings.model_dump(mode="json") for c in checkpoints),
    )
    write_directory(directory, weights, config, tokenizer)
    return f"averages the probabilities of {plural(len(members), 'model')}"
