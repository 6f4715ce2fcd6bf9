"""Load initial weights from a model directory, to fine-tune a model."""

from pathlib import Path

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.models import ModelConfig
from nanogpt.config.initial import check_model_agrees
from nanogpt.config.parameters import complete
from nanogpt.config.schema import ModelSettings
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError, plural
from nanogpt.model.directories import ARCHITECTURE
from nanogpt.model.gpt import GPT
from nanogpt.model.weights import put_weights, read_weights


def load_initial(model: GPT, tokenizer: Tokenizer, directory: Path, run: str) -> None:
    """Copy a model directory's weights into a model. Positions beyond its window are cut off.

    tokenizer: of the dataset. run: the run's name, for messages.

    Errors: UserError for another architecture or vocabulary, or a damaged directory.
    """
    where = f"runs.{run}.train.init_from"
    config = read_record(directory / "config.json", ModelConfig, "make that model again")
    if config.architecture != ARCHITECTURE:
        raise UserError(
            f"{where}: {directory}: can't train from architecture `{config.architecture}`; name "
            "the directory of a single GPT"
        )
    settings = complete(ModelSettings, config.settings)
    check_model_agrees(model.settings, settings, str(directory), f"runs.{run}.model")
    theirs = load_tokenizer(directory / "tokenizer.json")
    if theirs != tokenizer:
        raise UserError(
            f"{where}: {directory}: its vocabulary ({plural(theirs.vocab_size, 'token')}) isn't "
            f"the dataset's ({plural(tokenizer.vocab_size, 'token')}); give the dataset that "
            "model's tokenizer (`tokenizer: <its dataset>`, or `tokenizer: gpt2`)"
        )
    path = directory / "model.safetensors"
    weights = read_weights(path)
    if "wpe.weight" in weights:
        weights["wpe.weight"] = weights["wpe.weight"][: model.settings.block_size]
    put_weights(model, weights, path)
