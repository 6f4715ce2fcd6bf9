"""Write model directories: model.safetensors, config.json and tokenizer.json.

Loading them executes nothing: weights are safetensors, and the rest is JSON.
"""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.models import ModelConfig
from nanogpt.config.schema import ModelSettings
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.files.atomic import atomic_write

MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")

# The `architecture` in a single model's config.json.
ARCHITECTURE = "gpt2"


def save_model(
    directory: Path,
    weights: dict[str, Tensor],
    settings: ModelSettings,
    tokenizer: Tokenizer,
    start: Sequence[int] = (),
) -> None:
    """Write a model directory. Each file is written atomically, the weights last.

    start: the tokens that precede a text, for samples without a prompt.
    """
    config = ModelConfig(
        architecture=ARCHITECTURE,
        vocab_size=tokenizer.vocab_size,
        start=tuple(start),
        **settings.model_dump(mode="json"),
    )
    write_directory(directory, weights, config, tokenizer)


def write_directory(
    directory: Path, weights: dict[str, Tensor], config: ModelConfig, tokenizer: Tokenizer
) -> None:
    """Write the three files, each of them atomically, the weights last."""
    tokenizer.save(directory / "tokenizer.json")
    write_record(directory / "config.json", config)
    with atomic_write(directory / "model.safetensors") as file:
        file.write(save({name: tensor.contiguous() for name, tensor in weights.items()}))
