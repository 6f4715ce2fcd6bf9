"""The weights that a training begins with, where they are those of a model directory."""

from pathlib import Path

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.models import ModelConfig
from nanogpt.config.initial import check_model_agrees
from nanogpt.config.parameters import complete
from nanogpt.config.schema import ModelSettings
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError
from nanogpt.model.directories import ARCHITECTURE
from nanogpt.model.gpt import GPT
from nanogpt.model.weights import put_weights, read_weights


def load_initial(model: GPT, tokenizer: Tokenizer, directory: Path, run: str) -> None:
    """Put the weights of a model directory into a model. Positions beyond its window are cut.

    tokenizer: of the dataset. run: that is trained, for messages.

    Errors: UserError for a directory of another architecture or vocabulary, or a damaged one.
    """
    where = f"runs.{run}.train.init_from"
    config = read_record(directory / "config.json", ModelConfig, "make that model again")
    if config.architecture != ARCHITECTURE:
        raise UserError(
            f"{where}: {directory}: architecture `{config.architecture}`, but a training begins "
            "with a single GPT; name another model"
        )
    settings = complete(ModelSettings, config.settings)
    check_model_agrees(model.settings, settings, str(directory), f"runs.{run}.model")
    theirs = load_tokenizer(directory / "tokenizer.json")
    if theirs != tokenizer:
        raise UserError(
            f"{where}: {directory}: its vocabulary of {theirs.vocab_size} tokens isn't the "
            f"dataset's, of {tokenizer.vocab_size}; give the dataset the tokenizer of that model's "
            "dataset (`tokenizer: <dataset>`, or gpt2)"
        )
    path = directory / "model.safetensors"
    weights = read_weights(path)
    if "wpe.weight" in weights:
        weights["wpe.weight"] = weights["wpe.weight"][: model.settings.block_size]
    put_weights(model, weights, path)
