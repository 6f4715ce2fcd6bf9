"""Read a model to export. All formats share this."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nanogpt.config.schema import ModelSettings
from nanogpt.config.trained import check_program
from nanogpt.data.byte_pairs import GPT2_SHA256
from nanogpt.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import sha256_file
from nanogpt.interchange.architectures import Format, check_format
from nanogpt.interchange.destinations import Mark
from nanogpt.model.checkpoints import load_model
from nanogpt.model.ensemble import Ensemble
from nanogpt.project import NGRAMS_FILE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportedModel:
    """A model to export. name: of its run or directory. sha256: of its weights."""

    directory: Path
    name: str
    settings: ModelSettings
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    start: tuple[int, ...]
    sha256: str

    def mark(self, kind: str) -> Mark:
        """The mark of an export of this model."""
        return Mark(kind=kind, source=self.name, sha256=self.sha256)


def read_model(directory: Path, kind: Format) -> ExportedModel:
    """Read a nanogpt model directory to export it. Its n-grams are omitted with a warning.

    Errors: UserError for files that are missing or damaged, for an ensemble, and for an
    architecture or tokens that the format doesn't support.
    """
    check_program(directory)
    checkpoint = load_model(directory)
    model = checkpoint.model
    if isinstance(model, Ensemble):
        raise UserError(
            f"{directory}: an ensemble of {plural(len(model.members), 'model')}, which other "
            "programs don't support; export the model of one of its runs"
        )
    tokenizer = _find_tokenizer(directory, checkpoint.tokenizer)
    check_format(model.settings, tokenizer, kind, str(directory))
    if (directory / NGRAMS_FILE).exists():
        logger.warning("%s: not exported; only the GPT is", directory / NGRAMS_FILE)
    return ExportedModel(
        directory=directory,
        name=model_name(directory),
        settings=model.settings,
        weights=model.state_dict(),
        tokenizer=checkpoint.tokenizer,
        start=checkpoint.start,
        sha256=sha256_file(directory / "model.safetensors"),
    )


def model_name(directory: Path) -> str:
    """`demo` for results/demo/model; for other directories, the directory's name."""
    resolved = directory.resolve()
    return resolved.parent.name if resolved.name == "model" else resolved.name


def _find_tokenizer(directory: Path, tokenizer: Tokenizer) -> str:
    """The name of a model's tokenizer in config.yaml."""
    if isinstance(tokenizer, CharTokenizer):
        return "char"
    if isinstance(tokenizer, ByteTokenizer):
        return "byte"
    return "gpt2" if sha256_file(directory / "tokenizer.json") == GPT2_SHA256 else "bpe"
